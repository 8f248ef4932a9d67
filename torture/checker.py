"""Judges the history of a run: everything that must be true, whatever was done to the system.

Operations: payments are appended in transactions, some twice, some with another amount, some malformed;
workers, broker, gateway, intake, disk, network fail (see `schedule`); then everything is healed and drains.

Properties:

1. an event of a committed intake transaction is on `payments` once; of an aborted one not at all; of one
   whose end is not known all events are, or none
2. the books agree: each event has one result or one dead letter, each open result one final record, each
   result one metric, no payment two charges or two outcomes, amounts and tables are those of the results
3. units are atomic: a result, its metric, its table changes, its offset are in one committed transaction;
   so are a dead letter with its offset
4. offsets of a source partition never go back, never pass the log's end; a committed step takes in only
   what is answered in it; each state of a user is the fold of the results committed with it or before
5. a user's events are answered in their order
6. after a record of a newer producer epoch none of an older one is committed
7. each database is a prefix of its changelog, one holds all of it
8. in the end nothing is left: no lag, no open transaction
9. the workers' memory is bounded
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

import orjson

from streamsocial_billing.audit.books import Books
from streamsocial_billing.audit.checks import Problem, problems_of, unsettled
from streamsocial_billing.domain.statuses import NOT_STORED
from torture.segments import Place, Written, committed_offset

MEMORY_BOUND_BYTES: Final = 700 * 1024 * 1024
End = tuple[int, int | None, str | None]
"""What all records of one transaction have in common."""
Tail = tuple[str, int, int]
"""Topic, partition, what is left of it: offsets of lag, or between last stable offset and end."""


@dataclass(frozen=True, slots=True)
class Sending:
    """One intake transaction: the values of its events; outcome: committed, aborted, unknown."""

    values: tuple[bytes, ...]
    outcome: str


@dataclass(slots=True)
class History:
    """What a run left behind; topics by their names without prefix, changelogs by their tables' names."""

    group: str
    books: Books
    sendings: list[Sending]
    written: dict[str, list[Written]]
    """Transactional records of the log segments: results, metrics, dead letters, changelogs, offsets."""
    appended: Counter[bytes]
    """Committed values on `payments`."""
    log_ends: dict[Place, int]
    """High watermark of each source partition."""
    on_disk: list[Problem] = field(default_factory=list)
    lag: list[Tail] = field(default_factory=list)
    unstable: list[Tail] = field(default_factory=list)
    peak_bytes: dict[str, int] = field(default_factory=dict)
    """Per worker its largest resident set."""

    def committed(self, topic: str) -> list[Written]:
        """The records of a topic whose transaction committed, in the log's order per partition."""
        return [one for one in self.written[topic] if one.outcome == "commit"]


def violations(history: History) -> list[Problem]:
    """Everything that is not as it must be."""
    return [problem for check in PROPERTIES for problem in check(history)]


def intake_is_all_or_nothing(history: History) -> Iterator[Problem]:
    """Property 1; a value that several transactions carry is counted over all of them."""
    least: Counter[bytes] = Counter()
    most: Counter[bytes] = Counter()
    for sending in history.sendings:
        counts = Counter(sending.values)
        if sending.outcome == "committed":
            least += counts
        if sending.outcome != "aborted":
            most += counts
    for value in least.keys() | most.keys() | history.appended.keys():
        if not least[value] <= history.appended[value] <= most[value]:
            detail = f"{history.appended[value]} times on the topic, {least[value]} to {most[value]} sent"
            yield Problem("intake", _short(value), detail)
    for sending in history.sendings:
        alone = [value for value in set(sending.values) if most[value] == 1]
        there = sum(history.appended[value] for value in alone)
        if sending.outcome == "unknown" and there not in (0, len(alone)):
            yield Problem("half an intake transaction", _short(alone[0]), f"{there} of {len(alone)} events")


def books_agree(history: History) -> Iterator[Problem]:
    """Property 2, by the product's own audit; a system that was healed has nothing open, nothing waiting."""
    yield from problems_of(history.books)
    yield from unsettled(history.books)


