"""A call to the group's coordinator, bounded wherever that has moved."""

import time
from collections.abc import Callable

from .environment import Deadline, Environment
from .errors import OutcomeUnknown

LOOK_S = 0.1  # how often a call that waits for the group's coordinator looks where that is now
MOVED_S = 1.0  # how long librdkafka gets to follow a coordinator that is another broker now ...
RETURNED_S = 2.0  # ... or the same one again: longer than its pause before it connects anew


class CoordinatorMoved:
    """Knows whether a call waits for a broker that coordinates the group no longer, as its member sees it.

    Args:
        before: the coordinator that the call goes to, as far as is known.
        now: the one that the member knows, None while it knows none.
    """

    def __init__(
        self, before: int | None, now: Callable[[], int | None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._before = before
        self._now = now
        self._clock = clock
        self._was_lost = False
        self._there_since: float | None = None

    def in_vain(self) -> str | None:
        """Why to wait no longer: the member has long found the coordinator where the call does not look."""
        now, now_s = self._now(), self._clock()
        if now is None:
            self._was_lost, self._there_since = True, None
            return None
        another = self._before is not None and now != self._before
        if not (another or self._was_lost):
            return None
        self._there_since = now_s if self._there_since is None else self._there_since
        if now_s - self._there_since < (MOVED_S if another else RETURNED_S):
            return None
        return f"the group's coordinator is broker {now} now, the commit waits for broker {self._before}"


def bounded(
    call: Callable[[], None], limit_s: float, moved: CoordinatorMoved, environment: Environment
) -> None:
    """Run a call in a thread of its own; one that never returns keeps that thread with its producer.

    Raises:
        OutcomeUnknown: it did not return in time, or waits in vain. Whatever `call` raises.
    """
    ended = environment.threads.future()

    def run() -> None:
        try:
            call()
            ended.set_result(None)
        except BaseException as exc:
            ended.set_exception(exc)

    environment.threads.start(run, "add-offsets")
    deadline = Deadline(environment.clock, limit_s)
    while True:
        left_s = deadline.left_s()
        try:
            ended.result(max(0.0, min(LOOK_S, left_s)))
            return
        except TimeoutError:
            if ended.done():
                raise  # the call's own
            in_vain = moved.in_vain()
            if in_vain is not None or left_s <= LOOK_S:
                why = in_vain or f"the group's coordinator was not found in {limit_s:.0f} s"
                raise OutcomeUnknown(why) from None
