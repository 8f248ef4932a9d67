"""Watches the partition counts of the sources: with another one nothing more is handled."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Any

from aiokafka.client import ConnectionGroup
from aiokafka.errors import KafkaError, NodeNotReadyError, for_code
from aiokafka.protocol.metadata import MetadataRequest

from .brokers import BrokerWatch
from .counts import reason
from .errors import SetupRefused
from .layer import Layer

logger = logging.getLogger(f"{__package__}.transport")  # the name under which operators know these lines

COUNT_EVERY_S = 1.0  # how often the partition counts are asked for while there is nothing to handle
COUNT_CONFIRM_S = 5.0  # so long every answer has another count before it is believed: a broker may be behind
RETRY_S = 0.2


class PartitionCounts:
    """Asks for the sources' partition counts; lives in the loop of the consumer's thread.

    `check_health` is called while there is no answer.
    """

    def __init__(
        self, app: Any, consumer: Any, brokers: BrokerWatch, check_health: Callable[[], None]
    ) -> None:
        self._app = app
        self._consumer = consumer
        self._brokers = brokers
        self._check_health = check_health
        self._counted_at = 0.0

    async def watch(self, *, now: bool) -> None:
        """Ask for the counts: after each fetch that brought events, else every second.

        What was sent under a grown count can only be fetched after the growth: the broker, asked after the
        fetch, knows of it before any such event is handled. While it does not answer, or does not know a
        topic yet, they wait; so they do until another count is sure.

        Raises:
            SetupRefused: a count has changed: each answer within 5 s says so.
        """
        clock = asyncio.get_running_loop().time
        if not now and self._counted_at + COUNT_EVERY_S > clock():
            return
        differs_since: float | None = None
        while True:
            try:
                counts = await self.ask()
            except KafkaError as exc:
                _say_uncounted(exc)
                self._check_health()
                await asyncio.sleep(RETRY_S)
                continue
            now_s = clock()
            try:
                Layer.of(self._app).check_partitions(counts)
            except SetupRefused:
                differs_since = now_s if differs_since is None else differs_since
                if now_s - differs_since >= COUNT_CONFIRM_S:
                    raise
                await asyncio.sleep(RETRY_S)
                continue
            self._counted_at = now_s
            return

    async def ask(self) -> dict[str, int]:
        """The sources' partition counts as the group's coordinator knows them now.

        Not over the connection for fetching: there the answer would wait behind a long poll.

        Raises:
            KafkaError: it does not answer, or does not know each topic (yet).
        """
        node, topics = self._consumer._coordinator.coordinator_id, sorted(self._consumer.subscription())
        if node is None:
            raise NodeNotReadyError("the group's coordinator is not known")
        request = MetadataRequest(topics, allow_auto_topic_creation=False)
        answer = await self._consumer._client.send(node, request, group=ConnectionGroup.COORDINATION)
        self._brokers.heard(answer.brokers, answer.topics)
        return counts_of(answer.topics, topics)


def _say_uncounted(exc: KafkaError) -> None:
    """One line a minute, whatever the errors are: a coordinator that moves has several."""
    logger.info(
        "the partition counts are not known: nothing is handled until the group's coordinator says them",
        extra={"fold": True, "error": reason(exc)},
    )


def counts_of(topics: Iterable[Any], wanted: Iterable[str]) -> dict[str, int]:
    """Partition counts in a metadata answer.

    Raises:
        KafkaError: the broker does not know one of the wanted topics, or says nothing of it.
    """
    found: dict[str, int] = {}
    for error, topic, _, partitions in topics:
        if error:
            raise for_code(error)(f"the group's coordinator has no metadata of topic {topic} yet")
        found[topic] = len(partitions)
    missing = sorted(set(wanted) - found.keys())
    if missing:
        raise NodeNotReadyError(f"the group's coordinator says nothing of the topics {missing}")
    return found