def units_are_atomic(history: History) -> Iterator[Problem]:
    """Property 3."""
    index = _index(history)
    for result in history.committed("charge-results"):
        told = orjson.loads(result.value or b"")
        for missing in _missing_of(told, result, index):
            yield Problem("torn unit", _about(told), f"no {missing} in the transaction of the result")
    for letter in history.committed("payments-dlq"):
        topic, partition, offset = dict(letter.headers)["source"].decode().rsplit("/", 2)
        if not index.covers(letter, topic, int(partition), int(offset)):
            yield Problem("torn unit", f"dead letter of {topic}-{partition}@{offset}", "no offset with it")


def offsets_only_pass_answered_events(history: History) -> Iterator[Problem]:
    """Property 4; which events a step takes in is asked of `payments` alone: triggers need no answer."""
    answered = {
        (one.end, told["source"]["partition"], told["source"]["offset"])
        for one in history.committed("charge-results")
        if not (told := orjson.loads(one.value or b""))["resolves"]
    } | {(one.end, *_letter_source(one)) for one in history.committed("payments-dlq")}
    events = defaultdict(list)
    for partition, offset in sorted(history.books.sent):
        events[partition].append(offset)
    for place, steps in _steps(history).items():
        about = f"{place[0]}-{place[1]}"
        for before, at in pairwise([0, *steps.offsets]):
            if at < before:
                yield Problem("offset goes back", about, f"from {before} to {at}")
            if at > history.log_ends[place]:
                yield Problem("offset passes the end", about, f"{at} of {history.log_ends[place]}")
        for offset in events[place[1]] if place[0].endswith("payments") else ():
            end = steps.past(offset)
            if end is not None and (end, place[1], offset) not in answered:
                detail = "it is not answered in that transaction"
                yield Problem("offset passes an event", f"{about}@{offset}", detail)


def states_are_folds_at_every_commit(history: History) -> Iterator[Problem]:
    """Property 4; counts and money of each committed state, not only of the last one."""
    folds = _folds(history)
    for change in history.committed("charges"):
        state = orjson.loads(change.value or b"{}")
        counts, money = folds.get((change.key, change.end), (Counter(), Counter()))
        charged = Counter({currency: one["charged_minor"] for currency, one in state["money"].items()})
        if dict(state["counts"]) != counts or +charged != money:
            detail = f"{state['counts']} {dict(charged)}, the results say {dict(counts)} {dict(money)}"
            yield Problem("state is no fold", f"{change.key.decode()}@{change.offset}", detail)


def _folds(history: History) -> dict[tuple[bytes, End], tuple[Counter[str], Counter[str]]]:
    """Per user and transaction with results of that user: counts by status, money by currency, so far."""
    counts: dict[bytes, Counter[str]] = defaultdict(Counter)
    money: dict[bytes, Counter[str]] = defaultdict(Counter)
    folds = {}
    for one in sorted(history.committed("charge-results"), key=lambda one: (one.place, one.offset)):
        told = orjson.loads(one.value or b"")
        counts[one.key]["replayed" if told["replayed"] else told["status"]] += 1
        if told["status"] == "succeeded" and not told["replayed"] and told["action"] == "charge":
            money[one.key][told["currency"]] += told["amount_minor"]
        folds[one.key, one.end] = counts[one.key].copy(), money[one.key].copy()
    return folds


def users_are_answered_in_order(history: History) -> Iterator[Problem]:
    """Property 5."""
    last: dict[tuple[Place, bytes], int] = {}
    for one in sorted(history.committed("charge-results"), key=lambda one: (one.place, one.offset)):
        told = orjson.loads(one.value or b"")
        if told["resolves"]:
            continue
        where, offset = (one.place, one.key), told["source"]["offset"]
        if offset <= last.get(where, -1):
            yield Problem("out of order", _about(told), f"event {offset} after {last[where]}")
        last[where] = max(offset, last.get(where, -1))


def epochs_only_grow(history: History) -> Iterator[Problem]:
    """Property 6."""
    newest: dict[tuple[Place, int], int] = {}
    for topic in sorted(history.written):
        for one in sorted(history.committed(topic), key=lambda one: (one.place, one.offset)):
            where = one.place, one.producer
            if one.epoch < newest.get(where, -1):
                detail = f"epoch {one.epoch} after {newest[where]} at {one.offset}"
                yield Problem("older generation", f"{one.place} of producer {one.producer}", detail)
            newest[where] = max(one.epoch, newest.get(where, -1))


def disks_are_prefixes(history: History) -> Iterator[Problem]:
    """Property 7, by the product's own comparison."""
    yield from history.on_disk


