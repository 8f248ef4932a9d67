"""What the parts of the layer share: the tasks of this worker, and what is known of its group."""

from dataclasses import dataclass, field

from .bounds import Bounds
from .group import GroupMember
from .options import Options
from .slot import Slot
from .units import OwnTask


@dataclass(slots=True)
class State:
    """The tasks of one worker.

    Attributes:
        options: of the app.
        bounds: what its tasks have under way.
        slots: by partition what this worker was assigned.
        member: the consumer that is the group's member, None before it starts.
        partitions: how many tasks there are on all workers together, 0 before the start has asked.
    """

    options: Options
    bounds: Bounds = field(init=False)
    slots: dict[int, Slot] = field(default_factory=dict)
    member: GroupMember | None = None
    partitions: int = 0

    def __post_init__(self) -> None:
        self.bounds = Bounds(self.options)

    def has_contact(self) -> bool:
        """False while the group's coordinator does not answer the member."""
        return self.member is None or self.member.has_contact()

    def task_failed(self, task: OwnTask, exc: BaseException) -> None:
        """Take over a task whose commit or handler failed: its owner looks at it next."""
        slot = self.slots.get(task.partition)
        if slot is not None and slot.task is task and slot.failure is None:
            slot.failure = exc
            slot.changed.set()
