"""What Kafka's answers mean: after which a question is put again, which are facts.

One cluster gives different answers: metadata differ from broker to broker, leaders and coordinators move, a
broker of the list may be dead from the beginning.
"""

import itertools
import time
from collections.abc import Callable, Iterator
from typing import Final, TypeVar

from confluent_kafka import KafkaError

from .environment import Clock
from .errors import KafkaUnavailable

T = TypeVar("T")

START_S: Final = 30.0
"""How long the start of a worker asks again before it gives up: a broker may be restarting."""
CONFIRM_S: Final = 5.0
"""How long an answer must stay so before it blocks a task for an operator, or has a database rebuilt."""
UNKNOWN_TOPIC_S: Final = 10.0
"""How long a topic that is known to exist may be unknown to a broker before it counts as deleted."""
SAY_EVERY_S: Final = 5.0
"""How often a line says that a question is put again."""
PAUSES_S: Final = (0.05, 0.1, 0.2, 0.5, 1.0)
"""The pauses before a question is put again; the last one from then on."""


_KE = KafkaError
TRANSIENT: Final = frozenset({
    _KE._NOENT,  # noqa: SLF001 - librdkafka's public names for its local errors; "no leaders found"
    _KE._TIMED_OUT,  # noqa: SLF001
    _KE._TIMED_OUT_QUEUE,  # noqa: SLF001
    _KE._MSG_TIMED_OUT,  # noqa: SLF001
    _KE._TRANSPORT,  # noqa: SLF001
    _KE._RESOLVE,  # noqa: SLF001
    _KE._ALL_BROKERS_DOWN,  # noqa: SLF001
    _KE._WAIT_COORD,  # noqa: SLF001
    _KE._WAIT_CACHE,  # noqa: SLF001
    _KE._NODE_UPDATE,  # noqa: SLF001
    _KE._UNKNOWN_BROKER,  # noqa: SLF001
    _KE._DESTROY_BROKER,  # noqa: SLF001
    _KE._RETRY,  # noqa: SLF001
    _KE._IN_PROGRESS,  # noqa: SLF001
    _KE._PARTIAL,  # noqa: SLF001
    _KE.COORDINATOR_NOT_AVAILABLE,
    _KE.COORDINATOR_LOAD_IN_PROGRESS,
    _KE.NOT_COORDINATOR,
    _KE.LEADER_NOT_AVAILABLE,
    _KE.NOT_LEADER_FOR_PARTITION,
    _KE.REPLICA_NOT_AVAILABLE,
    _KE.BROKER_NOT_AVAILABLE,
    _KE.FENCED_LEADER_EPOCH,
    _KE.UNKNOWN_LEADER_EPOCH,
    _KE.OFFSET_NOT_AVAILABLE,  # a new leader whose high watermark is not yet that of its predecessor
    _KE.UNSTABLE_OFFSET_COMMIT,
    _KE.REQUEST_TIMED_OUT,
    _KE.NETWORK_EXCEPTION,
    _KE.NOT_CONTROLLER,
    _KE.NOT_ENOUGH_REPLICAS,
    _KE.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
    _KE.CONCURRENT_TRANSACTIONS,
    _KE.STALE_BROKER_EPOCH,
    _KE.KAFKA_STORAGE_ERROR,  # the disk of one replica: another one takes over
    _KE.THROTTLING_QUOTA_EXCEEDED,
    _KE.REBOOTSTRAP_REQUIRED,
})  # fmt: skip
"""Errors that pass by themselves, whatever the question was."""

UNKNOWN_TOPIC: Final = frozenset({
    _KE.UNKNOWN_TOPIC_OR_PART,
    _KE.UNKNOWN_TOPIC_ID,
    _KE.INCONSISTENT_TOPIC_ID,
    _KE._UNKNOWN_TOPIC,  # noqa: SLF001
    _KE._UNKNOWN_PARTITION,  # noqa: SLF001
})  # fmt: skip
"""The broker that was asked does not know the topic: deleted, never made, or not heard of yet."""


def is_transient(error: KafkaError) -> bool:
    """True for an error after which the question is put again, whatever it was."""
    return error.code() in TRANSIENT or bool(error.retriable())


def unknown_topic(error: KafkaError) -> bool:
    """True if the broker that was asked does not know the topic.

    A fact only where the topic is not known to exist, or has been unknown for `UNKNOWN_TOPIC_S`.
    """
    return error.code() in UNKNOWN_TOPIC


def is_offset(offset: int | None) -> bool:
    """False for what librdkafka gives where it has no offset (-1001, -1): that is never a fact."""
    return offset is not None and offset >= 0


def pauses() -> Iterator[float]:
    """Seconds to wait before each further try, for ever."""
    return itertools.chain(PAUSES_S, itertools.repeat(PAUSES_S[-1]))


def ask_again(
    question: Callable[[], T], within_s: float, say: Callable[[str], None] | None = None, clock: Clock = time
) -> T:
    """The answer; asked again while the question raises KafkaUnavailable.

    Args:
        question: one try, bounded by itself.
        within_s: after so many seconds no further try is begun.
        say: called with why there is no answer, at the second try in vain and every 5 s from then on.
        clock: what the pauses go by.

    Raises:
        KafkaUnavailable: of the last try.
    """
    began = clock.monotonic()
    said_at: float | None = None
    for tries, pause in enumerate(pauses(), start=1):
        try:
            return question()
        except KafkaUnavailable as exc:
            now = clock.monotonic()
            if now + pause > began + within_s:
                raise
            if say is not None and tries > 1 and (said_at is None or now >= said_at + SAY_EVERY_S):
                said_at = now
                left_s = began + within_s - now
                say(f"no answer from Kafka yet ({exc}): asking again for up to {left_s:.0f} s")
        clock.sleep(pause)
    raise AssertionError("pauses never end")
