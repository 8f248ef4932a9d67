"""What the parts of a task need of the worker that owns it."""

from typing import Protocol

from .bounds import Bounds
from .options import Options
from .units import UnitTask


class Owner(Protocol):
    """The worker of a task."""

    options: Options
    bounds: Bounds

    def task_failed(self, task: UnitTask, exc: BaseException) -> None:
        """Take over a task whose commit or handler failed."""
