"""A simulated world: workers, a broker, a service on one clock; a seed decides everything."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from faust_exactly_once.facts import TP
from faust_exactly_once.router import partition_of
from faust_exactly_once.units import Unit

from .application import OUTPUTS, TABLES, Service, state_key
from .broker import Broker
from .clock import Clock, running
from .disk import Disk, MemoryPath
from .faults import Faults
from .log import Content, StoredOffset, Transaction
from .network import Network
from .plan import FAULTS_S, FED_S, SOURCES, Feed, Plan, make
from .properties import Properties
from .simulated import IN_MEMORY, ON_ROCKSDB
from .traced import traced
from .worker import Worker

DRAIN_S = 120.0  # virtual; a session time-out, a rebalance, a transaction time-out fit in several times
FOLLOWED = 0.2
FAILS = ((), (), (), (), (), (1,), (1, 1), (1, 1, 1))


class World:
    """One run of one seed."""

    def __init__(
        self, seed: int, plan: Plan, *, folder: Path | None = None, keep_trace: bool = False
    ) -> None:
        self.plan = plan
        self.clock = Clock(seed, keep_trace=keep_trace)
        topics = dict.fromkeys([*SOURCES, *TABLES.values()], plan.partitions) | dict.fromkeys(OUTPUTS, 2)
        self.broker = Broker(
            self.clock, topics, plan.partitions, epoch_per_transaction=plan.epoch_per_transaction
        )
        self.network = Network(self.clock, self.broker, in_order=plan.in_order)
        self.service = Service(self.clock.rng)
        self.faults = Faults(self)
        self.properties = Properties(self)
        self.broker.decided = self.properties.decided
        self.workers: list[Worker] = []
        self.environment = IN_MEMORY if folder is None else ON_ROCKSDB

        self._folder = folder
        self._events = 0
        self._seen: set[tuple[str, int, int]] = set()
        self._ways: dict[bytes, list[str]] = {}
        self._rng = Random(f"world {seed}")
        self._foreign = 0
        self._kept_offsets: dict[TP, StoredOffset] = {}
        self._healed = False
        self._stopped = False

    # -- the run

    def run(self) -> None:
        """Everything, until all is quiet or a property is broken."""
        with running(self.clock):
            for _ in range(self.plan.workers):
                self.add_worker()
            for feed in self.plan.feeds:
                self.clock.after(feed.at_s, partial(self._feed, feed))
            for fault in self.plan.faults:
                self.clock.after(fault.at_s, partial(self.faults.strike, fault.kind, fault.arguments))
            self.clock.after(FED_S / 3, self.faults.back_up)
            self.clock.after(FAULTS_S + 1, self._end_of_faults)
            self.clock.run(self._is_over)
            for worker in self.workers:
                self._kill(worker)

    def _end_of_faults(self) -> None:
        self._healed = True
        self.clock.note("world", "heals")
        self.faults.heal()

    def _is_over(self) -> bool:
        """True once everything is quiet, or should be."""
        if not self._healed or (self.clock.now < FAULTS_S + DRAIN_S and not self._is_drained()):
            return False
        self.properties.quiet()
        return True

    def _is_drained(self) -> bool:
        settled = all(worker.is_settled() for worker in self.alive())
        return settled and not self.lag() and self.broker.nothing_open()

    def lag(self) -> list[str]:
        """Sources whose committed offset is not the end of their log."""
        lag = [(tp, self._committed(tp), self.broker.logs[tp].high) for tp in self._sources()]
        return [f"{tp} at {at} of {end}" for tp, at, end in lag if at != end]

    def _committed(self, tp: TP) -> int:
        found = self.broker.group.committed.get(tp)
        return 0 if found is None else found.offset

    def _sources(self) -> list[tuple[str, int]]:
        return [(topic, p) for topic in SOURCES for p in range(self.plan.partitions)]

    # -- workers

    def alive(self) -> list[Worker]:
        """The processes that run."""
        return [worker for worker in self.workers if not worker.dead]

    def add_worker(self) -> None:
        """A worker with a disk of its own."""
        number = len(self.workers)
        folder: Any = MemoryPath(f"disk/w{number}") if self._folder is None else self._folder / f"w{number}"
        self.workers.append(Worker(self, number, Disk(), folder))
        self.workers[-1].start()

    def end_worker(self, worker: Worker, down_s: float) -> None:
        """SIGKILL, then a start on the same disk."""
        if not worker.dead:
            self.clock.note(worker.name, "dies")
            self._kill(worker)
            self.clock.after(down_s, lambda: self._start_again(worker))

    def _kill(self, worker: Worker) -> None:
        worker.kill()
        self.properties.ended(worker)

    def _start_again(self, old: Worker) -> None:
        if not self._stopped and self.workers[old.number] is old:
            new = self.workers[old.number] = Worker(self, old.number, old.disk, old.folder)
            new.start()

    # -- events

    def _feed(self, feed: Feed) -> None:
        transaction = None
        if feed.open_s is not None:
            self._foreign += 1
            transaction = Transaction("outside", self._foreign, 0)
            self.clock.after(feed.open_s, lambda: self.broker.end_foreign(transaction, feed.commits))
        for key in feed.keys:
            self._events += 1
            name = b"e%d" % self._events
            partition = self._rng.randrange(self.plan.partitions) if key is None else self.partition(key)
            fails = self._rng.choice(FAILS)
            self._ways[name] = [self._way() for _ in fails]
            self.broker.append_foreign((feed.topic, partition), [Content(key, name)], transaction)

    def _way(self) -> str:
        ways = ("raise", "leave", "return", "cancel", "decode") if self.plan.plain else ("raise", "cancel")
        return self._rng.choice(ways)

    def partition(self, key: bytes) -> int:
        """The partition of a message key or state key."""
        if key.startswith(b"none-"):
            return int(key[5:])
        return partition_of(key, self.plan.partitions)

    def events(self) -> list[bytes]:
        """The name of every event that was ever committed to a source."""
        logs = (self.broker.logs[tp] for tp in self._sources())
        return [content.value or b"" for log in logs for _, content in log.committed(0, log.high)]

    def is_followed(self, event: Any) -> bool:
        """True if handling an event appends another one."""
        return self.is_followed_name(event.value)

    def is_followed_name(self, name: bytes) -> bool:
        """The same by its name."""
        return name.startswith(b"e") and int(name[1:]) % 5 == 0

    def way_to_fail(self, event: Any) -> str | None:
        """How a handler is to fail now, None if it is not."""
        ways = self._ways.get(event.value)
        return ways.pop() if ways else None

    def fails_to_decode(self, event: Any) -> bool:
        """True if an event cannot be decoded this time."""
        ways = self._ways.get(event.value)
        if ways and ways[-1] == "decode":
            ways.pop()
            return True
        return False

    def handler_begins(self, worker: Worker, unit: Unit, key_is_busy: bool) -> None:
        """Property 7."""
        event = unit.event
        where = (event.topic, event.partition, event.offset)
        self.clock.note(worker.name, "handles", event.value, "of", state_key(event), where)
        if key_is_busy:
            self.clock.fail(f"7: two handlers of {event.key!r} at once on {worker.name}")
        if unit.first_delivery and where in self._seen and not self.broker.group.expelled:
            self.clock.fail(f"7: {event} is called surely first, but a handler has seen it")
        self._seen.add(where)

    # -- the group's offsets expire

    def stop_all(self) -> None:
        """Every worker is gone for long."""
        self._stopped = True
        for worker in self.alive():
            self.end_worker(worker, 0.0)

    def expire_offsets(self, topics: tuple[str, ...]) -> None:
        """The offsets are gone; everybody starts; an operator sees why nothing goes on, puts them back."""
        group = self.broker.group
        if group.pending or not self.broker.up:
            self.clock.after(1.0, lambda: self.expire_offsets(topics))  # with pending offsets none expire
            return
        self._kept_offsets |= group.committed
        group.committed = {tp: at for tp, at in group.committed.items() if tp[0] not in topics}
        self._stopped = False
        self.properties.offsets_expired()
        self._start_everybody()
        self.clock.after(5.0, self._put_offsets_back)

    def _put_offsets_back(self) -> None:
        self.clock.note("operator", "puts the offsets back")
        for tp, kept in self._kept_offsets.items():
            self.broker.group.committed.setdefault(tp, StoredOffset(kept.offset))
        for worker in self.alive():
            self.end_worker(worker, 0.1)

    def _start_everybody(self) -> None:
        for worker in [worker for worker in self.workers if worker.dead]:
            self._start_again(worker)


def play(
    seed: int, *, folder: Path | None = None, keep_trace: bool = False, only: tuple[str, ...] = ()
) -> World:
    """Run a seed."""
    world = World(seed, make(seed, only), folder=folder, keep_trace=keep_trace)
    with traced(with_log=keep_trace):
        world.run()
    return world
