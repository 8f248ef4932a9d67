"""One simulated worker: the real layer with everything of it, on a simulated process, disk, network."""

from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from rocksdict import DbClosedError

from faust_exactly_once.errors import ExactlyOnceError, KafkaUnavailable
from faust_exactly_once.layer import Layer
from faust_exactly_once.options import Options

from .application import OUTPUTS, TABLES, Application
from .disk import Disk
from .member import GROUP, Member
from .plan import SOURCES
from .process import Process

if TYPE_CHECKING:
    from .world import World

CONFIRM_S = 0.3  # the simulation's operator is quick
PAUSE = 0.1  # how often a point of a commit is a pause too


class App:
    """What the layer needs of a Faust app."""

    def __init__(self, worker: "Worker") -> None:
        self.conf = SimpleNamespace(id=GROUP)
        self.tables = {
            name: SimpleNamespace(
                changelog_topic_name=changelog, data=Data(worker.folder, name), in_memory=name == "odd"
            )
            for name, changelog in TABLES.items()
        }
        self._worker = worker

    async def crash(self, exc: BaseException) -> None:
        """The worker stops because of an error."""
        self._worker.crashes(exc)


class Data:
    """Names the databases of a table."""

    def __init__(self, folder: Path, table: str) -> None:
        self._folder, self._table = folder, table

    def path(self, partition: int) -> Path:
        """The database of a partition."""
        return self._folder / f"{self._table}-{partition}.db"


class Worker(Process):
    """A process that runs the layer."""

    def __init__(self, world: "World", number: int, disk: Disk, folder: Path) -> None:
        super().__init__(world.clock, f"w{number}")
        self.world = world
        self.number = number
        self.disk = disk
        self.folder = folder
        self.network = world.network
        self.databases: list[Any] = []
        self.trap: tuple[str, int, Any] | None = None
        self._app = App(self)
        self.application = Application(self)
        options = Options(
            client_config={}, environment=world.environment, confirm_s=CONFIRM_S, probe=self._probe,
            on_handler_failure=self.application.dead_letter, **world.plan.options,
        )  # fmt: skip
        self.layer = Layer(self._app, options)
        self.layer.partitions = world.plan.partitions
        self.member = Member(self)
        self.layer.state.member = self.member

    def start(self) -> None:
        """Let it begin."""
        self.clock.note(self.name, "starts")
        self.loop.call_soon(lambda: self.loop.create_task(self._run()))

    def stop(self, down_s: float) -> None:
        """SIGTERM."""
        self.clock.note(self.name, "is to stop")
        self.loop.call_soon(lambda: self.loop.create_task(self._stop(down_s)))

    async def _run(self) -> None:
        try:
            await self.layer.learn([*SOURCES, *OUTPUTS, *TABLES.values()])
        except KafkaUnavailable as exc:
            self.crashes(exc)
            return
        self.application.start_agents()
        await self.member.run()

    async def _stop(self, down_s: float) -> None:
        await self.layer.supervisor.stop()
        await self.member.leave()
        self.clock.after(0, lambda: self.world.end_worker(self, down_s))

    def kill(self) -> None:
        """SIGKILL."""
        super().kill()
        for database in self.databases:
            with suppress(DbClosedError):
                database.close()

    def crashes(self, exc: BaseException) -> None:
        """The application gives up; whoever watches it starts it again."""
        self.clock.note(self.name, "gives up:", repr(exc))
        if not isinstance(exc, (ExactlyOnceError, OSError)):
            self.clock.fail(f"{self.name} gives up because of {exc!r}")
        self.clock.after(0, lambda: self.world.end_worker(self, 1.0))

    def _probe(self, point: str) -> None:
        """A named point of a commit: a trap may be set there, others may come first."""
        self.clock.note(self.name, point)
        if self.trap is not None and self.trap[0] == point:
            _, more, act = self.trap
            self.trap = (point, more - 1, act) if more > 1 else None
            if more == 1:
                self.clock.after(0, act)
                self.clock.fiber.sleep(0.001)
        elif self.dead or self.clock.rng.random() < PAUSE:
            self.clock.fiber.sleep(self.clock.rng.random() * 0.01)

    def may_hang(self) -> bool:
        """See librdkafka's issue 5456 in `ConfluentProducer.add_offsets`."""
        return not self.network.broker.up

    def written(self, database: str, values: dict[bytes, bytes]) -> None:
        """A database has changed."""
        self.world.properties.database(self.name, database, values)

    def is_settled(self) -> bool:
        """True if it is a member, its tasks run, nothing waits in it."""
        running = all(assigned.state == "running" for assigned in self.layer.assigned_tasks.values())
        return self.member.is_settled() and running and not self.not_at_rest()

    def not_at_rest(self) -> list[str]:
        """What it holds although everything is committed."""
        status = self.layer.worker_status()
        found = [f"{status[what]} {what}" for what in ("running_handlers", "held_bytes") if status[what]]
        for partition, assigned in self.layer.assigned_tasks.items():
            task = assigned.task
            if task is not None and (any(task.uncommitted.values()) or task.waiting_units()):
                found.append(f"task {partition}: {task.uncommitted}, {task.waiting_units()} units")
        return found
