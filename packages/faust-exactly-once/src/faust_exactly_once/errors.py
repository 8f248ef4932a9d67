"""The layer's errors, each named by what its catcher does."""


class ExactlyOnceError(Exception):
    """Base of everything that this layer raises."""


class SetupRefused(ExactlyOnceError):
    """Raised when the app or the cluster is set up in a way that cannot be exactly once; the start stops."""


class NoUnit(ExactlyOnceError):
    """Raised when something is sent or written outside a handler: it would not be in any transaction."""


class ForeignKey(ExactlyOnceError):
    """Raised when a handler touches a table key that its event's message key does not own."""


class RecordTooLarge(ExactlyOnceError):
    """Raised by `send` when the topic would refuse the record; the handler may dead-letter it instead."""


class TransactionAborted(ExactlyOnceError):
    """Raised when a transaction was surely aborted: the catcher sends the same commit batch again."""


class RecordRefused(TransactionAborted):
    """Raised when the broker refuses a record for good; the transaction is aborted, the record is named."""


class TopicUnknown(TransactionAborted):
    """Raised when a broker does not know a record's topic, so far: the catcher sends the units again."""


class TaskFenced(ExactlyOnceError):
    """Raised when another producer took the transactional id: the catcher drops its units, then reopens."""


class MembershipLost(ExactlyOnceError):
    """Raised when the group no longer knows this member or generation: the catcher drops its units."""


class OutcomeUnknown(ExactlyOnceError):
    """Raised when a commit may or may not have happened: the catcher reopens, then the offset decides."""


class KafkaUnavailable(ExactlyOnceError):
    """Raised when the broker did not answer in time: the catcher waits, then tries again."""


class FetchFailed(ExactlyOnceError):
    """Raised when a source partition cannot be read on: its task reopens, naming offset and error."""


class StoreFailed(ExactlyOnceError):
    """Raised when RocksDB refuses a write after the Kafka commit: the catcher recovers the task."""


class StoreInUse(ExactlyOnceError):
    """Raised when another process holds the database: the catcher waits, nothing is deleted."""


class OffsetsMissing(ExactlyOnceError):
    """Raised when no committed offset can be trusted: the task stops until an operator chooses."""
