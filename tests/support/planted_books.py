"""Makes three legs that agree, with breaks of every class planted at known places.

Nothing is random but by the seed. `expected` holds what a report must name, no more, no less: class, gateway,
then the gateway's reference, or the payment, or the payout. `planted_output` writes the legs out.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from streamsocial_billing.domain.gateway_calls import Movement
from streamsocial_billing.domain.payment_identity import gateway_key_of
from streamsocial_billing.domain.results import charge_result
from streamsocial_billing.domain.statuses import OPEN

AS_OF: Final = int(datetime(2026, 3, 6, 12, tzinfo=UTC).timestamp() * 1000)
"""A Friday noon."""
MINUTE: Final = 60_000
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR
GATEWAYS: Final = ("simulated", "stripe", "paypal")
CURRENCIES: Final = ("USD", "EUR", "JPY", "KWD")
Named = tuple[str, str, str]
"""Class, gateway, the gateway's reference (or payment, or payout)."""


@dataclass(frozen=True)
class Settled:
    """A line of a settlement file; minor units."""

    kind: str
    gateway_ref: str
    gross: int
    fee: int
    currency: str
    payout: str
    at: int
    charge_ref: str = ""
    ref: str = ""


@dataclass(frozen=True)
class Payment:
    """A charge or refund as all legs know it unless somebody plants something else."""

    gateway: str
    user: str
    id: str
    kind: str
    gateway_ref: str
    amount: int
    currency: str
    at: int
    fee: int
    charge_ref: str | None = None
    refund_of: str | None = None

    @property
    def ref(self) -> str:
        """Our reference."""
        return gateway_key_of(self.user, self.kind, self.id)


