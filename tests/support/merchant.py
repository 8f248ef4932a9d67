"""A made-up merchant: payments through our application on one task, lists and files as gateways give them.

Our side is real: the application, its units, the webhooks' readers. The gateways' side is kept here, in the
shapes of their APIs and exports, with every balance transaction, so that files, lists and payouts agree.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
from support.listed_books import ListedBooks, ListedPayPal, ListedStripe
from support.one_task import OneTask
from support.scripted_gateway import ScriptedGateway
from support.small_books import found_in

from streamsocial_billing.domain.events import PaymentEvent
from streamsocial_billing.domain.gateway_calls import Owner
from streamsocial_billing.domain.money import EXPONENTS, exponent_of
from streamsocial_billing.domain.payment_identity import gateway_key
from streamsocial_billing.gateways.base import Gateway
from streamsocial_billing.gateways.paypal import webhook as paypal
from streamsocial_billing.gateways.provider_event import gateway_events, ids_by_charge, ids_of
from streamsocial_billing.gateways.stripe import webhook as stripe
from streamsocial_billing.reconciliation.bridge import Bridge, bridges
from streamsocial_billing.reconciliation.gateway_lists import load_lists
from streamsocial_billing.reconciliation.rules import Rules
from streamsocial_billing.reconciliation.settlement.importing import load_all
from streamsocial_billing.reconciliation.store import in_memory
from streamsocial_billing.settings import GATEWAY_EVENTS, RESULTS

DAY_S = 86_400
FEE = 30
BALANCE = ("balance_transaction_id,created_utc,available_on_utc,currency,gross,fee,net,reporting_category,"
           "source_id,customer_facing_amount,customer_facing_currency,automatic_payout_id,charge_id,"
           "payment_metadata[ref]")  # fmt: skip
PAYOUTS = ("payout_id,effective_at_utc,currency,balance_transaction_id,gross,fee,net,reporting_category,"
           "payout_expected_arrival_date,payout_status")  # fmt: skip
TITLES = ('"CH","Transaction ID","Invoice ID","PayPal Reference ID","PayPal Reference ID Type",'
          '"Transaction Event Code","Transaction Initiation Date","Transaction Completion Date",'
          '"Transaction  Debit or Credit","Gross Transaction Amount","Gross Transaction Currency",'
          '"Fee Debit or Credit","Fee Amount","Fee Currency","Custom Field"')  # fmt: skip


@dataclass
class Moved:
    """A balance transaction of Stripe; minor units of `currency`."""

    name: str
    at: int
    category: str
    source: str
    amount: int
    fee: int
    currency: str
    charge: str = ""
    ref: str = ""
    facing: tuple[int, str] | None = None
    payout: str = ""


@dataclass
class Merchant:
    """The gateways' side; `planted`: what the next report must name; `paid`: what reached the bank."""

    lab: OneTask
    scripted: dict[str, ScriptedGateway]
    stripe: dict[str, list[Any]] = field(default_factory=lambda: {"charge": [], "refund": [], "dispute": []})
    paypal: list[dict[str, Any]] = field(default_factory=list)
    balance: list[Moved] = field(default_factory=list)
    owners: dict[tuple[str, str], Owner] = field(default_factory=dict)
    planted: set[tuple[str, str, str]] = field(default_factory=set)
    paid: Counter[tuple[str, str]] = field(default_factory=Counter)
    _names: int = 0

    # ---- what we order

    def charge(self, gateway: str, name: str, amount: int, currency: str, *, method: str = "pm_card_visa",
               settled: tuple[int, str] | None = None) -> str:  # fmt: skip
        """A charge of ours; `settled`: in another currency than it was paid in. Returns the gateway's id."""
        event = self._event(gateway, name, "charge", amount, currency, payment_method=method)
        self.lab.send(event)
        ref, key = self.scripted[gateway].charges[gateway_key(event)], gateway_key(event)
        self.owners[gateway, ref] = Owner(event.user_id, name, key)
        self.list_charge(gateway, ref, amount, currency, key=key, settled=settled)
        return ref

    def refund(self, gateway: str, name: str, of: str, amount: int) -> str:
        """A refund of ours, of the charge with this name."""
        charge = next(one for one in self.owners.items() if one[1].payment_id == of)
        row = next(row for row in self.stripe["charge"] if row["id"] == charge[0][1])
        currency = row["currency"].upper()
        user = charge[1].user_id
        event = self._event(gateway, name, "refund", amount, currency, user_id=user, refund_of=of)
        self.lab.send(event)
        ref = self.scripted[gateway].refunds[gateway_key(event)]
        owner = Owner(event.user_id, name, gateway_key(event))
        self.list_refund(ref, charge[0][1], amount, currency, owner)
        return ref

    def _event(self, gateway: str, name: str, action: str, amount: int, currency: str, **more: Any) -> Any:
        filled = {"product": "gift", "payment_method": "pm_card_visa", "user_id": f"user-{name}",
                  "payment_id": name, "action": action, "amount_minor": amount, "currency": currency,
                  "gateway": gateway} | more  # fmt: skip
        return PaymentEvent.from_mapping(filled, now_ms=self.lab.now_ms)

    # ---- what the gateways have

    def list_charge(self, gateway: str, ref: str, amount: int, currency: str, *, key: str = "",
                    settled: tuple[int, str] | None = None) -> None:  # fmt: skip
        """A sale in list and balance; without our key another shop's."""
        if gateway == "paypal":
            self.row("T0006", ref, amount, currency, fee=FEE, invoice=key or f"WC-{ref}")
            return
        owner = self.owners.get((gateway, ref))
        metadata = words(owner) if owner else {}
        gross, paid_in = settled or (amount, currency)
        self.stripe["charge"].append({
            "id": ref, "amount": amount, "currency": currency.lower(), "status": "succeeded",
            "captured": True, "created": self.lab.now_ms // 1000, "metadata": metadata,
            "balance_transaction": {"fee": FEE, "currency": paid_in.lower()},
        })  # fmt: skip
        self.move("charge", ref, gross, paid_in, fee=FEE, charge=ref, ref=key,
                  facing=(amount, currency) if settled else None)  # fmt: skip

    def list_refund(self, ref: str, charge: str, amount: int, currency: str, owner: Owner | None) -> None:
        """A refund in Stripe's list and balance; without an owner made in its dashboard."""
        metadata = words(owner) if owner else {}
        self.stripe["refund"].append({
            "id": ref, "object": "refund", "amount": amount, "currency": currency.lower(), "charge": charge,
            "status": "succeeded", "created": self.lab.now_ms // 1000, "metadata": metadata,
            "balance_transaction": "txn", "failure_balance_transaction": None,
        })  # fmt: skip
        self.move("refund", ref, -amount, currency, charge=charge)

    def fail_refund(self, ref: str) -> dict[str, Any]:
        """The refund fails after it succeeded: its money is back in the balance."""
        row: dict[str, Any] = next(row for row in self.stripe["refund"] if row["id"] == ref)
        row |= {"status": "failed", "failure_reason": "lost_or_stolen_card",
                "failure_balance_transaction": "txn_f"}  # fmt: skip
        self.move("refund_failure", ref, row["amount"], row["currency"].upper(), charge=row["charge"])
        return row

    def dispute(self, ref: str, charge: str, amount: int, currency: str, status: str, *moves: int) -> Any:
        """A dispute in Stripe's list as it is now, with what it moved since; one object, however often."""
        rows = [row for row in self.stripe["dispute"] if row["id"] == ref]
        if not rows:
            rows = [{"id": ref, "object": "dispute", "amount": amount, "currency": currency.lower(),
                     "charge": charge, "created": self.lab.now_ms // 1000, "metadata": {},
                     "reason": "fraudulent", "balance_transactions": []}]  # fmt: skip
            self.stripe["dispute"] += rows
        rows[0]["status"] = status
        for one in moves:
            rows[0]["balance_transactions"].append({"amount": one, "currency": currency.lower(), "fee": 0})
            self.move("dispute" if one < 0 else "dispute_reversal", ref, one, currency, charge=charge)
        return rows[0]

    def row(self, code: str, ref: str, amount: int, currency: str, *, fee: int = 0, invoice: str = "",
            of: str = "") -> None:  # fmt: skip
        """A transaction of PayPal, in its search and in its report."""
        at = datetime.fromtimestamp(self.lab.now_ms / 1000, UTC)
        info = {
            "transaction_id": ref, "transaction_event_code": code, "transaction_status": "S",
            "transaction_initiation_date": at.strftime("%Y-%m-%dT%H:%M:%S+0000"),
            "transaction_amount": {"currency_code": currency, "value": major(amount, currency)},
            "fee_amount": {"currency_code": currency, "value": major(-fee, currency)},
            "invoice_id": invoice, "paypal_reference_id": of,
            "paypal_reference_id_type": "TXN" if of else None,
        }  # fmt: skip
        self.paypal.append(info)
        if code == "T0400":
            self.paid["paypal", currency] -= amount

    def move(self, category: str, source: str, amount: int, currency: str, **more: Any) -> None:
        """A balance transaction of Stripe."""
        self._names += 1
        name, fee = f"txn_{self._names}", more.pop("fee", 0)
        self.balance.append(Moved(name, self.lab.now_ms, category, source, amount, fee, currency, **more))

    def pay_out(self, ref: str, currency: str, *, amount: int | None = None, fee: int = 0) -> None:
        """Stripe pays: all that is there, automatically; or a given amount, by hand or at once."""
        if amount is None:
            mine = [one for one in self.balance if one.currency == currency and not one.payout]
            for one in mine:
                one.payout = ref
            amount = sum(one.amount - one.fee for one in mine)
            self.move("payout", ref, -amount, currency, payout=ref)
        else:
            self.move("payout", ref, -amount, currency, fee=fee)
            self.balance[-1].payout = "-"  # no automatic payout takes it, nor names it
        self.paid["stripe", currency] += amount

    # ---- what they tell

    def notify(self, gateway: str, kind: str, it: dict[str, Any], *, times: int = 1) -> None:
        """A webhook, delivered so often; through the receiver's own reading."""
        self._names += 1
        source: Any = stripe if gateway == "stripe" else paypal
        at = datetime.fromtimestamp(self.lab.now_ms / 1000, UTC).isoformat()
        message = {"id": f"evt_{self._names}", "type": kind, "created": self.lab.now_ms // 1000,
                   "data": {"object": it}, "event_type": kind, "create_time": at, "resource": it}  # fmt: skip
        about = source.subject(message)
        owner = self.owners.get((gateway, about.charge_ref or ""))
        of = ids_of(about) or (ids_by_charge(owner) if owner is not None else None)
        if of is None:
            return  # not ours: answered 200, counted
        for _ in range(times):
            for event in gateway_events(gateway, source.read(message), of):
                self.lab.append(GATEWAY_EVENTS, event.user_id.encode(), event.to_bytes())
            self.lab.handle()

    # ---- exports

    def exports(self, folder: Path) -> list[Path]:
        """Every file of the month; the first one of Stripe is older than its payouts, and overlaps."""
        half = len(self.balance) // 2
        first, last = split(self._report_rows())
        texts = {
            "balance-1.csv": self._balance(self.balance[:half], payouts=False),
            "balance-2.csv": self._balance(self.balance[half // 2 :]),
            "balance-3.csv": self._balance(self.balance[: half + 2]),
            "payouts.csv": self._payouts(),
            "STL-20260101.01.009.CSV": report(first, number=1, of=[first, last]),
            "STL-20260101.02.009.CSV": report(last, number=2, of=[first, last]),
        }
        paths = []
        for name, text in texts.items():
            paths.append(folder / name)
            paths[-1].write_text(text, encoding="utf-8")
        return paths

    def _balance(self, rows: Iterable[Moved], *, payouts: bool = True) -> str:
        lines = [BALANCE]
        for one in rows:
            at, money = when(one), amounts(one)
            facing = [major(*one.facing), one.facing[1].lower()] if one.facing else ["", ""]
            payout = one.payout.strip("-") if payouts else ""
            if one.category == "payout" and not payouts:
                continue
            lines.append(",".join([one.name, at, at, one.currency.lower(), *money, one.category, one.source,
                                   *facing, payout, one.charge, one.ref]))  # fmt: skip
        return "\n".join(lines) + "\n"

    def _payouts(self) -> str:
        lines = [PAYOUTS]
        for one in self.balance:
            if one.category == "payout":
                at, money = when(one), amounts(one)
                lines.append(",".join([one.source, at, one.currency.lower(), one.name, *money, "payout",
                                       at[:10], "paid"]))  # fmt: skip
        return "\n".join(lines) + "\n"

    def _report_rows(self) -> list[tuple[str, str, int, int]]:
        """Row, currency, hundredths of the gross, of the fee."""
        rows = []
        for info in self.paypal:
            money, fee = info["transaction_amount"], info["fee_amount"]
            gross, cost = (int(Decimal(one["value"]).scaleb(2)) for one in (money, fee))
            made = datetime.fromisoformat(info["transaction_initiation_date"])
            at = made.strftime("%Y/%m/%d %H:%M:%S +0000")
            code, way = money["currency_code"], "DR" if gross < 0 else "CR"
            text = (f'"SB","{info["transaction_id"]}","{info["invoice_id"]}","{info["paypal_reference_id"]}",'
                    f'"TXN","{info["transaction_event_code"]}","{at}","{at}","{way}",{abs(gross)},"{code}",'
                    f'"DR",{-cost},"{code}",""')  # fmt: skip
            rows.append((text, code, gross, -cost))
        return rows

    # ---- what we make of it

    def gateways(self) -> dict[str, Gateway]:
        """As a run lists them."""
        rows = [{"transaction_info": info} for info in self.paypal]
        return {"stripe": ListedStripe(self.stripe), "paypal": ListedPayPal(rows)}

    def books(self) -> ListedBooks:
        """Our results so far."""
        return ListedBooks([record.value for record in self.lab.sent(RESULTS)], self.lab.now_ms)

    def run(self, files: list[Path]) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[Bridge]]:
        """The breaks of a run, its repairs, its bridges."""
        db, ours = in_memory(), self.books()
        load_all(db, files)
        ours.load(db, ours.take_cut())
        asyncio.run(load_lists(db, self.gateways(), 0, self.lab.now_ms))
        found = found_in(db, Rules(as_of=self.lab.now_ms, told_by=lambda _: self.lab.now_ms))
        events = db.execute("SELECT event FROM breaks WHERE event IS NOT NULL ORDER BY since, id").fetchall()
        db.row_factory = None
        return found, [one for (text,) in events for one in orjson.loads(text)], bridges(db)

    def repair(self, events: list[dict[str, Any]]) -> None:
        """What a run appends; nothing of it is refused."""
        for event in events:
            self.lab.append(GATEWAY_EVENTS, event["user_id"].encode(), orjson.dumps(event))
        self.lab.handle()
        assert [] == self.lab.dead_letters()


def words(owner: Owner) -> dict[str, str]:
    """Our metadata."""
    return {"ref": owner.ref, "user_id": owner.user_id, "payment_id": owner.payment_id}


def when(one: Moved) -> str:
    """A time of Stripe's reports."""
    return datetime.fromtimestamp(one.at / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def amounts(one: Moved) -> list[str]:
    """Gross, fee, net."""
    return [major(amount, one.currency) for amount in (one.amount, one.fee, one.amount - one.fee)]


def split(rows: list[Any]) -> tuple[list[Any], list[Any]]:
    """Two files of one report."""
    return rows[: len(rows) // 2], rows[len(rows) // 2 :]


def report(rows: list[Any], *, number: int, of: list[list[Any]]) -> str:
    """One file of a settlement report: totals of all files stand in the last one."""
    head = ['"RH","2026/01/01 00:00:00 +0000","A","MERCHANT","009"'] if number == 1 else []
    lines = [*head, f'"FH",{number:02d}', '"SH","2025/12/01","2026/01/01","MERCHANT",""', TITLES]
    lines += [text for text, *_ in rows]
    lines += [*totals("SF", rows), f'"SC",{len(rows)}']
    if number == len(of):
        everything = [row for part in of for row in part]
        lines += [*totals("RF", everything), f'"RC",{len(everything)}']
    return "\n".join([*lines, f'"FF",{len(rows)}']) + "\n"


def totals(kind: str, rows: list[Any]) -> list[str]:
    """Credits, debits, fee credits, fee debits by currency."""
    sums: Counter[tuple[str, int]] = Counter()
    for _, code, gross, fee in rows:
        sums[code, 1 if gross < 0 else 0] += abs(gross)
        sums[code, 3] += fee
    codes = sorted({code for code, _ in sums})
    return [f'"{kind}","{code}",' + ",".join(str(sums[code, at]) for at in range(4)) for code in codes]


def major(amount: int, currency: str) -> str:
    """Minor units as exports have them."""
    exponent = EXPONENTS.get(currency, exponent_of(currency) or 0)
    return str(Decimal(amount).scaleb(-exponent))
