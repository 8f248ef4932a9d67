"""The state of the system as one worker sees it: records without behaviour."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from streamsocial_billing.audit.live import Break

RUNNING = "running"
STARTING = frozenset({"fencing", "recovering", "closing", "closed"})
"""States of a partition that pass by themselves within seconds."""
NOT_KNOWN = "not known"
"""The state of a partition whose worker does not answer."""
NO_WORKER = "no worker"
"""The state of a partition that is assigned to nobody."""
NOT_SET_UP = "not_configured"
"""The state of a gateway for which open payments wait at a worker that does not have it."""
CALLABLE = frozenset({"closed", "half_open"})


@dataclass(frozen=True, slots=True)
class Worker:
    """One worker; times are ms since the epoch.

    url            where its pages are
    answers        True for the worker that was asked, and for one that has just answered it
    since_ms       since when it does not answer; None while it does
    partitions     those that it has, or had when it last answered
    assigned       True if the group's last assignment gives it a partition
    kafka_lost_ms  since when Kafka does not answer it; None while it does, or while nobody knows
    """

    url: str
    answers: bool = True
    since_ms: int | None = None
    partitions: tuple[int, ...] = ()
    assigned: bool = True
    kafka_lost_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Stuck:
    """An event that nothing behind it can commit past, for longer than its deadline; `age_s` seconds."""

    topic: str
    offset: int
    held_by: str
    age_s: float


@dataclass(frozen=True, slots=True)
class Partition:
    """One partition: its owner's url, its state there (STATES of the layer, NOT_KNOWN, NO_WORKER).

    `why`: what a partition that does not run waits for. `checked_ms`: when its books were last checked, ms
    since the epoch; None: they never were, as far as is known here.
    """

    number: int
    owner: str | None = None
    state: str = RUNNING
    why: str = ""
    stuck: Stuck | None = None
    checked_ms: int | None = None


@dataclass(frozen=True, slots=True)
class GatewayState:
    """One gateway over all workers that answer; see `GatewayStatus`. `waiting`: open payments there."""

    name: str
    state: str = "closed"
    since_ms: int | None = None
    actor: str = ""
    reason: str = ""
    waiting: int = 0


@dataclass(frozen=True, slots=True)
class Group:
    """Payments of a kind: how many, and since when the oldest waits (ms since the epoch, None: not known)."""

    count: int = 0
    oldest_ms: int | None = None


@dataclass(frozen=True, slots=True)
class BrokerAway:
    """A Kafka broker that does not answer these workers (urls), since when (ms since the epoch).

    `waiting`: their partitions that it leads; `brokers`: how many of the cluster are known, it included.
    """

    number: int
    address: str
    since_ms: int
    workers: tuple[str, ...]
    waiting: tuple[int, ...] = ()
    brokers: int = 3


@dataclass(frozen=True, slots=True)
class State:
    """Everything that a finding rests on.

    at_ms     now, ms since the epoch
    url       the worker that was asked
    total     how many partitions there are; 0: not known yet
    brokers   of Kafka that do not answer
    breaks    by partition, what the live audit has found
    backlog   events on `payments` that are not handled
    unknown   payments without a final outcome, which are tried again by themselves
    parked    payments that wait for a person
    """

    at_ms: int
    url: str = ""
    total: int = 0
    workers: tuple[Worker, ...] = ()
    partitions: tuple[Partition, ...] = ()
    gateways: tuple[GatewayState, ...] = ()
    breaks: Mapping[int, tuple[Break, ...]] = field(default_factory=dict)
    backlog: Group = Group()
    unknown: Group = Group()
    parked: Group = Group()
    brokers: tuple[BrokerAway, ...] = ()
