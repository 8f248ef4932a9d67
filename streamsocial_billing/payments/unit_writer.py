"""Where a unit writes what came of a payment."""

from __future__ import annotations

import asyncio
import logging
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import orjson

from faust_exactly_once import Event, RecordTooLarge, Topic
from streamsocial_billing.domain.decision import OPEN, charge_state_after, holds
from streamsocial_billing.domain.events import (
    BadInput,
    PaymentEvent,
    charge_result,
    mask_card_numbers,
    payment_metric,
)
from streamsocial_billing.domain.outcomes import Verdict
from streamsocial_billing.payments.outcome_lines import note
from tables.business_refs import BusinessRef, business_key
from tables.open_payments import OpenPayment
from tables.payments import Entry, PaymentEntry, SmallEntry, payment_key, read_entry, written
from tables.task_counters import (
    CHARGED,
    DEAD_LETTERS,
    EVENTS,
    FINAL_RESULTS,
    FIRST_RESULTS,
    OPENED,
    OUTCOMES,
    PARKED,
    REFUNDED,
)

logger = logging.getLogger(__name__)

NO_TOPIC = "external"  # results of what a gateway made, in the counters
REPEATS = OUTCOMES + "repeats"
REPLAY_OF = "replay_of"
"""Header of an event that `dlq replay` sent, and of the dead letter it became again: the first one's id."""
_LETTER_ID = re.compile(rb"[0-9]{1,9}-[0-9]{1,19}")
CUT_BYTES = 64 * 1024  # of a dead letter that would not fit whole
ABOUT = (
    "action",
    "product",
    "amount_minor",
    "currency",
    "gateway",
    "requested_at",
    "business_ref",
    "refund_of",
    "origin",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """Where a unit writes: the topics of results, metrics, dead letters; the tables, the counters.

    `buried` counts the dead letters of this process by reason; one whose unit comes again counts again.
    """

    results: Topic
    metrics: Topic
    dead_letters: Topic
    charges: Any
    payments: Any
    open_payments: Any
    business_refs: Any
    gateway_events: Any
    awaited_charges: Any
    counters: Any
    buried: Counter[str] = field(default_factory=Counter)

    def handled(self, event: Event) -> None:
        """Count an event: the first line of each agent's handler. The live audit looks for its answer."""
        self.counters.add(_named(EVENTS, event.topic))

    def entry(self, user_id: str, payment_id: str) -> Entry | None:
        """What is known of a payment, as the running unit sees it."""
        return read_entry(self.payments.get(payment_key(user_id, payment_id)))

    def held_by(self, event: PaymentEvent) -> str | None:
        """The payment_id of another charge that holds the event's business_ref now."""
        if event.business_ref is None or event.action != "charge":
            return None
        named = self.business_refs.get(business_key(event.user_id, event.business_ref))
        if named is None:
            return None
        return next(iter(self._holders(event.user_id, named, event.payment_id)), None)

    def hold_again(self, user_id: str, payment_id: str, charge: PaymentEntry | SmallEntry) -> str | None:
        """A charge has money again that had gone back: it holds its business_ref, if it has one.

        Returns the payment_id of another charge that holds it too: it was paid twice, and stays held until
        both are free.
        """
        if charge["business_ref"] is None or not holds(charge):
            return None
        key = business_key(user_id, charge["business_ref"])
        named = self.business_refs.get(key)
        others = [] if named is None else self._holders(user_id, named, payment_id)
        first, *also = [*others, payment_id]
        self.business_refs[key] = {"payment_id": first} | ({"also": also} if also else {})
        return others[0] if others else None

    def _holders(self, user_id: str, named: BusinessRef, but: str) -> list[str]:
        """The charges of a row that hold its business_ref now, all `but` one."""
        listed = [named["payment_id"], *named.get("also", ())]
        return [one for one in listed if one != but and holds(self.entry(user_id, one))]

    def write(
        self, payment: PaymentEvent | PaymentEntry, user_id: str, payment_id: str, found: Verdict, *,
        replayed: bool, resolves: bool, attempt: int, gateway_ms: int | None,
        source: Mapping[str, Any] | None, at_ms: int,
    ) -> None:  # fmt: skip
        """One ChargeResult, its metric, the user's charge state: always these three together."""
        about = _about(payment)
        self.results.put_into_unit(user_id.encode(), charge_result(
            **about, payment_id=payment_id, user_id=user_id, status=found.status, reason=found.reason,
            replayed=replayed, gateway_ref=found.gateway_ref, attempt=attempt, processed_at=at_ms,
            source=source, resolves=resolves, conflicts_with=found.conflicts_with,
        ))  # fmt: skip
        self.metrics.put_into_unit(about["product"].encode(), payment_metric(
            payment_id=payment_id, product=about["product"], action=about["action"], status=found.status,
            replayed=replayed, amount_minor=about["amount_minor"], currency=about["currency"],
            gateway=about["gateway"], gateway_ms=gateway_ms, at=at_ms,
        ))  # fmt: skip
        self.charges[user_id] = charge_state_after(
            self.charges.get(user_id), user_id, found.status, about["amount_minor"], about["currency"],
            replayed, payment_id, at_ms, about["action"],
        )  # fmt: skip
        note(
            payment_id, user_id, about["action"], found.status, found.reason, attempt, replayed=replayed,
            resolves=resolves, offset=source["offset"] if source is not None else None,
        )  # fmt: skip
        came_from = source["topic"] if source is not None else NO_TOPIC
        self.counters.add(FINAL_RESULTS if resolves else _named(FIRST_RESULTS, came_from))
        if replayed:
            self.counters.add(REPEATS)
        else:
            self._count_outcome(about, found.status, resolves)

    def _count_outcome(self, about: Mapping[str, Any], status: str, resolves: bool) -> None:
        """Count what a result says itself, not what the tables do: they are the audit's other side."""
        outcome = status
        if status == "succeeded":
            outcome, moved = ("refunded", REFUNDED) if about["action"] == "refund" else ("charged", CHARGED)
            self.counters.add(_named(moved, about["currency"]), about["amount_minor"])
        if status not in OPEN:
            if about["origin"] != "external":  # those are counted as FIRST_RESULTS of NO_TOPIC
                self.counters.add(_named(OUTCOMES, outcome))
        elif not resolves:
            self.counters.add(OPENED)

    def answer(
        self, event: Event, payment: PaymentEvent, found: Verdict, *,
        replayed: bool, attempt: int, at_ms: int, gateway_ms: int | None = None,
    ) -> None:  # fmt: skip
        """The one result of an event on `payments`, with its own place as source."""
        self.write(
            payment, payment.user_id, payment.payment_id, found, replayed=replayed, resolves=False,
            attempt=attempt, gateway_ms=gateway_ms, source=source_of(event), at_ms=at_ms,
        )  # fmt: skip

    def keep_first(self, user_id: str, payment_id: str, entry: PaymentEntry) -> None:
        """Store the entry of a payment that had none; list it where it is open or holds a business_ref."""
        key = payment_key(user_id, payment_id)
        self.payments[key] = written(entry)
        if entry["status"] in OPEN:
            self.open_payments[key] = _open_payment(entry)
            self._count_parked(None, entry)
        if entry["business_ref"] is not None and entry["action"] == "charge" and holds(entry):
            self.business_refs[business_key(user_id, entry["business_ref"])] = {"payment_id": payment_id}

    def keep(self, user_id: str, payment_id: str, entry: PaymentEntry) -> None:
        """Store the changed entry of a payment; it is listed among the open ones until it is settled."""
        key = payment_key(user_id, payment_id)
        self.payments[key] = written(entry)
        listed: OpenPayment | None = self.open_payments.get(key)
        if entry["status"] in OPEN:
            self.open_payments[key] = _open_payment(entry)
        elif listed is not None:
            del self.open_payments[key]
        self._count_parked(listed, entry)

    def _count_parked(self, listed: OpenPayment | None, entry: PaymentEntry) -> None:
        """Count a payment that becomes parked, or no longer is; `listed` is its row before."""
        was = listed is not None and listed.get("status") == "parked"
        if was != (entry["status"] == "parked"):
            self.counters.add(PARKED, -1 if was else 1)

    def put(self, user_id: str, payment_id: str, entry: Entry) -> None:
        """Store an entry whose status stays what it was."""
        self.payments[payment_key(user_id, payment_id)] = written(entry)

    async def bury(self, event: Event, bad: BadInput, at_ms: int) -> None:
        """A dead letter with the original bytes; its offset commits in the same transaction."""
        value, masked = await _masked(event.value or b"")
        key, key_masked = mask_card_numbers(event.key or b"")
        self.counters.add(_named(DEAD_LETTERS, event.topic))
        headers = {
            "error": bad.detail, "reason": bad.reason,
            "source": f"{event.topic}/{event.partition}/{event.offset}", "at": str(at_ms), **_names(event),
        }  # fmt: skip
        if masked or key_masked:
            headers["masked"] = "card_number"
        came_from = _replay_of(event)
        if came_from is not None:
            headers[REPLAY_OF] = came_from
        try:
            self.dead_letters.put_into_unit(key or None, value, headers=headers)
        except RecordTooLarge:
            headers["length"] = str(len(value))
            self.dead_letters.put_into_unit(key or None, value[:CUT_BYTES], headers=headers)
        self.buried[bad.reason] += 1
        logger.warning(
            "dead letter %s: %s: %s", headers["source"], bad.reason, bad.detail, extra={"reason": bad.reason}
        )


def source_of(event: Event) -> Any:
    """Where an event stands, as results and entries name it."""
    return {"topic": event.topic, "partition": event.partition, "offset": event.offset}


@lru_cache(maxsize=1000)
def _named(kind: str, rest: str) -> str:
    """The name of a counter; one text for all units that wait to be committed."""
    return kind + rest


def _open_payment(entry: PaymentEntry) -> OpenPayment:
    return {
        "next_try_at": entry["next_try_at"],
        "status": entry["status"],
        "since": entry["first_seen_at"],
        "gateway": entry["gateway"],
        "account": entry["gateway_account"],
        "amount_minor": entry["amount_minor"],
        "currency": entry["currency"],
    }


async def _masked(value: bytes) -> tuple[bytes, bool]:
    """Mask card numbers; a huge record (a megabyte takes seconds) is searched beside the event loop."""
    if len(value) > CUT_BYTES:
        return await asyncio.to_thread(mask_card_numbers, value)
    return mask_card_numbers(value)


def _about(payment: PaymentEvent | PaymentEntry) -> dict[str, Any]:
    """What a result says of its payment, from the event or from the stored entry."""
    if isinstance(payment, PaymentEvent):
        return {
            "action": payment.action, "product": payment.product, "amount_minor": payment.amount_minor,
            "currency": payment.currency, "gateway": payment.gateway, "requested_at": payment.requested_at,
            "business_ref": payment.business_ref, "refund_of": payment.refund_of, "origin": "event",
        }  # fmt: skip
    return {name: payment[name] for name in ABOUT}  # type: ignore[literal-required]


def _replay_of(event: Event) -> str | None:
    """The id of the dead letter whose replay this event is; a foreign header is not passed on."""
    named = next((value for name, value in event.headers if name == REPLAY_OF), None)
    return named.decode() if named is not None and _LETTER_ID.fullmatch(named) else None


def _names(event: Event) -> dict[str, str]:
    """user_id and payment_id of a bad record, where they can be read and are ids."""
    try:
        data = orjson.loads(event.value or b"")
    except orjson.JSONDecodeError:
        return {}
    if not isinstance(data, dict):
        return {}
    wanted = {name: data.get(name) for name in ("user_id", "payment_id")}
    return {
        name: text for name, text in wanted.items()
        if isinstance(text, str) and 0 < len(text) <= 64 and not mask_card_numbers(text.encode())[1]
    }  # fmt: skip
