"""Which fault comes when, to whom, for how long: a pure function of the seed.

Operations: kinds_of(brokers). Properties of every plan:

1. the same seed, count, length, number of brokers give the same plan
2. every kind comes at least once, as long as there are as many faults as kinds
3. faults overlap: most of them begin while another one lasts
4. none ends later than the length allows, none begins before the system had a moment to run
5. of three brokers no two faults of brokers or controller overlap: one fault takes two brokers, or all, by
   its kind alone
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
BROKERS: Final = "brokers"
ROLES: Final = (
    "any", "leader of payments", "leader of charge-results", "leader of a changelog",
    "transaction coordinator", "group coordinator",
)  # fmt: skip
"""Which of three brokers a fault hits: any one, or the one that has this role when the fault begins."""


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
CLUSTER_KINDS: Final[Mapping[str, Kind]] = {
    "broker_kill": Kind(2, "broker", 0.2, 8.0),
    "broker_stop": Kind(1, "broker", 0.2, 5.0),
    "broker_freeze": Kind(1.5, "broker", 5.0, 9.0),
    "broker_disk_full": Kind(0.6, "broker", 1.0, 5.0),
    "brokers_rolled": Kind(0.5, BROKERS, 0.5, 3.0),
    "broker_without_clients": Kind(1, "broker", 3.0, 9.0),
    "broker_without_peers": Kind(1, "broker", 3.0, 12.0),
    "min_insync_lost": Kind(0.6, BROKERS, 2.0, 30.0),
    "controller_down": Kind(0.6, BROKERS, 2.0, 30.0),
    "brokers_kill": Kind(0.3, BROKERS, 0.2, 3.0),
}
"""With three brokers, instead of the kinds of the same name or of the one broker. A freeze is longer than a
broker's session (3 s). `brokers_kill` is the death of all three processes, not of the machine: what they had
acknowledged, but not yet synced to disk, is in the kernel's pages, so nothing acknowledged may be lost."""
FIRST_AT_S: Final = 3.0
TOGETHER: Final = 0.5
"""Share of the faults that begin within TOGETHER_S of the one before."""
TOGETHER_S: Final = 1.0
DISRUPTIVE: Final = {"broker_kill", "broker_freeze", "deploy", "offsets_expired"}
"""These are spread evenly among the others, or nothing else would be seen."""
BACK_SHARE: Final = 0.5
"""So much of the time at least is left for three brokers to be whole again after a fault of theirs."""


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


def kinds_of(brokers: int) -> Mapping[str, Kind]:
    """Every kind that comes with so many brokers."""
    if brokers == 1:
        return KINDS
    return {**{name: kind for name, kind in KINDS.items() if kind.target != "broker"}, **CLUSTER_KINDS}


def plan(
    seed: int, faults: int, length_s: float, workers: Sequence[str], brokers: int = 1
) -> list[Planned]:
    """So many faults within so many seconds, in the order of their beginnings.

    `workers`: the last one is a guest, who is there only while a fault wants him; two at least. `brokers`: 1
    or 3.
    """
    dice = random.Random(seed)  # noqa: S311 - a repeatable plan, not a secret
    kinds = kinds_of(brokers)
    drawn = _kinds(dice, faults, kinds)
    if brokers == 1:
        times = _times(dice, drawn, length_s, kinds)
    else:
        apart = [kind for kind in drawn if kind in CLUSTER_KINDS]
        others = [kind for kind in drawn if kind not in CLUSTER_KINDS]
        times = _times(dice, others, length_s, kinds) + _slots(dice, apart, length_s)
        times.sort(key=lambda one: one[1])
    busy: dict[str, float] = {}
    made = []
    for number, (kind, at_s, lasts_s) in enumerate(times):
        target = _target(dice, kinds[kind].target, at_s, _names(workers, brokers), busy)
        busy[target] = max(busy.get(target, 0.0), at_s) + lasts_s
        made.append(Planned(
            number=number, kind=kind, target=target, at_s=at_s, length_s=lasts_s,
            args=_args(dice, kind, workers, brokers),
        ))  # fmt: skip
    return made


