"""Reads our own leg: results, payments that only the gateway told of, events that are not handled yet.

Everything is read as a read_committed reader sees it, up to offsets that are taken once (`Cut`): first those
of the sources with what the workers have committed, then those of the results. A result commits together
with its event's offset, so every event that counts as handled has its result before the cut.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import msgspec
from confluent_kafka import Message

from faust_exactly_once import partition_of
from streamsocial_billing.domain.foreign_fields import BadInput
from streamsocial_billing.domain.gateway_events import GatewayEvent
from streamsocial_billing.domain.payment_identity import gateway_key_of
from streamsocial_billing.domain.results import ChargeResult, NotARecord
from streamsocial_billing.domain.statuses import NOT_STORED, OPEN
from streamsocial_billing.domain.times import now_ms
from streamsocial_billing.gateways.errors import InputRefused
from streamsocial_billing.kafka.committed import CommittedLog, Place
from streamsocial_billing.reconciliation.store import ADD_A, insert_many
from streamsocial_billing.settings import BREAKS, GATEWAY_EVENTS, PAYMENTS, RESULTS, Settings
from tables.open_payments import OpenPayment, read_open_payment
from tables.payments import entry_of, is_observed
from tables.rows import InvalidRow

DISPUTE: Final = "dispute"
DISPUTE_WON: Final = "dispute_won"
REFUND_FAILED: Final = "refund_failed"
"""Reasons of external results (payments/reported_by_gateway.py): money that a dispute took, that came back;
money of a refund that failed after it had succeeded."""
CLOCK_SKEW_MS: Final = 2000
"""How far a gateway's clock, in whole seconds at Stripe, may lie before ours."""
Row = TypeVar("Row")
Tick = Callable[[int], None]
Span = dict[Place, tuple[int, int]]


@dataclass(slots=True)
class Cut:
    """Up to where our leg was read.

    spans     by full topic name and partition: first offset, the one that is not read any more
    at_ms     when it was begun, by our clock: only to tell what the gateway did later
    oldest    by partition of `payments`: the oldest requested_at of its unhandled events, ms since the epoch
    newest_ms the newest append time of what was read
    """

    spans: Span
    partitions: int
    at_ms: int
    oldest: dict[int, int] = field(default_factory=dict)
    unhandled: int = 0
    newest_ms: int = 0

    def told_by(self, user_id: str | None) -> int:
        """A movement of this user that is older must have its result in our books, if it is ours."""
        latest = self.at_ms - CLOCK_SKEW_MS
        if user_id is None:
            return min([latest, *self.oldest.values()])
        return min(latest, self.oldest.get(partition_of(user_id.encode(), self.partitions), latest))


