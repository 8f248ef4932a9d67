"""The exactly-once layer of one worker: its parts, put together."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from .assigned_task import AssignedTask
from .cluster import Cluster
from .committed import CommittedState
from .connectivity import Connectivity
from .dispatcher import Dispatcher
from .errors import SetupRefused
from .facts import TopicFacts
from .health import Health
from .opening import Opening
from .options import Options
from .state import State
from .supervisor import Supervisor
from .watch import Watch

ATTRIBUTE = "exactly_once_layer"  # of the app: the two live as long as each other
NO_CONTACT = {"state": "blocked", "why": "the broker that coordinates the group does not answer"}


class Layer(CommittedState):
    """The exactly-once layer of one worker process; plain Faust classes find it with `Layer.of(app)`.

    What views may read of the tasks is inherited.

    Attributes:
        state: the tasks of this worker, what is known of the group.
        supervisor: opens, closes, reopens tasks.
        dispatcher: hands out what is fetched.
        health: whether Kafka answers.
        watch: says how each task is.
    """

    def __init__(self, app: Any, options: Options) -> None:
        self.app = app
        self.options = options
        self.state = State(options)
        super().__init__(self.state)
        self.cluster = Cluster(options.client_config, options.request_timeout_s, options.environment)
        self.health = Health(self.state)
        self.dispatcher = Dispatcher(self.state)
        self._opening = Opening(app, options, self.cluster, self.state)
        self.supervisor = Supervisor(app, self.state, self._opening)
        self.watch = Watch(self)
        setattr(app, ATTRIBUTE, self)

    @classmethod
    def of(cls, app: Any) -> "Layer":
        """The layer of a Faust app.

        Raises:
            SetupRefused: if `install` was not called for it.
        """
        found = getattr(app, ATTRIBUTE, None)
        if not isinstance(found, Layer):
            raise SetupRefused("call exactly_once.install(app, options) right after making the app")
        return found

    @property
    def assigned_tasks(self) -> dict[int, AssignedTask]:
        """By partition what this worker was assigned."""
        return self.state.assigned_tasks

    slots = assigned_tasks  # its name before 0.1

    @property
    def partitions(self) -> int:
        """How many tasks there are on all workers together."""
        return self.state.partitions

    @partitions.setter
    def partitions(self, count: int) -> None:
        self.state.partitions = count

    @property
    def connectivity(self) -> Connectivity:
        """Since when Kafka as a whole does not answer."""
        return self.health.connectivity

    # -- topics

    async def learn(self, topics: Iterable[str]) -> None:
        """Read ids, partition counts, limits of the topics, once before the first assignment."""
        await self._opening.learn(topics)

    @property
    def facts(self) -> dict[str, TopicFacts]:
        """What is known of each topic."""
        return self._opening.facts

    def record_limit(self, topic: str) -> int:
        """The largest record the topic takes, in bytes, less the overhead of a batch with one record."""
        facts = self.facts.get(topic)
        return (facts.max_message_bytes if facts else self.options.max_record_bytes) - 512

    def check_partitions(self, counts: Mapping[str, int]) -> None:
        """Refuse to go on once a source has another partition count: keys would leave their tables.

        Raises:
            SetupRefused: naming the topic, what it had, what it has, what to do.
        """
        for topic, count in sorted(counts.items()):
            if self.partitions not in (0, count):  # 0: nobody prepared this app
                raise SetupRefused(partitions_changed(topic, self.partitions, count))

    # -- how it is

    def ready(self) -> bool:
        """True once partitions are assigned and recovered, or none is."""
        running = all(assigned.state == "running" for assigned in self.assigned_tasks.values())
        return self.supervisor.first_assignment.is_set() and running and self.state.has_contact()

    def status(self) -> list[dict[str, Any]]:
        """Per task its state for metrics, views, the log (point 13)."""
        assigned = [one for _, one in sorted(self.assigned_tasks.items())]
        found = [one.status() | self.watch.oldest(one) for one in assigned]
        if not (self.state.has_contact() or self.health.coordinator_moves()):
            found = [task | NO_CONTACT if task["state"] == "running" else task for task in found]
        return found

    def worker_status(self) -> dict[str, Any]:
        """What is not of one task (point 13)."""
        return {
            "partitions": self.partitions,
            "group_contact": self.state.has_contact(),
            "running_handlers": self.state.bounds.running,
            "held_bytes": self.state.bounds.held_bytes,
            "rebalances": self.supervisor.rebalances.total,
            "brokers": self.health.brokers.status(self.assigned_tasks),
            "incarnations_opened": sum(counts.opened for counts in self.supervisor.counts.values()),
            "failures": sum((counts.failures for counts in self.supervisor.counts.values()), Counter()),
        }


def partitions_changed(topic: str, before: int, now: int) -> str:
    """What is wrong with another partition count, what to do."""
    return (
        f"topic {topic} has {now} partitions, its tables were made for {before}: its keys would meet others' "
        f"tables. Nothing is handled until it has {before} again: create it anew, send what was not handled"
    )
