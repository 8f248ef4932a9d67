"""A seed's plan: how many workers, what they are fed, what goes wrong when; pure, printable."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any, NamedTuple

SOURCES = ("again", "events")
KEYS: tuple[bytes | None, ...] = (b"a", b"b", b"c", b"d", None)
FED_S = 8.0
FAULTS_S = 12.0
POINTS = (
    "before_send", "between_sends", "before_offsets", "before_commit", "after_commit", "after_store",
    "during_recovery",
)  # fmt: skip
APIS = (
    *("AddPartitionsToTxn", "Produce", "Produce", "AddOffsetsToTxn", "TxnOffsetCommit", "EndTxn") * 2,
    "InitProducerId", "OffsetFetch", "ListOffsets", "Fetch", "JoinGroup", "Heartbeat",
)  # fmt: skip
OFTEN = ("trick", "trick", "trick", "freeze_at", "kill_at")
TRICKS = ("held up", "lost", "no answer", "broken")


class Feed(NamedTuple):
    """Events that a producer outside appends in one go.

    Attributes:
        topic, keys: where they go.
        open_s: how long their transaction stays open; None: they are in none.
        commits: how that transaction ends.
    """

    at_s: float
    topic: str
    keys: tuple[bytes | None, ...]
    open_s: float | None
    commits: bool


class Fault(NamedTuple):
    """Something that goes wrong: a method of `Faults`, with its arguments."""

    at_s: float
    kind: str
    arguments: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that a seed decides beforehand.

    Attributes:
        in_order: requests of one producer arrive in the order in which they were sent, as on one connection;
            without it a request whose connection broke may still arrive after a later one.
    """

    workers: int
    partitions: int
    plain: bool
    epoch_per_transaction: bool
    in_order: bool
    options: dict[str, Any]
    feeds: tuple[Feed, ...]
    faults: tuple[Fault, ...]

    def lines(self) -> list[str]:
        """The plan for a reader."""
        how = "plain agents" if self.plain else "batches"
        head = (
            f"{self.workers} workers, {self.partitions} partitions, {how}, epoch per transaction "
            f"{self.epoch_per_transaction}, {self.options}"
        )
        return [head, *map(str, self.feeds), *map(str, self.faults)]


def make(seed: int, only: tuple[str, ...] = ()) -> Plan:
    """The plan of a seed.

    Args:
        only: the kinds of faults to choose from; empty: all.
    """
    rng = Random(f"plan {seed}")
    workers = rng.choice((1, 1, 2, 2, 2, 3))
    feeds = sorted((_feed(rng) for _ in range(rng.randint(2, 6))), key=lambda feed: feed.at_s)
    kinds = list(only) or [*KINDS, *OFTEN]
    faults = [
        _fault(rng, rng.choice(kinds), workers, feeds) for _ in range(rng.choice((0, 1, 2, 3, 3, 4, 4, 5)))
    ]
    each = rng.random() < 0.5
    return Plan(
        workers=workers,
        partitions=rng.choice((1, 1, 2)),
        plain=rng.random() < 0.25,
        epoch_per_transaction=each,
        in_order=not each,
        options={
            "max_running": rng.choice((2, 3, 10)),
            "max_waiting_units": rng.choice((4, 6, 50)),
            "max_units_per_commit": rng.choice((2, 3, 50)),
            "handler_tries": rng.choice((1, 2, 3)),
            "request_timeout_s": rng.choice((0.5, 2.0, 10.0)),
            "transaction_timeout_ms": rng.choice((2_000, 15_000)),
        },
        feeds=tuple(feeds),
        faults=tuple(sorted(faults, key=lambda fault: fault.at_s)),
    )


def _feed(rng: Random) -> Feed:
    keys = tuple(rng.choice(KEYS) for _ in range(rng.randint(1, 5)))
    open_s = rng.choice((None, None, 0.01, 0.5, 4.0))
    topic = rng.choice((*SOURCES, "events"))
    return Feed(round(rng.random() * FED_S, 2), topic, keys, open_s, rng.random() < 0.8)


def _fault(rng: Random, kind: str, workers: int, feeds: list[Feed]) -> Fault:
    """A fault at any time, or while there is something to do."""
    at_s = rng.random() * FAULTS_S if rng.random() < 0.4 else rng.choice(feeds).at_s + rng.random() * 0.4
    return Fault(round(at_s, 3), kind, KINDS[kind](rng, rng.randrange(workers)))


def _seconds(rng: Random, most: float) -> float:
    """Mostly short, sometimes as long as it may be."""
    return round(most * rng.random() ** 2 + 0.01, 2)


Make = Callable[[Random, int], tuple[Any, ...]]
KINDS: dict[str, Make] = {
    "kill": lambda rng, w: (w, _seconds(rng, 8), rng.choice(("kept", "kept", "lost", "old"))),
    "kill_at": lambda rng, w: (w, rng.choice(POINTS), rng.randint(1, 3), _seconds(rng, 8)),
    "freeze": lambda rng, w: (w, _seconds(rng, 30)),
    "freeze_at": lambda rng, w: (w, rng.choice(POINTS), rng.randint(1, 3), _seconds(rng, 30)),
    "stop": lambda rng, w: (w, _seconds(rng, 5)),
    "add": lambda rng, w: (),
    "rebalance": lambda rng, w: (),
    "cut": lambda rng, w: (w,),
    "broker": lambda rng, w: (_seconds(rng, 8),),
    "silent": lambda rng, w: (w, _seconds(rng, 20)),
    "slow": lambda rng, w: (w, _seconds(rng, 0.5), _seconds(rng, 10)),
    "slow_open": lambda rng, w: (w, round(rng.uniform(2, 9), 2)),
    "trick": lambda rng, w: (
        w,
        rng.choice(APIS),
        rng.choice(TRICKS),
        _seconds(rng, 14),
        rng.choice((1, 1, 3)),
    ),
    "stray_end": lambda rng, w: (w, _seconds(rng, 0.5)),
    "slow_markers": lambda rng, w: (_seconds(rng, 3), _seconds(rng, 10)),
    "refuse": lambda rng, w: (rng.randint(1, 10), rng.randint(1, 4)),
    "disk": lambda rng, w: (w, rng.randint(1, 4)),
    "retention": lambda rng, w: (),
    "compact": lambda rng, w: (),
    "restore": lambda rng, w: (w,),
    "offsets_expire": lambda rng, w: (
        _seconds(rng, 2),
        rng.choice((SOURCES, SOURCES, SOURCES[:1], SOURCES[1:])),
    ),
}
