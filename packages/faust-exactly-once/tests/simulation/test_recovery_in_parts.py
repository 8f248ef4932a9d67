"""Recoveries that end half-way, against a changelog that is compacted meanwhile."""

from collections.abc import Callable
from typing import Any

from faust_exactly_once.database import PartitionStore
from faust_exactly_once.facts import LogEnds, TopicFacts
from faust_exactly_once.options import Options
from faust_exactly_once.recovery import Recovery, plan

from .clock import running
from .disk import Disk, MemoryPath
from .log import Content, Log
from .plan import Plan
from .simulated import IN_MEMORY
from .traced import traced
from .worker import Worker
from .world import World

KEPT_S = 3.0
CHANGELOG = ("odd-changelog", 0)
NOTHING = Plan(
    workers=0, partitions=1, plain=False, epoch_per_transaction=True, in_order=False, options={}, feeds=(),
    faults=(),
)  # fmt: skip


class Scene:
    """A database, its changelog, nothing else; all of it in one thread of a simulated worker."""

    def __init__(self, world: World, worker: Worker) -> None:
        self.world = world
        self.log: Log = world.broker.logs[CHANGELOG]
        self.sleep: Callable[[float], None] = lambda seconds: world.clock.fiber.sleep(seconds)
        self.store = PartitionStore(worker.layer._opening._path("odd", 0), IN_MEMORY)  # noqa: SLF001
        self.store.open()

    def append(self, *changes: tuple[bytes, bytes | None]) -> None:
        """Committed changes."""
        self.log.append_foreign([Content(key, value) for key, value in changes], None, self.world.clock.now)

    def recover(self, *, chunks: int) -> None:
        """Top up, at most so many fetches."""
        left = iter([False] * chunks)
        facts = TopicFacts("id", 1, {"delete.retention.ms": str(int(KEPT_S * 1000))})
        ends = LogEnds(self.log.start, self.log.stable, self.log.high)
        item = plan("odd", CHANGELOG, self.store, "cluster", facts, ends)
        options = Options(client_config={}, environment=IN_MEMORY)
        Recovery(options, lambda text: None).run([item], lambda: next(left, True))

    def content(self) -> dict[bytes, bytes]:
        """What the database holds."""
        return dict(self.store.items())


def play(seed: int, act: Callable[[Scene], Any]) -> None:
    """Run a scene."""
    world = World(seed, NOTHING)
    ended: list[bool] = []
    with running(world.clock), traced(with_log=False):
        folder: Any = MemoryPath("disk")
        worker = Worker(world, 0, Disk(), folder)

        def scene() -> None:
            act(Scene(world, worker))
            ended.append(True)

        worker.start_thread(scene)
        world.clock.run(lambda: bool(ended))
        worker.kill()
    assert [] == world.clock.failures


def test_a_database_topped_up_in_part_is_as_old_as_its_oldest_value() -> None:
    """A deletion that was compacted away between two halves of a recovery is not missed."""

    def act(scene: Scene) -> None:
        scene.append((b"a", b"yes"))
        scene.recover(chunks=9)
        scene.sleep(1)
        scene.append((b"b", b"yes"), (b"c", b"yes"), (b"d", b"yes"), (b"a", None), (b"e", b"yes"))
        scene.log.compact(scene.world.clock.now, KEPT_S)
        scene.sleep(1.5)
        scene.recover(chunks=1)  # as a rebalance ends it
        scene.sleep(2)
        scene.log.compact(scene.world.clock.now, KEPT_S)
        scene.recover(chunks=99)
        assert scene.log.fold(scene.log.high) == scene.content()

    for seed in range(10):  # which decides how much one fetch brings
        play(seed, act)
