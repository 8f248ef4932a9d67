"""What must hold, whatever the schedule did.

At each commit, as the coordinator decides it:

1. a transaction holds whole units: result, metric, follow-up, table changes, offsets together; the task's
   counters in it are those of all units committed so far
2. the offsets it moves pass exactly the events whose outcome it holds: no unfinished one, none twice
3. offsets never go back
4. outcomes of a key come in the order of its count; those of one source partition in order of offsets
5. after a commit of a generation none of an older one follows

At each write of a database:

6. it is the fold of a prefix of the committed changelog, up to the offset it says: never ahead (a value that
   compaction took away, as a later record replaces it, may be missing until that record is read)

At each start of a handler:

7. handlers of a key never run at once within a task epoch; `first_delivery` is never said of an event that a
   handler has seen, unless a member was expelled while it still ran

At the end of a worker:

8. its task epochs ended by errors that have a name in the layer, or by the disk's

Once everything is quiet:

9. each event has exactly one outcome; the service has worked for it, once
10. offsets are at the ends of the logs, markers included: lag 0; no transaction is open
11. no worker holds a unit, an uncommitted value, a byte; its tables are the fold of the outcomes
"""

import json
from collections import Counter
from typing import TYPE_CHECKING

from faust_exactly_once.counters import RECORD, read
from faust_exactly_once.database import META_KEY
from faust_exactly_once.errors import ExactlyOnceError
from faust_exactly_once.facts import TP

from .application import TABLES
from .log import Content, Transaction, Values

if TYPE_CHECKING:
    from .worker import Worker
    from .world import World

OUTCOMES = ("results", "dead")


def _names(error: type[BaseException]) -> set[str]:
    return {error.__name__}.union(*(_names(one) for one in error.__subclasses__()))


KNOWN_ENDS = _names(ExactlyOnceError) | {"OSError"}


