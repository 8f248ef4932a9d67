"""What is run and what is compared with what: data, nothing else. A new configuration is a line here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

OURS: Final = "ours"

@dataclass(frozen=True, slots=True)
class Configuration:
    """One way to run a peer.

    `drain` works off a backlog, `latency` answers a steady load. `width`: workers (ours, Quix), stream
    threads, parallelism. `environment`: more settings of that peer.
    """

    name: str
    peer: str
    kind: Literal["drain", "latency"]
    gateway_ms: int = 0
    width: int = 1
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pair:
    """Ours beside a peer's configuration, compared within each round, in these figures."""

    ours: str
    peer: str
    figures: Sequence[str]


@dataclass(frozen=True, slots=True)
class Figure:
    """How a figure is called, and which direction is better."""

    title: str
    more_is_better: bool


FIGURES: Final[Mapping[str, Figure]] = {
    "results_per_s": Figure("results/s", more_is_better=True),
    "second_half_per_s": Figure("second half", more_is_better=True),
    "cpu_us": Figure("CPU us", more_is_better=False),
    "running_cpu_us": Figure("CPU us running", more_is_better=False),
    "broker_cpu_us": Figure("broker CPU us", more_is_better=False),
    "peak_mb": Figure("peak MB", more_is_better=False),
    "p50_ms": Figure("p50 ms", more_is_better=False),
    "p99_ms": Figure("p99 ms", more_is_better=False),
}
"""What a run is measured by; other figures of a run are only kept."""

THROUGHPUT: Final = (
    "results_per_s", "second_half_per_s", "cpu_us", "running_cpu_us", "broker_cpu_us", "peak_mb",
)  # fmt: skip
LATENCY: Final = ("p50_ms", "p99_ms", "cpu_us", "broker_cpu_us", "peak_mb")


@dataclass(frozen=True, slots=True)
class Plan:
    """Configurations in the order of a round, the pairs, the sizes. Latency warms up with `warm_up`."""

    configurations: Sequence[Configuration]
    pairs: Sequence[Pair]
    fast: int
    slow: int
    warm_up: int
    rate: int = 200
    seconds: int = 15

    def payments(self, one: Configuration) -> int:
        """How many payments a run of it has before any steady load."""
        if one.kind == "latency":
            return self.warm_up
        return self.slow if one.gateway_ms else self.fast


HASHMAP: Final = {"BACKEND": "hashmap"}
EAGER: Final = {"EAGER": "true"}
"""What the peers' own programs take from their environment."""

THRIFTY: Final = {"BILLING_COMMIT_DISTANCE_MS": "100"}
"""Spares the broker: a commit 100 ms after the one before, as the peers commit."""

NO_DELAY: Final = (
    Configuration("ours, one worker, 0 ms", OURS, "drain"),
    Configuration("Kafka Streams, two threads, 0 ms", "kafka-streams", "drain", width=2),
    Configuration("ours, two workers, 0 ms", OURS, "drain", width=2),
    Configuration("Quix, one process, 0 ms", "quix", "drain"),
)
SLOW_GATEWAY: Final = (
    Configuration("ours, one worker, 50 ms", OURS, "drain", 50),
    Configuration("Flink, parallelism 2, 50 ms", "flink", "drain", 50, 2, environment=HASHMAP),
    Configuration("ours, two workers, 50 ms", OURS, "drain", 50, 2),
)
STEADY: Final = (
    Configuration("ours, one worker, 200/s", OURS, "latency"),
    Configuration("Kafka Streams, two threads, 200/s", "kafka-streams", "latency", width=2),
    Configuration("ours, one thrifty worker, 200/s", OURS, "latency", environment=THRIFTY),
)
OTHERS: Final = (
    Configuration("bare librdkafka, one process, 0 ms", "raw-confluent", "drain"),
    Configuration("plain Faust, one worker, 0 ms", "faust-stock", "drain"),
    Configuration("Flink, parallelism 2, 0 ms", "flink", "drain", 0, 2, environment=HASHMAP),
    Configuration("Parallel Consumer, 50 ms", "parallel-consumer", "drain", 50, environment=EAGER),
)
"""In the long form alone."""

PAIRS: Final = (
    Pair("ours, two workers, 0 ms", "Kafka Streams, two threads, 0 ms", THROUGHPUT),
    Pair("ours, one worker, 0 ms", "Kafka Streams, two threads, 0 ms", THROUGHPUT),
    Pair("ours, one worker, 0 ms", "Quix, one process, 0 ms", THROUGHPUT),
    Pair("ours, two workers, 50 ms", "Flink, parallelism 2, 50 ms", THROUGHPUT),
    Pair("ours, one worker, 50 ms", "Flink, parallelism 2, 50 ms", THROUGHPUT),
    Pair("ours, one worker, 200/s", "Kafka Streams, two threads, 200/s", LATENCY),
    Pair("ours, one thrifty worker, 200/s", "Kafka Streams, two threads, 200/s", LATENCY),
)
SHORT: Final = Plan((*NO_DELAY, *SLOW_GATEWAY, *STEADY), PAIRS, fast=80_000, slow=40_000, warm_up=10_000)
"""Over in 15 minutes with three rounds."""
FULL: Final = Plan(
    (*NO_DELAY, *SLOW_GATEWAY, *STEADY, *OTHERS), PAIRS,
    fast=200_000, slow=200_000, warm_up=20_000, seconds=30,
)  # fmt: skip
