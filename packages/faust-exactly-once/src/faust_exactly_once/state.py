"""What the parts of the layer share: the tasks of this worker, and what is known of its group."""

from dataclasses import dataclass, field

from .assigned_task import AssignedTask
from .bounds import Bounds
from .group import GroupMember
from .options import Options
from .units import UnitTask


@dataclass(slots=True)
class State:
    """The tasks of one worker.

    Attributes:
        options: of the app.
        bounds: what its tasks have under way.
        assigned_tasks: by partition what this worker was assigned.
        member: the consumer that is the group's member, None before it starts.
        partitions: how many tasks there are on all workers together, 0 before the start has asked.
    """

    options: Options
    bounds: Bounds = field(init=False)
    assigned_tasks: dict[int, AssignedTask] = field(default_factory=dict)
    member: GroupMember | None = None
    partitions: int = 0

    def __post_init__(self) -> None:
        self.bounds = Bounds(self.options)

    def has_contact(self) -> bool:
        """False while the group's coordinator does not answer the member."""
        return self.member is None or self.member.has_contact()

    def task_failed(self, task: UnitTask, exc: BaseException) -> None:
        """Take over a task whose commit or handler failed: its owner looks at it next."""
        assigned = self.assigned_tasks.get(task.partition)
        if assigned is not None and assigned.task is task and assigned.failure is None:
            assigned.failure = exc
            assigned.changed.set()