class Properties:
    """Watches a world."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._clock = world.clock
        self.outcomes: Counter[bytes] = Counter()
        self.dead: set[bytes] = set()
        self.counts: dict[bytes, int] = {}
        self.sums: dict[int, Counter[str]] = {}
        self.ends: Counter[str] = Counter()
        self.commits = 0
        self.units = 0
        self._at: dict[TP, int] = {}
        self._generations: dict[int, int] = {}

    def expect(self, expected: object, actual: object, what: str) -> None:
        """Fail unless both are the same."""
        if expected != actual:
            self._clock.fail(f"{what}: expected {expected!r}, found {actual!r}")

    # -- at each commit

    def decided(self, transaction: Transaction) -> None:
        """A transaction's decision."""
        if transaction.decision != "commit":
            return
        self.commits += 1
        sent: dict[str, list[Content]] = {}
        for (topic, _), content in transaction.records:
            sent.setdefault(topic, []).append(content)
        partition = int(transaction.transactional_id.rpartition("-")[2])
        outcomes = [content for topic in OUTCOMES for content in sent.get(topic, ())]
        names = [_name(content) for content in outcomes]
        self.units += len(names)
        self.dead.update(_name(content) for content in sent.get("dead", ()))
        self._check_units(names, sent)
        self._check_offsets({_name(content): _count(content) for content in outcomes}, transaction)
        changed = self._check_counts(outcomes, partition)
        self._check_tables(changed, sent)
        self._check_sums(partition, outcomes, sent)
        self._check_generation(partition, transaction)

    def _check_units(self, names: list[bytes], sent: dict[str, list[Content]]) -> None:
        results = sorted(_name(content) for content in sent.get("results", ()))
        metrics = sorted(content.value or b"" for content in sent.get("metrics", ()))
        self.expect(results, metrics, "1: metrics of the results")
        followed = sorted(b"f" + name for name in results if self._world.is_followed_name(name))
        self.expect(followed, sorted(c.value or b"" for c in sent.get("again", ())), "1: follow-ups")
        self.outcomes.update(names)
        twice = [name for name in names if self.outcomes[name] > 1]
        self.expect([], twice, "2: events with a second outcome")

    def _check_offsets(self, counts: dict[bytes, int], transaction: Transaction) -> None:
        passed: list[bytes] = []
        for tp, (offset, _) in transaction.offsets.items():
            before = self._at.get(tp, 0)
            if offset < before:
                self._clock.fail(f"3: the offset of {tp} goes back from {before} to {offset}")
            events = [content for _, content in self._world.broker.logs[tp].committed(before, offset)]
            passed += [content.value or b"" for content in events]
            by_key = [(str(c.key), counts.get(c.value or b"", -1)) for c in events]
            self.expect(sorted(by_key), sorted(by_key, key=lambda pair: pair[0]), f"4: order of {tp}")
            self._at[tp] = offset
        self.expect(sorted(counts), sorted(passed), "2: outcomes of the events that the offsets pass")

    def _check_counts(self, outcomes: list[Content], partition: int) -> dict[bytes, int]:
        changed: dict[bytes, int] = {}
        for content in sorted(outcomes, key=_count):
            key = b"none-%d" % partition if content.key is None else content.key
            self.expect(self.counts.get(key, 0) + 1, _count(content), f"4: count of {key!r}")
            self.counts[key] = changed[key] = _count(content)
        return changed

    def _check_tables(self, changed: dict[bytes, int], sent: dict[str, list[Content]]) -> None:
        counts = {key: b"%d" % count for key, count in changed.items()}
        odd = {key: b"yes" if count % 2 else None for key, count in changed.items()}
        for table, expected in (("counts", counts), ("odd", odd)):
            written = [(content.key, content.value) for content in sent.get(TABLES[table], ())]
            self.expect(sorted(expected.items(), key=str), sorted(written, key=str), f"1: changes of {table}")

    def _check_sums(self, partition: int, outcomes: list[Content], sent: dict[str, list[Content]]) -> None:
        if not outcomes:
            self.expect([], sent.get(TABLES["sums"], []), "1: sums without a unit")
            return
        sums = self.sums.setdefault(partition, Counter())
        sums["events"] += len(outcomes)
        sums.update({topic: len(sent[topic]) for topic in OUTCOMES if topic in sent})
        written = [(content.key, read(content.value)) for content in sent.get(TABLES["sums"], ())]
        self.expect([(RECORD, dict(sums))], written, f"1: sums of {partition}")

    def _check_generation(self, partition: int, transaction: Transaction) -> None:
        newest = self._generations.get(partition, -1)
        if transaction.offsets:
            if transaction.generation < newest:
                self._clock.fail(f"5: generation {transaction.generation} commits after {newest}")
            self._generations[partition] = transaction.generation

    def offsets_expired(self) -> None:
        """A task without any offset, without content in its changelogs, may begin anew."""
        broker = self._world.broker
        known = {tp[1] for tp in broker.group.committed}
        for tp in [tp for tp in self._at if tp[1] not in known]:
            logs = [broker.logs[changelog, tp[1]] for changelog in TABLES.values()]
            if not any(content for log in logs for content in log.committed(0, log.high)):
                del self._at[tp]

    # -- at each write of a database

    def database(self, worker: str, name: str, values: Values) -> None:
        """What a database holds now."""
        table, _, partition = name.removesuffix(".db").rpartition("-")
        meta = json.loads(values.get(META_KEY, b"{}"))
        if not meta:
            return
        log = self._world.broker.logs[TABLES[table], int(partition)]
        position: int = meta["position"]
        if position > log.high or log.undecided(position):
            self._clock.fail(f"6: {name} of {worker} is ahead: at {position} of {log.stable}..{log.high}")
        may_differ = log.replaced(position) | {META_KEY} if log.compacted else {META_KEY}
        content = {key: value for key, value in values.items() if key not in may_differ}
        expected = {key: value for key, value in log.fold(position).items() if key not in may_differ}
        self.expect(expected, content, f"6: {name} of {worker} at {position}")

    # -- at the end of a worker

    def ended(self, worker: "Worker") -> None:
        """What its task epochs ended with."""
        for counts in worker.layer.supervisor.counts.values():
            self.ends += counts.failures + counts.aborts
        self.expect(set(), set(self.ends) - KNOWN_ENDS, f"8: errors without a name of {worker.name}")

    # -- in the end

    def quiet(self) -> None:
        """Everything is committed."""
        world = self._world
        self.expect({name: 1 for name in world.events()}, dict(self.outcomes), "9: outcomes of the events")
        undone = set(self.outcomes) - self.dead - world.service.done
        self.expect(set(), undone, "9: results without the service's work")
        self.expect([], world.lag(), "10: lag")
        self.expect(True, world.broker.nothing_open(), "10: no transaction is open")
        for worker in world.alive():
            self.expect([], worker.not_at_rest(), f"11: {worker.name} at rest")
            self.expect(True, worker.is_settled(), f"11: {worker.name} is a member, its tasks run")
            for partition in worker.layer.running_partitions():
                self._check_content(worker.name, partition)

    def _check_content(self, name: str, partition: int) -> None:
        layer = next(worker.layer for worker in self._world.alive() if worker.name == name)
        expected = {
            key: count for key, count in self.counts.items() if self._world.partition(key) == partition
        }
        counts = {key.encode(): int(v) for key, v in layer.committed_items(partition, "counts", 1000)}
        self.expect(expected, counts, f"11: counts-{partition} of {name}")
        sums = read(layer.committed_value(partition, "sums", RECORD))
        self.expect(dict(self.sums.get(partition, {})), sums, f"11: sums-{partition} of {name}")
        odd = {key.encode() for key, _ in layer.committed_items(partition, "odd", 1000)}
        self.expect(
            {key for key, count in expected.items() if count % 2}, odd, f"11: odd-{partition} of {name}"
        )


def _name(content: Content) -> bytes:
    return (content.value or b"").partition(b"/")[0]


def _count(content: Content) -> int:
    count = (content.value or b"").partition(b"/")[2]
    return int(count) if count.isdigit() else -1