def _slots(dice: random.Random, kinds: Sequence[str], length_s: float) -> list[tuple[str, float, float]]:
    """Faults that never overlap: the time is shared out by their lengths, each begins early in its share.

    The rest of a share is for the brokers to come back before the next one; where time is short, faults are
    shortened alike.
    """
    wanted = [dice.uniform(CLUSTER_KINDS[kind].shortest_s, CLUSTER_KINDS[kind].longest_s) for kind in kinds]
    room_s = length_s - FIRST_AT_S
    back_s = room_s * BACK_SHARE / max(1, len(kinds))
    scale = min(1.0, room_s * (1 - BACK_SHARE) / max(sum(wanted), 1e-9))
    free_s = (room_s - sum(wanted) * scale) / max(1, len(kinds)) - back_s
    found, begin_s = [], FIRST_AT_S
    for kind, lasts_s in zip(kinds, wanted, strict=True):
        at_s = begin_s + dice.uniform(0, free_s) if free_s > 0 else begin_s
        found.append((kind, round(at_s, 3), round(max(lasts_s * scale, CLUSTER_KINDS[kind].shortest_s), 3)))
        begin_s += lasts_s * scale + back_s + max(free_s, 0.0)
    return found


def _times(
    dice: random.Random, drawn: Sequence[str], length_s: float, kinds: Mapping[str, Kind]
) -> list[tuple[str, float, float]]:
    """Beginning, length of each fault; one in two comes right after the one before."""
    spacing_s = (length_s - FIRST_AT_S) / max(1, len(drawn))
    found: list[tuple[str, float, float]] = []
    before_s = 0.0
    for number, kind in enumerate(drawn):
        at_s = FIRST_AT_S + spacing_s * (number + dice.random())
        if number and dice.random() < TOGETHER:
            at_s = before_s + dice.uniform(0, TOGETHER_S)
        lasts_s = dice.uniform(kinds[kind].shortest_s, kinds[kind].longest_s)
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


def _kinds(dice: random.Random, faults: int, kinds: Mapping[str, Kind]) -> list[str]:
    """Every kind once where there is room, the others by weight, the disruptive ones apart."""
    names = list(kinds)
    dice.shuffle(names)
    weights = [kinds[name].weight for name in names]
    drawn = names[:faults] + dice.choices(names, weights, k=max(0, faults - len(names)))
    dice.shuffle(drawn)
    heavy = [kind for kind in drawn if kind in DISRUPTIVE]
    found = [kind for kind in drawn if kind not in DISRUPTIVE]
    for number, kind in enumerate(heavy):
        found.insert(int((number + 0.5) * len(drawn) / len(heavy)), kind)
    return found


def _names(workers: Sequence[str], brokers: int) -> Mapping[str, list[str]]:
    """Per sort of target everybody of that sort; with three brokers a link leads to all of them or to one."""
    links = [f"link:{name}" for name in workers]
    if brokers > 1:
        links += [f"{link}:{number}" for link in links for number in range(1, brokers + 1)]
    return {
        "worker": list(workers), "resident": list(workers[:-1]), "guest": list(workers[-1:]), "link": links,
    }  # fmt: skip


def _target(
    dice: random.Random, sort: str, at_s: float, everybody: Mapping[str, list[str]], busy: Mapping[str, float]
) -> str:
    """Somebody of the right sort whom no earlier fault has; else the one who is free first."""
    names = everybody.get(sort, [sort])
    free = [name for name in names if busy.get(name, 0.0) <= at_s]
    return dice.choice(free) if free else min(names, key=lambda name: busy[name])


def _args(dice: random.Random, kind: str, workers: Sequence[str], brokers: int) -> dict[str, Any]:
    """What a kind wants to know beside target and length."""
    if brokers > 1 and kind in CLUSTER_KINDS:
        return _cluster_args(dice, kind, brokers)
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


def _cluster_args(dice: random.Random, kind: str, brokers: int) -> dict[str, Any]:
    """`broker`: its number where the role is "any"; `partition`: of the role's topic; `order`: of a roll."""
    if kind == "brokers_kill":
        return {}
    if kind == "controller_down":
        return {"how": dice.choice(("kill", "stop", "freeze"))}
    if kind == "brokers_rolled":
        order = dice.sample(range(1, brokers + 1), brokers)
        return {"order": order, "how": dice.choice(("stop", "kill"))}
    if kind == "min_insync_lost":
        return {"left": dice.randint(1, brokers), "how": dice.choice(("kill", "stop", "freeze"))}
    args = {
        "role": dice.choice(ROLES), "broker": dice.randint(1, brokers), "partition": dice.randrange(10**6)
    }  # fmt: skip
    if kind.startswith("broker_without"):
        args["how"] = dice.choice(("silent", "refused"))
    if kind == "broker_without_peers":
        args["controller_too"] = dice.random() < 0.5
    return args
