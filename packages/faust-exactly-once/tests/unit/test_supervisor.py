"""What an operator is told of a task while it ends and begins again."""

from collections.abc import Iterator
from typing import Any

import pytest
from layer_kit.virtual_time import VirtualTimeLoop

from faust_exactly_once import KafkaUnavailable, Options
from faust_exactly_once.assigned_task import AssignedTask
from faust_exactly_once.membership import Membership
from faust_exactly_once.state import State
from faust_exactly_once.supervisor import Supervisor

BROKER_GONE = "the broker does not answer"
MEMBERSHIP = Membership("group", 1, "member")


class EndingTask:
    """A task that notes what its status says while it is closed."""

    def __init__(self, assigned: AssignedTask, seen: list[tuple[str, str]]) -> None:
        self._assigned, self._seen = assigned, seen

    async def close(self, *, grace_s: float, last_commit_s: float) -> None:
        """As long as this takes, the status is read."""
        self._seen.append((self._assigned.state, self._assigned.why))

    async def ended(self) -> None:
        """At once."""


class OpensThen:
    """Opens a task that fails at once, with the broker's absence; once."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    async def open(self, assigned: AssignedTask, member: object) -> None:
        """The task is there before its opening fails, as it is when it fails later."""
        task: Any = EndingTask(assigned, self.seen)
        assigned.task = task
        raise KafkaUnavailable(BROKER_GONE)


@pytest.fixture
def loop() -> Iterator[VirtualTimeLoop]:
    """A loop of the test's own time."""
    made = VirtualTimeLoop()
    yield made
    made.end()


def test_a_task_that_closes_says_why(loop: VirtualTimeLoop) -> None:
    """Closing can take seconds while Kafka is away; whoever is paged meanwhile reads the reason."""
    app: Any = object()
    opening: Any = OpensThen()
    supervisor = Supervisor(app, State(Options(client_config={})), opening)
    loop.run_until_complete(supervisor.assigned({0: frozenset(["events"])}, MEMBERSHIP))
    loop.settle()
    assert ("closing", BROKER_GONE) == opening.seen[0]
    loop.run_until_complete(supervisor.revoke())
    loop.settle()
