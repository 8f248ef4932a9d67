"""Which fault comes when, to whom, for how long: a pure function of the seed.

Operations: KINDS. Properties of every plan:

1. the same seed, count, length give the same plan
2. every kind comes at least once, as long as there are as many faults as kinds
3. faults overlap: most of them begin while another one lasts
4. none ends later than the length allows, none begins before the system had a moment to run
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

POINTS: Final = (
    "before_send", "between_sends", "before_offsets", "before_commit", "after_commit", "after_store",
    "during_recovery",
)  # fmt: skip
"""The names of the probe (`Options.probe`); the last one only comes where there is something to recover."""
ALL: Final = "all"


@dataclass(frozen=True, slots=True)
class Kind:
    """How often a kind is drawn beyond the first time, whom it hits, how long it lasts in seconds."""

    weight: float
    target: str
    shortest_s: float
    longest_s: float


KINDS: Final[Mapping[str, Kind]] = {
    "kill": Kind(6, "worker", 0.2, 3.0),
    "kill_at_point": Kind(8, "worker", 0.2, 2.0),
    "freeze": Kind(4, "worker", 3.5, 7.0),
    "freeze_at_point": Kind(4, "worker", 3.5, 7.0),
    "stop": Kind(3, "worker", 0.2, 2.0),
    "add": Kind(3, "guest", 4.0, 8.0),
    "remove": Kind(3, "resident", 3.0, 6.0),
    "wipe": Kind(2, "worker", 0.2, 1.0),
    "old_copy": Kind(2, "worker", 2.0, 4.0),
    "damage": Kind(2, "worker", 0.2, 1.0),
    "disk_full": Kind(2, "worker", 2.0, 5.0),
    "clock": Kind(1, "worker", 4.0, 7.0),
    "refused": Kind(1, "topics", 2.0, 4.0),
    "cut": Kind(6, "link", 0.1, 2.0),
    "half_open": Kind(4, "link", 1.0, 6.0),
    "delay": Kind(4, "link", 2.0, 6.0),
    "end_txn_late": Kind(5, "link", 3.0, 8.0),
    "end_txn_answer_late": Kind(5, "link", 3.0, 8.0),
    "broker_kill": Kind(1, "broker", 0.2, 2.0),
    "broker_freeze": Kind(1, "broker", 4.5, 6.0),
    "gateway_error_before": Kind(3, "gateway", 1.0, 4.0),
    "gateway_drop_after": Kind(3, "gateway", 1.0, 4.0),
    "gateway_timeout": Kind(3, "gateway", 1.0, 4.0),
    "gateway_409": Kind(3, "gateway", 1.0, 4.0),
    "gateway_429": Kind(3, "gateway", 1.0, 4.0),
    "gateway_slow": Kind(3, "gateway", 1.0, 4.0),
    "intake_kill": Kind(3, "intake", 0.2, 2.0),
    "deploy": Kind(1, ALL, 4.0, 8.0),
    "offsets_expired": Kind(0.5, ALL, 2.0, 3.0),
}
FIRST_AT_S: Final = 3.0
TOGETHER: Final = 0.5
"""Share of the faults that begin within TOGETHER_S of the one before."""
TOGETHER_S: Final = 1.0
DISRUPTIVE: Final = {"broker_kill", "broker_freeze", "deploy", "offsets_expired"}
"""These are spread evenly among the others, or nothing else would be seen."""


@dataclass(frozen=True, slots=True)
class Planned:
    """One fault: the number in the plan, seconds after the start, its length, what its kind wants to know."""

    number: int
    kind: str
    target: str
    at_s: float
    length_s: float
    args: Mapping[str, Any] = field(default_factory=dict)

    @property
    def until_s(self) -> float:
        """When it is planned to end."""
        return self.at_s + self.length_s


def plan(seed: int, faults: int, length_s: float, workers: Sequence[str]) -> list[Planned]:
    """So many faults within so many seconds, in the order of their beginnings.

    `workers`: the last one is a guest, who is there only while a fault wants him; two at least.
    """
    dice = random.Random(seed)  # noqa: S311 - a repeatable plan, not a secret
    busy: dict[str, float] = {}
    made = []
    for number, (kind, at_s, lasts_s) in enumerate(_times(dice, _kinds(dice, faults), length_s)):
        target = _target(dice, kind, at_s, workers, busy)
        busy[target] = max(busy.get(target, 0.0), at_s) + lasts_s
        made.append(Planned(number, kind, target, at_s, lasts_s, _args(dice, kind, workers)))
    return made


def _times(dice: random.Random, kinds: Sequence[str], length_s: float) -> list[tuple[str, float, float]]:
    """Beginning, length of each fault; one in two comes right after the one before."""
    spacing_s = (length_s - FIRST_AT_S) / len(kinds)
    found: list[tuple[str, float, float]] = []
    before_s = 0.0
    for number, kind in enumerate(kinds):
        at_s = FIRST_AT_S + spacing_s * (number + dice.random())
        if number and dice.random() < TOGETHER:
            at_s = before_s + dice.uniform(0, TOGETHER_S)
        lasts_s = dice.uniform(KINDS[kind].shortest_s, KINDS[kind].longest_s)
        before_s = at_s = max(FIRST_AT_S, min(at_s, length_s - lasts_s))
        found.append((kind, round(at_s, 3), round(lasts_s, 3)))
    return sorted(found, key=lambda one: one[1])


def overlapping(planned: Sequence[Planned]) -> int:
    """How many faults begin while an earlier one lasts."""
    last, count = 0.0, 0
    for one in planned:
        count += one.at_s < last
        last = max(last, one.until_s)
    return count


def _kinds(dice: random.Random, faults: int) -> list[str]:
    """Every kind once where there is room, the others by weight, the disruptive ones apart."""
    names = list(KINDS)
    dice.shuffle(names)
    weights = [KINDS[name].weight for name in names]
    drawn = names[:faults] + dice.choices(names, weights, k=max(0, faults - len(names)))
    dice.shuffle(drawn)
    heavy = [kind for kind in drawn if kind in DISRUPTIVE]
    found = [kind for kind in drawn if kind not in DISRUPTIVE]
    for number, kind in enumerate(heavy):
        found.insert(int((number + 0.5) * len(drawn) / len(heavy)), kind)
    return found


def _target(
    dice: random.Random, kind: str, at_s: float, workers: Sequence[str], busy: Mapping[str, float]
) -> str:
    """Somebody of the right sort whom no earlier fault has; else the one who is free first."""
    sort = KINDS[kind].target
    names = {
        "worker": list(workers), "resident": list(workers[:-1]), "guest": list(workers[-1:]),
        "link": [f"link:{name}" for name in workers],
    }.get(sort, [sort])  # fmt: skip
    free = [name for name in names if busy.get(name, 0.0) <= at_s]
    return dice.choice(free) if free else min(names, key=lambda name: busy[name])


def _args(dice: random.Random, kind: str, workers: Sequence[str]) -> dict[str, Any]:
    """What a kind wants to know beside target and length."""
    draw: Mapping[str, Callable[[], dict[str, Any]]] = {
        "kill_at_point": lambda: {"point": dice.choice(POINTS), "times": dice.randint(1, 2)},
        "freeze_at_point": lambda: {"point": dice.choice(POINTS[:-1]), "times": dice.randint(1, 2)},
        "damage": lambda: {"how": dice.choice(("cut", "flip", "remove")), "seed": dice.randrange(10**6)},
        "half_open": lambda: {"then": dice.choice(("goes on", "is cut"))},
        "delay": lambda: {"delay_s": round(dice.uniform(0.02, 0.4), 3)},
        "end_txn_late": lambda: {"hold_s": round(dice.uniform(1.0, 9.0), 3)},
        "end_txn_answer_late": lambda: {"hold_s": round(dice.uniform(1.0, 9.0), 3)},
        "refused": lambda: {"topic": dice.choice(("charge-results", "payment-metrics"))},
        "deploy": lambda: {"order": dice.sample(list(workers), len(workers))},
        "gateway_slow": lambda: {"latency_ms": dice.choice((200, 600, 2000))},
        "intake_kill": lambda: {"amid": dice.random() < 0.7},
    }  # fmt: skip
    args = draw[kind]() if kind in draw else {}
    if kind.startswith("gateway_") and kind != "gateway_slow":
        args = {"rate": round(dice.uniform(0.3, 1.0), 2), "seed": dice.randrange(10**6)}
    return args
