"""The books: what an audit keeps of each record, small tuples only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson

from streamsocial_billing.domain.results import ChargeResult, NotARecord, PaymentMetric
from streamsocial_billing.domain.statuses import OPEN
from tables.charges import read_charge_state
from tables.payments import entry_of
from tables.rows import InvalidRow

Source = tuple[int, int]
"""Partition, offset of an event on `payments`."""


class Sent(NamedTuple):
    """An event on `payments`; `payment` is None where the record cannot be read."""

    payment: str | None
    amount_minor: int
    currency: str


class Result(NamedTuple):
    """A record on `charge-results`; `payment` = user_id/payment_id, amounts in minor units."""

    payment: str
    status: str
    reason: str | None
    replayed: bool
    resolves: bool
    action: str
    amount_minor: int
    currency: str
    gateway_ref: str | None
    source: Source | None
    refund_of: str | None = None
    external: bool = False
    """The gateway made it, no event did."""
    gateway: str = "simulated"

    @property
    def moved(self) -> bool:
        """True if this result says that money moved."""
        return self.status == "succeeded" and not self.replayed

    @property
    def opens(self) -> bool:
        """True if a final record must follow; a replay of an open payment does not count."""
        return self.status in OPEN and not self.replayed and not self.resolves


class LedgerCharge(NamedTuple):
    """A charge as the gateway tells it; `payment` = user_id/payment_id of its metadata."""

    id: str
    payment: str
    ref: str | None
    status: str
    amount_minor: int
    currency: str


class LedgerRefund(NamedTuple):
    """A refund as the gateway tells it; `payment` = user_id/payment_id of its metadata, `charge` an id."""

    id: str
    payment: str
    ref: str | None
    charge: str
    status: str
    amount_minor: int
    currency: str


class Entry(NamedTuple):
    """The last value of a payment in the changelog of the table `payments`."""

    status: str
    amount_minor: int
    currency: str
    gateway_ref: str | None
    refunded_minor: int = 0
    external: bool = False
    gateway: str = "simulated"
    reason: str | None = None
    last_error: str | None = None
    since: int | None = None
    """When its first event was appended, ms since the epoch."""


@dataclass(slots=True)
class Books:
    """Everything that the checks compare; filled by readers, changed by nobody else."""

    sent: dict[Source, Sent] = field(default_factory=dict)
    log_start: dict[int, int] = field(default_factory=dict)
    """First offset of each partition of `payments`: older events are gone by retention."""
    handled_to: dict[int, int] = field(default_factory=dict)
    """The workers' committed offset of each partition of `payments`, asked before anything was read: an event
    from there on may still wait for its answer. Without it all events are taken for handled."""
    results: list[Result] = field(default_factory=list)
    dead: Counter[Source] = field(default_factory=Counter)
    dead_elsewhere: int = 0
    """Dead letters of other topics, or without a readable source."""
    metrics: Counter[tuple[str, str, bool]] = field(default_factory=Counter)
    """By payment_id, status, replayed; without `requested`."""
    requested: int = 0
    entries: dict[str, Entry] = field(default_factory=dict)
    states: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    ledger: list[LedgerCharge] = field(default_factory=list)
    refunds: list[LedgerRefund] = field(default_factory=list)
    """What the gateway gave back."""
    listed: frozenset[str] = frozenset({"simulated"})
    """The gateways whose charges and refunds are all in `ledger` and `refunds`."""
    unreadable: list[str] = field(default_factory=list)
    """Records of our own topics that are not what they should be, by place."""
    strangers: list[str] = field(default_factory=list)
    """Results whose source lies on another topic than `payments`, by place."""

    def open_payments(self) -> set[str]:
        """Payments with an open result that nothing has settled."""
        settled = {one.payment for one in self.results if one.resolves}
        return {one.payment for one in self.results if one.opens and one.payment not in settled}

    def waiting(self) -> dict[Source, Sent]:
        """Events that no worker has handled yet: no answer, nor has anybody committed past them."""
        late = {
            source: sent for source, sent in self.sent.items()
            if source[1] >= self.handled_to.get(source[0], source[1] + 1) and source not in self.dead
        }  # fmt: skip
        answered = {one.source for one in self.results} if late else set()
        return {source: sent for source, sent in late.items() if source not in answered}

    def pending(self) -> set[str]:
        """Payments whose money may have moved already, though no final result says so."""
        waiting = {sent.payment for sent in self.waiting().values() if sent.payment is not None}
        return waiting | self.open_payments()


def add_event(books: Books, source: Source, value: bytes | None) -> None:
    """Keep an event, whatever its bytes are: the audit asks for an answer, not for sense."""
    data = _mapping(value)
    user, payment = data.get("user_id"), data.get("payment_id")
    readable = isinstance(user, str) and isinstance(payment, str)
    amount = data.get("amount_minor")
    books.sent[source] = Sent(
        f"{user}/{payment}" if readable else None,
        amount if isinstance(amount, int) else 0,
        str(data.get("currency")),
    )


def add_result(books: Books, topic: str, place: str, value: bytes | None) -> None:
    """Keep a charge result; `topic` is the full name of `payments`."""
    try:
        one = ChargeResult.from_bytes(value)
    except NotARecord:
        books.unreadable.append(place)
        return
    at = one.source if one.source is not None and one.source["topic"] == topic else None
    if at is None and one.origin == "event":
        books.strangers.append(place)
    books.results.append(
        Result(
            payment=f"{one.user_id}/{one.payment_id}", status=one.status, reason=one.reason,
            replayed=one.replayed, resolves=one.resolves, action=one.action, amount_minor=one.amount_minor,
            currency=one.currency, gateway_ref=one.gateway_ref,
            source=None if at is None else (at["partition"], at["offset"]), refund_of=one.refund_of,
            external=one.origin == "external", gateway=one.gateway,
        )  # fmt: skip
    )


def add_metric(books: Books, place: str, value: bytes | None) -> None:
    """Count a metric."""
    try:
        one = PaymentMetric.from_bytes(value)
    except NotARecord:
        books.unreadable.append(place)
        return
    if one.status == "requested":
        books.requested += 1
    else:
        books.metrics[one.payment_id, one.status, one.replayed] += 1


def add_dead_letter(books: Books, topic: str, headers: Mapping[str, bytes]) -> None:
    """Count a dead letter by its header `source` (topic/partition/offset)."""
    parts = headers.get("source", b"").decode(errors="replace").rsplit("/", 2)
    if len(parts) == 3 and parts[0] == topic and parts[1].isdigit() and parts[2].isdigit():
        books.dead[int(parts[1]), int(parts[2])] += 1
    else:
        books.dead_elsewhere += 1


def fold_entry(books: Books, place: str, key: bytes | None, value: bytes | None) -> None:
    """Fold one record of the changelog of `payments`: the last value of a key counts, none deletes it."""
    payment = changelog_key(key)
    if value is None:
        books.entries.pop(payment, None)
        return
    try:
        entry: Mapping[str, Any] = entry_of(value)
    except InvalidRow:
        books.unreadable.append(place)
        return
    books.entries[payment] = Entry(
        status=entry["status"], amount_minor=entry["amount_minor"], currency=entry["currency"],
        gateway_ref=entry["gateway_ref"], refunded_minor=entry.get("refunded_minor", 0),
        external=entry.get("origin") == "external", gateway=entry["gateway"], reason=entry["reason"],
        last_error=entry.get("last_error"), since=entry.get("first_seen_at"),
    )  # fmt: skip


def fold_state(books: Books, place: str, key: bytes | None, value: bytes | None) -> None:
    """Fold one record of the changelog of `charges`."""
    user = changelog_key(key)
    if value is None:
        books.states.pop(user, None)
        return
    try:
        books.states[user] = read_charge_state(value)
    except InvalidRow:
        books.unreadable.append(place)


def ledger_charge(data: Mapping[str, Any]) -> LedgerCharge:
    """A charge of the gateway's list; raises KeyError or TypeError where it is none.

    One that an intent made goes by the intent, as its result does.
    """
    metadata = data["metadata"] or {}
    return LedgerCharge(
        id=data.get("payment_intent") or data["id"],
        payment=f"{metadata.get('user_id')}/{metadata.get('payment_id')}",
        ref=metadata.get("ref"), status=data["status"], amount_minor=data["amount"],
        currency=data["currency"],
    )  # fmt: skip


def ledger_refund(data: Mapping[str, Any]) -> LedgerRefund:
    """A refund of the gateway's list; raises KeyError or TypeError where it is none."""
    metadata = data["metadata"] or {}
    return LedgerRefund(
        id=data["id"], payment=f"{metadata.get('user_id')}/{metadata.get('payment_id')}",
        ref=metadata.get("ref"), charge=data.get("payment_intent") or data["charge"],
        status=data["status"], amount_minor=data["amount"], currency=data["currency"],
    )  # fmt: skip


def changelog_key(key: bytes | None) -> str:
    """A table key as text: Faust writes it as JSON, so in quotes, or raw."""
    text = (key or b"").decode(errors="replace")
    return str(orjson.loads(text)) if text.startswith('"') and text.endswith('"') and len(text) > 1 else text


def _mapping(value: bytes | None) -> dict[str, Any]:
    try:
        data = orjson.loads(value or b"")
    except orjson.JSONDecodeError:
        return {}
    return data if isinstance(data, dict) else {}