class OurBooks:
    """The reader of our leg."""

    def __init__(self, settings: Settings, tick: Tick = lambda _: None) -> None:
        self._settings = settings
        self._log = CommittedLog(settings)
        self._tick = tick
        self._read = 0
        self._kept = {"observed": 0, "parked": 0, "waiting": 0}
        self._payments = settings.topic(PAYMENTS)
        self._told = settings.topic(GATEWAY_EVENTS)
        self._results = settings.topic(RESULTS)
        self._entries = settings.changelog("payments")
        self._open = settings.changelog("open_payments")

    def take_cut(self) -> Cut:
        """Take the offsets; nothing that comes later is read. Raises KafkaProblem.

        The time is taken first: what the gateway did before it was ordered by an event that is in the cut.
        """
        at_ms = now_ms()
        self._log.partitions([self._settings.topic(BREAKS)])  # missing: said now, not after all the work
        sources = self._ends([self._payments, self._told])
        behind = self._log.lag(self._settings.app_id, sources)
        left = {place: (end - behind.get(place, 0), end) for place, (_, end) in sources.items()}
        books = self._ends([self._results, self._entries, self._open])
        partitions = sum(1 for topic, _ in sources if topic == self._payments)
        return Cut(left | books, partitions, at_ms)

    def total(self, cut: Cut) -> int:
        """Offsets of the books up to the cut, for a progress bar."""
        return sum(end - start for start, end in cut.spans.values())

    def load(self, db: sqlite3.Connection, cut: Cut) -> None:
        """Read everything up to the cut into the store. Raises KafkaProblem, InputRefused."""
        insert_many(db, ADD_A, self._rows(db, cut))
        fold_results(db)

    def _ends(self, topics: Iterable[str]) -> Span:
        counts = self._log.partitions(topics)
        return self._log.ends([(topic, part) for topic, count in counts.items() for part in range(count)])

    def _rows(self, db: sqlite3.Connection, cut: Cut) -> Iterator[tuple[Any, ...]]:
        others: dict[str, Callable[[sqlite3.Connection, Cut, Message], None]] = {
            self._payments: _unhandled, self._told: _told,
            self._entries: self._observed, self._open: self._parked,
        }  # fmt: skip
        for message in self._log.read(cut.spans):
            self._read += 1
            if self._read % 10_000 == 0:
                self._tick(self._read)
            cut.newest_ms = max(cut.newest_ms, message.timestamp()[1])
            topic = message.topic() or ""
            if topic != self._results:
                others[topic](db, cut, message)
            elif (row := result_row(message.value(), _place(message))) is not None:
                yield row

    def _observed(self, db: sqlite3.Connection, _: Cut, message: Message) -> None:
        """The changelog of `payments`: only entries that the gateway told of and no event has adopted."""
        key, value = (message.key() or b"").decode(errors="replace"), message.value()
        entry = _row(entry_of, message) if value is not None and b'"observed"' in value else None
        if is_observed(entry):
            user, payment = key.split("/", 1)
            row = (
                key, user, payment, entry["gateway"], entry["gateway_ref"], entry["action"], entry["seen"],
                entry["amount_minor"], entry["currency"], entry["observed_at"],
            )  # fmt: skip
            db.execute("INSERT OR REPLACE INTO observed VALUES (?,?,?,?,?,?,?,?,?,?)", row)
            self._kept["observed"] += 1
        elif self._kept["observed"]:  # else there is nothing to take out: nearly every record of a million
            db.execute("DELETE FROM observed WHERE payment = ?", (key,))

    def _parked(self, db: sqlite3.Connection, _: Cut, message: Message) -> None:
        """The changelog of `open_payments`: going from unknown to parked, or to wait, writes no result."""
        key, value = (message.key() or b"").decode(errors="replace"), message.value()
        row: OpenPayment = {"next_try_at": None} if value is None else _row(read_open_payment, message)
        for table, here in (("parked", row.get("status") == "parked"), ("waiting", "look_at" in row)):
            if here:
                db.execute(f"INSERT OR IGNORE INTO {table} VALUES (?)", (key,))  # noqa: S608 - constants
                self._kept[table] += 1
            elif self._kept[table]:
                db.execute(f"DELETE FROM {table} WHERE payment = ?", (key,))  # noqa: S608 - constants


def result_row(value: bytes | None, place: str) -> tuple[Any, ...] | None:
    """A row of `a` from a charge result; None where it says nothing new of its payment.

    Raises InputRefused for a record that is not ours: a book that cannot be read proves nothing.
    """
    try:
        one = ChargeResult.from_bytes(value)
    except NotARecord:
        raise InputRefused(f"{place}: not a charge result: who writes to this topic?") from None
    if one.replayed or (one.status == "rejected" and one.reason in NOT_STORED):
        return None
    user, payment, action = one.user_id, one.payment_id, one.action
    external = one.origin == "external"
    if external and one.reason in (DISPUTE, DISPUTE_WON, REFUND_FAILED):
        action = one.reason  # booked as a refund, and as a charge when it came back
    return (
        f"{user}/{payment}", user, payment, action, one.gateway, one.status, one.reason,
        one.amount_minor, one.currency, one.gateway_ref,
        None if external else gateway_key_of(user, action, payment),
        one.processed_at, int(one.status == "succeeded"),
        "external" if external else "event", one.refund_of, one.intent_charge or None,
    )  # fmt: skip


