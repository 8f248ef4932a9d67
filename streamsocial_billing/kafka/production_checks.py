"""What of Kafka's own settings would lose payments, or stop them all, when a broker goes: said at the start.

`problems` decides, purely; `look` asks; docs/operations.md, "Kafka in production", explains each line.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType, TopicMetadata

from streamsocial_billing.kafka.topics import INPUT_RETENTION_MS, PLANS
from streamsocial_billing.settings import PAYMENTS, Settings

logger = logging.getLogger(__name__)

ANSWER_WITHIN_S: Final = 5.0
"""The checks are advice: a cluster that is slow to answer is not waited for."""
MINUTE_MS: Final = 60_000
NAMED: Final = 3
"""Topics that a line names; of the others it says how many they are."""
INTERNAL: Final = {
    # the topic: the broker's settings by which it is made, and what its loss means
    "__consumer_offsets": (
        "offsets.topic.replication.factor", "min.insync.replicas", "offsets are lost, tasks stop and ask",
    ),
    "__transaction_state": (
        "transaction.state.log.replication.factor", "transaction.state.log.min.isr",
        "a commit that was decided may be torn",
    ),
}  # fmt: skip
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TopicSeen:
    """A topic of ours, or an internal one: copies of its partition that has the fewest, its settings."""

    name: str
    copies: int
    config: Mapping[str, str] = field(default_factory=dict)

    @property
    def in_sync(self) -> int:
        """How many copies an acknowledged record has at least."""
        return int(self.config.get("min.insync.replicas", 1))


@dataclass(frozen=True, slots=True)
class ClusterSeen:
    """What was asked of a cluster.

    Attributes:
        brokers: how many there are.
        topics: ours that exist, the internal ones, too.
        config: one broker's settings.
    """

    brokers: int
    topics: tuple[TopicSeen, ...]
    config: Mapping[str, str] = field(default_factory=dict)


def problems(seen: ClusterSeen) -> list[str]:
    """One line for each setting that would lose or stop something, what loses money first.

    A single broker is no cluster: nothing is said of it.
    """
    if seen.brokers < 2:
        return []
    topics = [*seen.topics, *_not_made_yet(seen)]
    return [*_losing(topics), *_stopping(topics), *_deleting(seen)]


def _not_made_yet(seen: ClusterSeen) -> Iterator[TopicSeen]:
    """The internal topics as the broker would make them: it does so only when a first client needs them."""
    for name, (copies, in_sync, _) in INTERNAL.items():
        if name not in {one.name for one in seen.topics} and copies in seen.config:
            made = {"min.insync.replicas": seen.config.get(in_sync, "1")}
            yield TopicSeen(name, int(seen.config[copies]), made)


def _losing(topics: list[TopicSeen]) -> Iterator[str]:
    yield from _said(
        topics, lambda one: one.config.get("unclean.leader.election.enable") == "true",
        "unclean.leader.election.enable=true: a copy that lacks acknowledged records may lead: they are gone",
        "set it to false",
    )  # fmt: skip
    yield from _said(
        topics, lambda one: one.copies == 1,
        "one copy only: while its broker is away nothing is read or written, with its disk it is lost",
        "add copies with kafka-reassign-partitions.sh (new topics: BILLING_REPLICATION=3)",
    )
    yield from _said(
        topics, lambda one: one.copies > 1 and one.in_sync == 1,
        "min.insync.replicas=1: an acknowledged record may be on one broker alone, and is lost with it",
        "set min.insync.replicas=2",
    )


def _stopping(topics: list[TopicSeen]) -> Iterator[str]:
    yield from _said(
        topics, lambda one: 1 < one.copies <= one.in_sync,
        "min.insync.replicas is as high as the number of copies: with one broker away nothing is written",
        "set min.insync.replicas to one less than the copies",
    )


def _deleting(seen: ClusterSeen) -> Iterator[str]:
    sources = {plan.name for plan in PLANS if plan.same_partitions}
    yield from _said(
        [one for one in seen.topics if any(one.name.endswith(name) for name in sources)],
        lambda one: int(one.config.get("retention.bytes", -1)) >= 0,
        "retention.bytes deletes what is too much, handled or not: what waits for a worker is lost",
        "set retention.bytes=-1",
    )
    minutes = int(seen.config.get("offsets.retention.minutes", INPUT_RETENTION_MS // MINUTE_MS))
    if minutes * MINUTE_MS < INPUT_RETENTION_MS:
        kept, ours = minutes / 1440, INPUT_RETENTION_MS // MINUTE_MS // 1440
        yield (
            f"offsets.retention.minutes={minutes}: the brokers forget offsets {kept:.0f} days after the "
            f"group's last worker, {PAYMENTS} are kept for {ours} days: after a longer pause tasks stop and "
            f"ask; set offsets.retention.minutes={INPUT_RETENTION_MS // MINUTE_MS}"
        )


def _said(
    topics: Iterable[TopicSeen], is_wrong: Callable[[TopicSeen], bool], what: str, advice: str
) -> Iterator[str]:
    """One line for our topics, one for each internal one, whose loss means something else."""
    wrong = [one.name for one in topics if is_wrong(one)]
    ours = [name for name in wrong if name not in INTERNAL]
    if ours:
        more = f" and {len(ours) - NAMED} more" if len(ours) > NAMED else ""
        yield f"{', '.join(ours[:NAMED])}{more}: {what}; {advice}"
    for name in wrong:
        if name in INTERNAL:
            yield f"{name}: {what} ({INTERNAL[name][-1]}); {advice}"


def look(settings: Settings) -> ClusterSeen:
    """Ask the cluster.

    Raises:
        KafkaException: it does not answer, or not everything may be asked.
    """
    admin = AdminClient({**settings.client_config(), "log_level": 0}, logger=None)
    metadata = admin.list_topics(timeout=ANSWER_WITHIN_S)
    # the order of the plans: `payments` leads
    names = [settings.topic(plan.name) for plan in PLANS]
    names += sorted(name for name in metadata.topics if _is_changelog(settings, name))
    there = [name for name in [*names, *INTERNAL] if name in metadata.topics]
    node = str(min(metadata.brokers))
    asked = [ConfigResource(ResourceType.TOPIC, name) for name in there]
    of_broker = ConfigResource(ResourceType.BROKER, node)
    answers = admin.describe_configs([*asked, of_broker], request_timeout=ANSWER_WITHIN_S)
    configs = {resource.name: _settings(_result(answers[resource])) for resource in asked}
    topics = [TopicSeen(name, _copies(metadata.topics[name]), configs[name]) for name in there]
    return ClusterSeen(len(metadata.brokers), tuple(topics), _settings(_result(answers[of_broker])))


def _copies(topic: TopicMetadata) -> int:
    return min((len(one.replicas) for one in topic.partitions.values()), default=0)


def _is_changelog(settings: Settings, name: str) -> bool:
    return name.startswith(f"{settings.app_id}-") and name.endswith("-changelog")


def _result(future: Future[T]) -> T:
    return future.result(ANSWER_WITHIN_S)


def _settings(entries: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(entry.value) for name, entry in entries.items()}


def warn(settings: Settings) -> None:
    """Log what is wrong, a line each; no start is refused: what Kafka keeps is handled exactly once."""
    try:
        found = problems(look(settings))
    except (KafkaException, TimeoutError, ValueError) as error:
        logger.info("Kafka's settings for production were not checked: %s", " ".join(str(error).split()))
        return
    for line in found:
        logger.warning("Kafka: %s (docs/operations.md, \"Kafka in production\")", line)
