"""Reads and writes what a payment's unit reads and writes: one look into the tables, one change at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from msgspec import UNSET, DecodeError, to_builtins

from faust_exactly_once import Topic, current_unit, raws
from streamsocial_billing.domain.decision import holds
from streamsocial_billing.domain.events import ENCODER, PaymentEvent
from streamsocial_billing.domain.known import Known
from streamsocial_billing.domain.newer_fields import keeping
from streamsocial_billing.domain.results import AuthenticationRequest
from streamsocial_billing.domain.statuses import OPEN
from streamsocial_billing.payments.outcome_lines import LEVEL, OUTCOMES
from streamsocial_billing.payments.record_outcome import Answer, Change, Row
from tables.awaited_charges import AwaitedCharge
from tables.business_refs import BusinessRef, business_key, charges_of, naming
from tables.charges import AnyState, KnownState, read_known_state
from tables.gateway_events import SeenEvent
from tables.open_payments import OpenPayment
from tables.payments import (
    Entry,
    ObservedEntry,
    PaymentEntry,
    SettledRow,
    SmallEntry,
    entry_of,
    is_full,
    is_small,
    payment_key,
    read_entry,
)


@dataclass(frozen=True, slots=True)
class UnitWriter:
    """The topics and tables of a payment's unit; each call is inside the unit.

    `tables` by their names; `rows` are the same, whose rows are checked when they are read.
    """

    results: Topic
    metrics: Topic
    rows: Mapping[str, Any]
    tables: Mapping[str, Any]
    counters: Any
    authentications: Topic | None = None

    # ---- reading

    def load(self, payment: PaymentEvent) -> Known:
        """What is known of an event's payment before it is decided: each row that its unit needs, once."""
        user_id, payment_id = payment.user_id, payment.payment_id
        key = payment_key(user_id, payment_id)
        value, awaited = raws(key, self.tables["payments"], self.tables["awaited_charges"])
        state = self.state(user_id)
        entry = None if value is None else entry_of(value)
        if entry is not None and "seen" not in entry:
            return self._known(user_id, payment_id, key, entry, state)
        waiting = named = held_by = None
        if payment.action == "charge":
            if awaited is not None:  # hardly ever
                waiting = self.rows["awaited_charges"].get(key)
            if payment.business_ref is not None:
                named = self.rows["business_refs"].get(business_key(user_id, payment.business_ref))
                if named is not None and entry is None:
                    held_by = self._first_holder(user_id, named, payment_id)
        return Known(user_id, payment_id, key, entry, state, None, waiting, named, held_by)

    def look_up(self, user_id: str, payment_id: str) -> Known:
        """What is known of a payment, whoever asks."""
        key = payment_key(user_id, payment_id)
        entry, state = read_entry(self.tables["payments"].get(key)), self.state(user_id)
        return self._known(user_id, payment_id, key, entry, state)

    def _known(
        self, user_id: str, payment_id: str, key: str, entry: Entry | None, state: AnyState | None
    ) -> Known:
        if not is_full(entry) or entry["status"] not in OPEN:
            return Known(user_id, payment_id, key, entry, state)
        return Known(
            user_id, payment_id, key, entry, state, listed=self.rows["open_payments"].get(key),
            waiting=self.rows["awaited_charges"].get(key) if entry["action"] == "charge" else None,
        )  # fmt: skip

    def entry(self, user_id: str, payment_id: str) -> Entry | None:
        """A payment's entry; outside a unit the committed one. Raises LookupError there, as tables do."""
        return read_entry(self.tables["payments"].get(payment_key(user_id, payment_id)))

    def state(self, user_id: str) -> AnyState | None:
        """A user's charge state."""
        row = self.tables["charges"].raw(user_id)
        if row is None:
            return None
        try:
            return read_known_state(row)
        except DecodeError:  # another release's, whose fields stay; or no charge state at all
            found: AnyState | None = self.rows["charges"].get(user_id)
            return found

    def held_by(self, event: PaymentEvent) -> str | None:
        """The payment_id of another charge that holds the event's business_ref now."""
        if event.business_ref is None or event.action != "charge":
            return None
        named = self.rows["business_refs"].get(business_key(event.user_id, event.business_ref))
        return None if named is None else self._first_holder(event.user_id, named, event.payment_id)

    def named(self, user_id: str, entry: Entry | None) -> BusinessRef | None:
        """The row of the business_ref of what is left of a payment."""
        if not is_small(entry) or entry["business_ref"] is None:
            return None
        key = business_key(user_id, entry["business_ref"])
        found: BusinessRef | None = self.rows["business_refs"].get(key)
        return found

    def held_again(
        self, user_id: str, payment_id: str, charge: PaymentEntry | SmallEntry
    ) -> tuple[tuple[Row, ...], str | None]:
        """The row of its business_ref, if it has one, for a charge that has money again that had gone back.

        Beside it the payment_id of another charge that holds it too: it was paid twice, and stays held until
        both are free.
        """
        if charge["business_ref"] is None or not holds(charge):
            return (), None
        key = business_key(user_id, charge["business_ref"])
        named = self.rows["business_refs"].get(key)
        others = [] if named is None else self._holders(user_id, named, payment_id)
        row = Row("business_refs", key, naming(*others, payment_id), named)
        return (row,), others[0] if others else None

    def _holders(self, user_id: str, named: BusinessRef, but: str) -> list[str]:
        """The charges of a row that hold its business_ref now, all `but` one."""
        return [one for one in charges_of(named) if one != but and holds(self.entry(user_id, one))]

    def _first_holder(self, user_id: str, named: BusinessRef, but: str) -> str | None:
        return next(iter(self._holders(user_id, named, but)), None)

    def awaited(self, user_id: str, charge_id: str) -> AwaitedCharge | None:
        """What waits for a charge; None: nothing does."""
        found: AwaitedCharge | None = self.rows["awaited_charges"].get(payment_key(user_id, charge_id))
        return found

    def reported_before(self, key: str) -> SeenEvent | None:
        """The row of a gateway's message; None: it was not handled yet."""
        found: SeenEvent | None = self.rows["gateway_events"].get(key)
        return found

    # ---- writing

    def write(self, change: Change) -> None:
        """Write a change: nothing else of this room writes into a table, or sends.

        Here fields of a newer release are kept, whatever the step knew of the row.
        """
        for row in change.rows:
            table, value = self.tables[row.table], row.value
            if value is None:
                del table[row.key]
                continue
            before = table.get(row.key) if row.before is UNSET else row.before
            if type(value) is SettledRow:
                if before is None:  # nearly always
                    table.set_raw(row.key, ENCODER.encode(value))
                    continue
                value = to_builtins(value)
            table[row.key] = value if before is None else keeping(before, value, *_KNOWN[row.table])
        if change.counts:
            self.counters.add_all(change.counts)
        if change.answer is not None:
            self.answer(change.answer)

    def answer(self, answer: Answer) -> None:
        """One ChargeResult, its metric, the user's charge state: always these three together."""
        result, state = answer.result, answer.state
        self.results.put_into_unit(result.user_id.encode(), ENCODER.encode(result))
        self.metrics.put_into_unit(result.product.encode(), ENCODER.encode(answer.metric))
        if type(state) is KnownState:
            self.tables["charges"].set_raw(result.user_id, ENCODER.encode(state))
        else:
            self.tables["charges"][result.user_id] = state
        if OUTCOMES.isEnabledFor(LEVEL):  # else nothing of it has to be kept until the commit
            current_unit().report(result)
        self.counters.add_all(answer.counts)

    def ask_customer(self, request: AuthenticationRequest) -> None:
        """Tell the platform that a payment wants its customer."""
        if self.authentications is not None:
            self.authentications.put_into_unit(request.user_id.encode(), ENCODER.encode(request))


_KNOWN: Final[Mapping[str, tuple[type, ...]]] = {
    "payments": (PaymentEntry, SmallEntry, ObservedEntry),
    "open_payments": (OpenPayment,),
    "business_refs": (BusinessRef,),
    "awaited_charges": (AwaitedCharge,),
    "gateway_events": (SeenEvent,),
}
