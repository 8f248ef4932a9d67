"""What goes wrong: each kind of fault of a plan as an act on the simulated world."""

from typing import TYPE_CHECKING, Any

from .application import TABLES
from .clients import TOMBSTONES_KEPT_S
from .member import HEARTBEAT_S
from .network import Link, Trick
from .worker import Worker

if TYPE_CHECKING:
    from .world import World


class Faults:
    """Acts on a world; each method is one kind of fault of `plan.KINDS`."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._clock = world.clock
        self._copies: dict[int, Any] = {}

    def strike(self, kind: str, arguments: tuple[Any, ...]) -> None:
        """Let a fault happen."""
        self._clock.note("FAULT", kind, *arguments)
        getattr(self, kind)(*arguments)

    # -- workers

    def kill(self, number: int, down_s: float, disk: str) -> None:
        """SIGKILL; the disk stays as it is, is lost, or an old copy is put back."""
        worker = self._world.workers[number]
        self._world.end_worker(worker, down_s)
        if disk == "lost":
            worker.disk.put_back({})
        elif disk == "old" and number in self._copies:
            worker.disk.put_back(self._copies[number])

    def back_up(self) -> None:
        """Copy every disk."""
        self._copies = {worker.number: worker.disk.copy() for worker in self._world.workers}

    def kill_at(self, number: int, point: str, times: int, down_s: float) -> None:
        """SIGKILL when a point of a commit is reached the nth time."""
        worker = self._world.workers[number]
        worker.trap = (point, times, lambda: self._world.end_worker(worker, down_s))

    def freeze(self, number: int, for_s: float) -> None:
        """SIGSTOP, later SIGCONT."""
        self._freeze(self._world.workers[number], for_s)

    def freeze_at(self, number: int, point: str, times: int, for_s: float) -> None:
        """SIGSTOP when a point of a commit is reached the nth time."""
        worker = self._world.workers[number]
        worker.trap = (point, times, lambda: self._freeze(worker, for_s))

    def _freeze(self, worker: Worker, for_s: float) -> None:
        self._clock.note(worker.name, "freezes for", for_s)
        worker.freeze()
        self._clock.after(for_s, lambda: self._wake(worker))

    def _wake(self, worker: Worker) -> None:
        if worker.frozen:
            self._clock.note(worker.name, "wakes")
            worker.wake()

    def stop(self, number: int, down_s: float) -> None:
        """SIGTERM, a start later."""
        worker = self._world.workers[number]
        if not worker.dead:
            worker.stop(down_s)
            self._clock.after(30.0, lambda: self._world.end_worker(worker, 0.0))

    def add(self) -> None:
        """One worker more."""
        self._world.add_worker()

    def rebalance(self) -> None:
        """A generation without any reason."""
        self._world.broker.group.rebalance()

    # -- network

    def _link(self, number: int) -> Link:
        return self._world.network.link(self._world.workers[number])

    def cut(self, number: int) -> None:
        """A worker's connections break."""
        self._world.network.cut(self._world.workers[number])

    def silent(self, number: int, for_s: float) -> None:
        """Nothing of a worker gets through for a while; then all of it does."""
        self._link(number).silent_until_s = self._clock.now + for_s

    def slow(self, number: int, each_s: float, for_s: float) -> None:
        """A worker's requests take longer for a while."""
        link = self._link(number)
        link.slow_s = each_s
        self._clock.after(for_s, lambda: setattr(link, "slow_s", 0.0))

    def trick(self, number: int, api: str, what: str, seconds: float, times: int) -> None:
        """Something happens to the next requests of a kind."""
        self._link(number).tricks += [Trick(api, what, seconds)] * times

    def slow_open(self, number: int, seconds: float) -> None:
        """A generation in which a worker fences late, hears even later that it is out."""
        tricks = self._link(number).tricks
        tricks.append(Trick("InitProducerId", "held up", seconds))
        self._clock.after(2 * HEARTBEAT_S, lambda: tricks.append(Trick("Heartbeat", "held up", seconds + 4)))
        self.rebalance()

    def stray_end(self, number: int, seconds: float) -> None:
        """The next end of a transaction is sent again; the first request arrives late all the same."""
        self._link(number).tricks.append(Trick("EndTxn", "broken", seconds))

    # -- broker

    def broker(self, down_s: float) -> None:
        """The broker dies, comes back."""
        world = self._world
        if world.broker.up:
            world.broker.stop()
            world.network.cut_all()
            self._clock.after(down_s, self._broker_back)

    def _broker_back(self) -> None:
        if not self._world.broker.up:
            self._clock.note("broker", "is back")
            self._world.broker.start()

    def slow_markers(self, each_s: float, for_s: float) -> None:
        """Markers take longer for a while."""
        broker = self._world.broker
        broker.slow_markers_s = each_s
        self._clock.after(for_s, lambda: setattr(broker, "slow_markers_s", 0.0))

    def refuse(self, event: int, times: int) -> None:
        """A result is refused so many times."""
        self._world.broker.refuses[b"e%d" % event] = times

    def disk(self, number: int, times: int) -> None:
        """A worker's next writes to its databases are refused."""
        self._world.workers[number].disk.refuses = times

    def retention(self) -> None:
        """Whatever is committed is deleted from the sources."""
        broker = self._world.broker
        for tp, committed in broker.group.committed.items():
            broker.logs[tp].start = committed.offset

    def compact(self) -> None:
        """The changelogs are compacted, again when deletions that are met now may go."""
        self._compact()
        self._clock.after(TOMBSTONES_KEPT_S, self._compact)

    def restore(self, number: int) -> None:
        """A disk's old copy is put back when deletions are gone that it does not know of."""
        self.compact()
        self._clock.after(TOMBSTONES_KEPT_S, lambda: self.kill(number, 0.1, "old"))

    def _compact(self) -> None:
        for changelog in TABLES.values():
            for partition in range(self._world.plan.partitions):
                self._world.broker.logs[changelog, partition].compact(self._clock.now, TOMBSTONES_KEPT_S)

    def offsets_expire(self, after_s: float, topics: tuple[str, ...]) -> None:
        """Everything stops for long; offsets of some topics are gone; an operator puts them back."""
        self._world.stop_all()
        self._clock.after(after_s, lambda: self._world.expire_offsets(topics))

    def heal(self) -> None:
        """Nothing goes wrong any more."""
        world = self._world
        world.broker.refuses.clear()
        world.broker.slow_markers_s = 0.0
        self._broker_back()
        for link in world.network.links.values():
            link.tricks.clear()
            link.slow_s = link.silent_until_s = 0.0
        for worker in world.workers:
            worker.disk.refuses, worker.trap = 0, None
            self._wake(worker)