def nothing_is_left(history: History) -> Iterator[Problem]:
    """Property 8."""
    for topic, partition, count in history.lag:
        yield Problem("lag", f"{topic}-{partition}", f"{count} offsets not committed")
    for topic, partition, count in history.unstable:
        yield Problem("open transaction", f"{topic}-{partition}", f"{count} offsets not stable")
    for topic, records in history.written.items():
        for one in records:
            if one.outcome is None:
                yield Problem("open transaction", f"{topic}-{one.place[1]}@{one.offset}", "no marker")


def memory_is_bounded(history: History) -> Iterator[Problem]:
    """Property 9."""
    for worker, peak in history.peak_bytes.items():
        if peak > MEMORY_BOUND_BYTES:
            yield Problem("memory", worker, f"{peak // 2**20} MiB, more than {MEMORY_BOUND_BYTES // 2**20}")


class Steps:
    """What the group committed of one source partition, in the log's order."""

    def __init__(self) -> None:
        self.offsets: list[int] = []
        self.ends: list[End] = []

    def past(self, offset: int) -> End | None:
        """The transaction that committed past an offset; None if none has."""
        place = bisect_right(self.offsets, offset)
        return self.ends[place] if place < len(self.ends) else None


def _steps(history: History) -> dict[Place, Steps]:
    """Per source partition the steps of the group."""
    found: dict[Place, Steps] = defaultdict(Steps)
    for record in sorted(history.committed("offsets"), key=lambda one: (one.place, one.offset)):
        said = committed_offset(record)
        if said is not None and said[0] == history.group:
            steps = found[said[1], said[2]]
            steps.offsets.append(said[3])
            steps.ends.append(record.end)
    return found


@dataclass(slots=True)
class Index:
    """Where to look for the parts of a unit."""

    metrics: set[Any]
    changes: set[Any]
    steps: dict[Place, Steps]
    triggered: set[End]

    def covers(self, record: Written, topic: str, partition: int, offset: int) -> bool:
        """True if the record's own transaction is the one that commits past the offset."""
        taken = self.steps.get((topic, partition))
        return taken is not None and taken.past(offset) == record.end


def _index(history: History) -> Index:
    steps = _steps(history)
    changes = {
        (table, one.key.decode(), one.end)
        for table in ("payments", "charges")
        for one in history.committed(table)
    }
    retries = [taken for place, taken in steps.items() if place[0].endswith("payments-retry")]
    metrics = {_metric_key(one) for one in history.committed("payment-metrics")}
    return Index(metrics, changes, steps, {end for taken in retries for end in taken.ends})


def _missing_of(told: Any, result: Written, index: Index) -> Iterator[str]:
    """What should be in the transaction of a result, but is not."""
    user, source = told["user_id"], told["source"]
    if (told["payment_id"], told["status"], told["replayed"], result.end) not in index.metrics:
        yield "metric"
    if ("charges", user, result.end) not in index.changes:
        yield "state of the user"
    stored = not told["replayed"] and told["reason"] not in NOT_STORED
    if stored and ("payments", f"{user}/{told['payment_id']}", result.end) not in index.changes:
        yield "entry of the payment"
    if told["resolves"]:
        if result.end not in index.triggered:
            yield "offset of the trigger"
    elif not index.covers(result, source["topic"], source["partition"], source["offset"]):
        yield "offset of the event"


def _letter_source(letter: Written) -> tuple[int, int]:
    _, partition, offset = dict(letter.headers)["source"].decode().rsplit("/", 2)
    return int(partition), int(offset)


def _metric_key(one: Written) -> tuple[str, str, bool, Any]:
    told = orjson.loads(one.value or b"")
    return told["payment_id"], told["status"], told["replayed"], one.end


def _about(told: Any) -> str:
    return f"{told['user_id']}/{told['payment_id']} ({told['status']})"


def _short(value: bytes) -> str:
    return value[:80].decode(errors="replace")


PROPERTIES: Final[tuple[Callable[[History], Iterator[Problem]], ...]] = (
    intake_is_all_or_nothing,
    books_agree,
    units_are_atomic,
    offsets_only_pass_answered_events,
    states_are_folds_at_every_commit,
    users_are_answered_in_order,
    epochs_only_grow,
    disks_are_prefixes,
    nothing_is_left,
    memory_is_bounded,
)
