"""librdkafka's errors, mapped to what the catcher does."""

from confluent_kafka import KafkaError, KafkaException

from .errors import ExactlyOnceError, MembershipLost, OutcomeUnknown, TaskFenced

FENCED = frozenset({
    KafkaError._FENCED,  # noqa: SLF001 - librdkafka's public names for its local errors
    KafkaError.PRODUCER_FENCED,
    KafkaError.INVALID_PRODUCER_EPOCH,
    KafkaError.TRANSACTION_COORDINATOR_FENCED,
    KafkaError.INVALID_PRODUCER_ID_MAPPING,
    KafkaError.UNKNOWN_PRODUCER_ID,
})  # fmt: skip

MEMBERSHIP = frozenset({
    KafkaError.ILLEGAL_GENERATION, KafkaError.UNKNOWN_MEMBER_ID, KafkaError.FENCED_INSTANCE_ID,
})  # fmt: skip

REFUSED = frozenset({
    KafkaError.MSG_SIZE_TOO_LARGE,
    KafkaError.RECORD_LIST_TOO_LARGE,
    KafkaError.INVALID_TIMESTAMP,
    KafkaError.INVALID_RECORD,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
})  # fmt: skip


def fatal_error(exc: BaseException) -> KafkaException:
    """The fatal error that confluent-kafka raised in a delivery callback, there disguised as SystemError.

    A further callback may hide it altogether ("returned NULL without setting an exception"): then it has no
    cause, yet the producer is just as dead.
    """
    if isinstance(exc, KafkaException):
        return exc
    if isinstance(exc.__cause__, KafkaException):
        return exc.__cause__
    return KafkaException(KafkaError(KafkaError._FATAL, f"in a delivery callback: {exc}", True))  # noqa: SLF001


def mapped(exc: KafkaException, otherwise: type[ExactlyOnceError]) -> ExactlyOnceError:
    """The layer's error for a librdkafka error: fenced, membership lost, or `otherwise`."""
    error = exc.args[0]
    text = f"{error.name()}: {error.str()}"
    if error.code() in FENCED:
        return TaskFenced(text)
    if error.code() in MEMBERSHIP:
        return MembershipLost(text)
    if error.fatal():
        return OutcomeUnknown(text)
    return otherwise(text)