@dataclass
class PlantedBooks:
    """The legs, filled by `normal` and `plant`; written out by `planted_output`."""

    seed: int = 1
    random: random.Random = field(init=False)
    results: list[tuple[str, bytes, int]] = field(default_factory=list)
    listed: dict[str, list[Movement]] = field(default_factory=lambda: {name: [] for name in GATEWAYS})
    settled: dict[str, list[Settled]] = field(default_factory=lambda: {name: [] for name in GATEWAYS})
    paid: dict[tuple[str, str, str], int] = field(default_factory=dict)
    observed: list[tuple[str, bytes]] = field(default_factory=list)
    parked: list[str] = field(default_factory=list)
    unhandled: list[tuple[str, bytes]] = field(default_factory=list)
    expected: set[Named] = field(default_factory=set)
    _number: int = 0

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    # ---- one payment

    def payment(self, gateway: str, *, age: int, amount: int | None = None, currency: str | None = None,
                charge: Payment | None = None, part: int = 1) -> Payment:  # fmt: skip
        """A new charge, or the `part`-th share of a refund of a charge, `age` ms before AS_OF."""
        self._number += 1
        number = self._number
        if charge is not None:
            return Payment(
                gateway, charge.user, f"re-{number}", "refund", f"re_{gateway}_{number}",
                charge.amount // part, charge.currency, AS_OF - age, 0, charge.gateway_ref, charge.id,
            )  # fmt: skip
        # PayPal has no dinar: its reports count hundredths
        code = currency or self.random.choice(CURRENCIES[:3] if gateway == "paypal" else CURRENCIES)
        money = amount or self.random.randrange(100, 90_000)
        return Payment(
            gateway, f"user-{number % 997}", f"pay-{number}", "charge", f"ch_{gateway}_{number}", money, code,
            AS_OF - age, 10 + money // 40,
        )  # fmt: skip

    def book(self, one: Payment, status: str = "succeeded", **changed: Any) -> None:
        """A result in our books."""
        told = {
            "payment_id": one.id, "user_id": one.user, "action": one.kind, "product": "gift",
            "status": status,
            "reason": None, "replayed": False, "amount_minor": one.amount, "currency": one.currency,
            "gateway": one.gateway, "gateway_ref": one.gateway_ref if status != "unknown" else None,
            "attempt": 1, "requested_at": one.at - 100, "processed_at": one.at + 100,
            "source": {"topic": "payments", "partition": 0, "offset": 0}, "refund_of": one.refund_of,
        } | changed  # fmt: skip
        self.results.append((one.user, charge_result(**told), one.at + 100))

    def show(self, one: Payment, **changed: Any) -> None:
        """A row of the gateway's list; the simulated one tells no fees."""
        fee = one.fee if one.gateway != "simulated" and one.kind == "charge" else None
        moved = Movement(
            one.gateway_ref, one.kind, "succeeded", one.amount, one.currency, one.at, one.ref, one.id,
            one.user, one.charge_ref, fee,
        )  # fmt: skip
        self.listed[one.gateway].append(replace(moved, **changed))

    def settle(self, one: Payment, **changed: Any) -> None:
        """A line of a settlement file, in the payout of its day; part of what is paid."""
        sign = 1 if one.kind == "charge" else -1
        day = datetime.fromtimestamp(one.at / 1000, UTC).strftime("%Y%m%d")
        line = Settled(
            one.kind, one.gateway_ref, sign * one.amount, one.fee, one.currency, f"po_{one.gateway}_{day}",
            one.at, one.charge_ref or "", one.ref,
        )  # fmt: skip
        line = replace(line, **changed)
        self.settled[one.gateway].append(line)
        place = one.gateway, line.payout, line.currency
        self.paid[place] = self.paid.get(place, 0) + line.gross - line.fee

    def everywhere(self, one: Payment) -> Payment:
        """In all three legs."""
        self.book(one)
        self.show(one)
        self.settle(one)
        return one

    def expect(self, class_: str, one: Payment, name: str | None = None) -> None:
        """The report must name this."""
        self.expected.add((class_, one.gateway, name or one.gateway_ref))

    # ---- what is as it should be

    def normal(self, count: int) -> None:
        """So many payments without a break, with all that is usual: refunds, declines, replays, disputes."""
        for number in range(count):
            gateway = GATEWAYS[number % 3]
            age = self.random.randrange(5 * DAY, 25 * DAY)
            one = self.payment(gateway, age=age)
            match number % 20:
                case 1:
                    self.book(one, "declined", reason="card_declined")
                    self.show(one, status="failed", fee_minor=None)
                case 2:
                    self.book(one, "rejected", reason="duplicate_business_ref", gateway_ref=None, attempt=0)
                case 3:
                    self.book(one, "unknown")
                    self.book(one, resolves=True)
                    self.show(one)
                    self.settle(one)
                case 4:
                    self.everywhere(one)
                    self.book(one, replayed=True)
                case 5:
                    self.everywhere(one)
                    for _ in range(2):
                        self.everywhere(self.payment(gateway, age=age - HOUR, charge=one, part=3))
                case 6:
                    self._made_at_the_gateway(one)
                case 7:
                    self.show(one, ref=None, payment_id=None, user_id=None)
                    self.settle(one, ref="")
                case _:
                    self.everywhere(one)

    def _made_at_the_gateway(self, charge: Payment) -> None:
        """A charge with an external refund, a dispute, and one that was won, all of them booked."""
        self.everywhere(charge)
        for kind in ("refund", "dispute", "won"):
            made = replace(self.payment(charge.gateway, age=AS_OF - charge.at - HOUR, charge=charge, part=4),
                           kind="refund" if kind == "refund" else "dispute")  # fmt: skip
            reason = None if kind == "refund" else "dispute"
            external: dict[str, Any] = {"origin": "external", "source": None, "action": "refund"}
            self.book(made, reason=reason, **external, payment_id=f"x1_{made.id}")
            status = "failed" if kind == "won" else "succeeded"
            self.show(made, ref=None, payment_id=None, user_id=None, status=status)
            self.settle(made, ref="")
            if kind == "won":
                back = {"reason": "dispute_won", "payment_id": f"x1_{made.id}w", "action": "charge"}
                self.book(made, **(external | back))
                self.settle(made, ref="", gross=made.amount)

    # ---- what is not

    def plant(self) -> None:
        """Every class of break, at least twice."""
        for gateway in GATEWAYS:
            self._plant_two_legs(gateway)
            self.plant_refunds(gateway)
            self._plant_timing(gateway)
            self._plant_settlement(gateway)

    def _plant_two_legs(self, gateway: str) -> None:
        def new(**more: Any) -> Payment:
            return self.payment(gateway, age=6 * DAY, **more)

        lost = new()
        self.show(lost)
        self.settle(lost)
        self.expect("missing_internal", lost)
        open_ = new(currency="JPY" if gateway == "paypal" else "KWD")
        self.book(open_, "unknown", reason="outcome_unknown")
        self.show(open_)
        self.settle(open_)
        self.expect("missing_internal", open_)
        gone = new(currency="JPY")
        self.book(gone)
        self.expect("missing_external", gone)
        for ours, theirs in (("succeeded", "failed"), ("declined", "succeeded"), ("unknown", "failed")):
            other = new()
            self.book(other, ours)
            self.show(other, status=theirs, fee_minor=None)
            if theirs == "succeeded":
                self.settle(other)
            self.expect("status_mismatch", other)
        for factor, more in ((100, 0), (1, 1)):
            wrong = new(amount=1234, currency="JPY")
            self.book(wrong)
            self.show(wrong, amount_minor=wrong.amount * factor + more)
            self.settle(wrong, gross=wrong.amount * factor + more)
            self.expect("amount_mismatch", wrong)
        twice = self.everywhere(new())
        again = replace(twice, gateway_ref=f"{twice.gateway_ref}b", at=twice.at + 1000)
        self.show(again)
        self.settle(again)
        self.expect("duplicate_external", again)
        counted = self.everywhere(new())
        self.book(counted, processed_at=counted.at + 5000)
        self.expect("duplicate_internal", counted)
        shared = self.everywhere(new())
        twin = replace(new(), gateway_ref=shared.gateway_ref, amount=shared.amount, currency=shared.currency)
        self.book(twin, processed_at=twin.at + 9000)
        self.expect("duplicate_internal", twin)
        self._plant_open(gateway)

    def _plant_open(self, gateway: str) -> None:
        for status in OPEN:
            stuck = self.payment(gateway, age=4 * DAY)
            self.book(stuck, "unknown", reason="outcome_unknown")
            self.expect("unknown_aged", stuck, stuck.id)
            if status == "parked":
                self.parked.append(f"{stuck.user}/{stuck.id}")
        fresh = self.payment(gateway, age=3 * HOUR)
        self.book(fresh, "unknown", reason="outcome_unknown")
        for age, broken in ((40 * DAY, True), (2 * DAY, False)):
            told = self.payment(gateway, age=age)
            self.show(told)
            if age < 3 * DAY:
                self.settle(told)
            entry = {
                "status": "observed", "seen": "succeeded", "reason": None, "action": "charge",
                "gateway": gateway, "gateway_account": "", "gateway_ref": told.gateway_ref,
                "amount_minor": told.amount, "currency": told.currency, "soft": False, "observed_at": told.at,
            }  # fmt: skip
            self.observed.append((f"{told.user}/{told.id}", orjson.dumps(entry)))
            if broken:
                self.expect("observed_aged", told)

    def plant_refunds(self, gateway: str) -> None:
        def charged() -> Payment:
            return self.everywhere(self.payment(gateway, age=7 * DAY))

        def refund(charge: Payment) -> Payment:
            return self.payment(gateway, age=6 * DAY, charge=charge, part=2)

        outside = refund(charged())
        self.show(outside, ref=None, payment_id=None, user_id=None)
        self.settle(outside, ref="")
        self.expect("refund_mismatch", outside)
        less = refund(charged())
        self.book(less)
        self.show(less, amount_minor=less.amount - 1)
        self.settle(less, gross=-(less.amount - 1))
        self.expect("refund_mismatch", less)
        elsewhere = refund(charged())
        self.book(elsewhere)
        self.show(elsewhere, charge_ref=charged().gateway_ref)
        self.settle(elsewhere)
        self.expect("refund_mismatch", elsewhere)
        lost = refund(charged())
        self.show(lost)
        self.settle(lost)
        self.expect("missing_internal", lost)
        disputed = replace(refund(charged()), kind="dispute")
        self.show(disputed, ref=None, payment_id=None, user_id=None)
        self.settle(disputed, ref="")
        self.expect("dispute_unbooked", disputed)

    def _plant_timing(self, gateway: str) -> None:
        """Under way: an event not handled yet, a list that lags, a refund on the other side of the cut."""
        waiting = self.payment(gateway, age=5 * MINUTE)
        charge = self.everywhere(self.payment(gateway, age=9 * DAY))
        refund = self.payment(gateway, age=6 * MINUTE, charge=charge)
        for one in (waiting, refund):
            self.show(one)
            event = {"user_id": one.user, "payment_id": one.id, "requested_at": one.at - 1000}
            self.unhandled.append((one.user, orjson.dumps(event)))
            self.expect("timing", one)
        young = self.payment(gateway, age=MINUTE)
        self.book(young)
        self.expect("timing", young)

    def _plant_settlement(self, gateway: str) -> None:
        def new(age: int = 8 * DAY) -> Payment:
            return self.payment(gateway, age=age, currency="USD")

        late = new()
        self.book(late)
        self.show(late)
        self.expect("unsettled_aged", late)
        fresh = new(DAY)
        self.book(fresh)
        self.show(fresh)
        other = new()
        self.book(other)
        self.show(other)
        self.settle(other, gross=other.amount + 7)
        self.expect("amount_mismatch", other)
        orphan = new()
        self.settle(orphan)
        self.expect("orphan_line", orphan)
        whose = self.everywhere(new())
        lost = replace(new(), kind="dispute", gateway_ref=f"dp_{gateway}_lost", charge_ref=whose.gateway_ref)
        self.settle(lost, ref="")
        self.expect("dispute_unbooked", lost)
        if gateway != "simulated":
            dear = new()
            self.book(dear)
            self.show(dear, fee_minor=dear.fee - 3)
            self.settle(dear)
            self.expect("fee_mismatch", dear)
        if gateway == "simulated":
            doubled = self.everywhere(new())
            self.settle(doubled)
            self.expect("duplicate_external", doubled)
        if gateway != "paypal":
            short = self.everywhere(self.payment(gateway, age=30 * DAY, currency="EUR"))
            line = self.settled[gateway][-1]
            self.paid[gateway, line.payout, "EUR"] -= 100
            self.expect("payout_total", short, line.payout)


def named(body: dict[str, Any]) -> Named:
    """What a report names, as `expected` has it."""
    name = body["payout_id"] if body["kind"] == "payout" else body["gateway_ref"] or body["payment_id"]
    return body["class"], body["gateway"], name