# a dispute that moved money several times has a result for each: one row, with what it took in all
_ONE_DISPUTE: Final = """
CREATE TEMP TABLE taken AS
SELECT min(id) AS id, gateway, gateway_ref, sum(amount) AS amount FROM a
WHERE action = 'dispute' AND moved > 0 GROUP BY gateway, gateway_ref HAVING count(*) > 1"""
_SUM_DISPUTES: Final = """
UPDATE a SET amount = t.amount FROM taken t WHERE a.id = t.id"""
_DROP_DISPUTES: Final = """
DELETE FROM a WHERE action = 'dispute' AND id NOT IN (SELECT id FROM taken)
    AND (gateway, gateway_ref) IN (SELECT gateway, gateway_ref FROM taken)"""
_CAME_BACK: Final = """
CREATE TEMP TABLE back AS
SELECT gateway, gateway_ref, CASE action WHEN 'dispute_won' THEN 'dispute' ELSE 'refund' END AS of,
    sum(amount) AS amount
FROM a WHERE action IN ('dispute_won', 'refund_failed') GROUP BY 1, 2, 3"""
_RETURNED: Final = """
UPDATE a SET returned = t.amount,
    status = CASE WHEN t.amount >= a.amount THEN 'declined' ELSE a.status END,
    moved = CASE WHEN t.amount >= a.amount THEN 0 ELSE a.moved END
FROM back t WHERE a.action = t.of AND a.gateway = t.gateway AND a.gateway_ref = t.gateway_ref"""


def fold_results(db: sqlite3.Connection) -> None:
    """Make one row of a payment's results: the last word counts, `moved` how often money moved by them."""
    db.execute("CREATE INDEX a_fold ON a (fold)")
    several = "SELECT fold FROM a GROUP BY fold HAVING count(*) > 1 ORDER BY fold"
    for (fold,) in db.execute(several).fetchall():
        rows = db.execute("SELECT id, status, moved FROM a WHERE fold = ? ORDER BY id", (fold,)).fetchall()
        kept = rows[last_word([status for _, status, _ in rows])][0]
        db.execute("UPDATE a SET moved = ? WHERE id = ?", (sum(moved for _, _, moved in rows), kept))
        db.execute("DELETE FROM a WHERE fold = ? AND id <> ?", (fold, kept))
    for statement in (
        _ONE_DISPUTE, _SUM_DISPUTES, _DROP_DISPUTES, "DROP TABLE taken", _CAME_BACK, _RETURNED,
        "DROP TABLE back", "DELETE FROM a WHERE action IN ('dispute_won', 'refund_failed')",
    ):  # fmt: skip
        db.execute(statement)


def last_word(results: list[str]) -> int:
    """Which of a payment's results, their statuses oldest first, says how it ended.

    A final one is never taken back by an open one; among final ones the first that moved money counts, so
    that money is never left out.
    """
    moved = [place for place, status in enumerate(results) if status == "succeeded"]
    final = [place for place, status in enumerate(results) if status not in OPEN]
    return (moved or final or [len(results) - 1])[0]


def _unhandled(_: sqlite3.Connection, cut: Cut, message: Message) -> None:
    """An event that no worker has committed: what it will have charged is not missing."""
    cut.unhandled += 1
    try:
        at = _WHEN.decode(message.value() or b"").requested_at
    except msgspec.DecodeError:
        return  # it becomes a dead letter and charges nothing
    part = message.partition() or 0
    cut.oldest[part] = min(at, cut.oldest.get(part, at))


def _told(db: sqlite3.Connection, _: Cut, message: Message) -> None:
    """A webhook that is not handled yet; an earlier repair is no excuse for the break it repairs."""
    try:
        event = GatewayEvent.from_bytes(message.value(), key=message.key())
    except BadInput:
        return  # no agent will take it either
    if event.via != "reconciliation":
        db.execute("INSERT OR IGNORE INTO told VALUES (?, ?)", (event.gateway, event.gateway_ref))


class _When(msgspec.Struct):
    """Of an event what is asked here, whatever else a newer release has in it."""

    requested_at: int


_WHEN: Final = msgspec.json.Decoder(_When)


def _row(read: Callable[[bytes], Row], message: Message) -> Row:
    try:
        return read(message.value() or b"")
    except InvalidRow as error:
        raise InputRefused(f"{_place(message)}: {error}") from None


def _place(message: Message) -> str:
    return f"{message.topic()}-{message.partition()} offset {message.offset()}"
