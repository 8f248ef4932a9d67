"""Each kind of fault as an action on the running system; what really happened is its return value.

An action begins, lasts, heals what it did. It holds the locks of what it touches, so faults on different
targets overlap, two on one target come one after the other. FaultFailed means that the *product* did not do
what its contract says under this fault.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Final

from torture import broker_faults
from torture import disk_faults as disk
from torture import outer_faults as outer
from torture import process_faults as process
from torture.group import FaultFailed, expire_offsets
from torture.process_faults import Detail
from torture.schedule import CLUSTER_KINDS, KINDS, Planned
from torture.system import System

__all__ = ["ACTIONS", "FaultFailed", "act"]


def act(system: System, fault: Planned) -> Detail:
    """Let the fault happen, from its beginning to its end."""
    actions = ACTIONS if system.kafka.count == 1 else {**ACTIONS, **CLUSTER_ACTIONS}
    return actions[fault.kind](system, fault)


def offsets_expired(system: System, fault: Planned) -> Detail:
    """The group's offsets are gone: tasks with state stop, naming what to do; put back, they go on."""
    with ExitStack() as stack:
        for lock in (system.locks["all"], system.locks["broker"]):
            stack.enter_context(lock)
        for _, worker in sorted(system.workers.items()):
            stack.enter_context(worker.lock)
        return expire_offsets(system, fault.length_s)


ACTIONS: Final[Mapping[str, Callable[[System, Planned], Detail]]] = {
    "kill": process.kill, "kill_at_point": process.kill_at_point, "freeze": process.freeze,
    "freeze_at_point": process.freeze_at_point, "stop": process.stop, "add": process.add,
    "remove": process.remove, "clock": process.clock, "deploy": process.deploy, "wipe": disk.wipe,
    "old_copy": disk.old_copy, "damage": disk.damage, "disk_full": disk.disk_full, "refused": outer.refused,
    "cut": outer.cut, "half_open": outer.half_open, "delay": outer.delay,
    "end_txn_late": outer.end_txn_late, "end_txn_answer_late": outer.end_txn_answer_late,
    "broker_kill": outer.broker_kill, "broker_freeze": outer.broker_freeze,
    **dict.fromkeys(outer.GATEWAY, outer.gateway), "intake_kill": outer.intake_kill,
    "offsets_expired": offsets_expired,
}  # fmt: skip
CLUSTER_ACTIONS: Final[Mapping[str, Callable[[System, Planned], Detail]]] = {
    kind: getattr(broker_faults, kind) for kind in CLUSTER_KINDS
}
if set(ACTIONS) != set(KINDS):
    raise TypeError(f"every kind needs an action: {set(ACTIONS) ^ set(KINDS)}")
