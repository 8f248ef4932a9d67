"""Bringing a task's databases to the last stable offset of their changelogs."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaError, TopicPartition

from .answers import is_transient
from .database import NO_STATE, Identity, PartitionStore
from .errors import KafkaUnavailable, OffsetsMissing
from .facts import TP, LogEnds, TopicFacts
from .options import Options

logger = logging.getLogger(__name__)

CHUNK = 5000  # records applied per WriteBatch
PROGRESS_EVERY_S = 2.0  # a recovery that takes longer says how far it is
STALL_S = 30.0
TOMBSTONE_MARGIN = 0.9  # of delete.retention.ms: clocks and compaction are not exact
DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Plan:
    """One changelog to read: its database, what it must be a prefix of, where it ends."""

    table: str
    changelog: TP
    store: PartitionStore
    identity: Identity
    ends: LogEnds
    tombstones_kept_ms: int


def plan(
    table: str, changelog: TP, store: PartitionStore, cluster_id: str, facts: TopicFacts, ends: LogEnds
) -> Plan:
    """What is to be read for one table."""
    identity = Identity(cluster_id, facts.topic_id, changelog[1])
    kept = int(facts.config.get("delete.retention.ms", DAY_MS))
    return Plan(table, changelog, store, identity, ends, kept)


def why_not_a_prefix(item: Plan, now_ms: int) -> str | None:
    """Why the local content cannot be proven a prefix of the changelog (point 4), or None."""
    identity, reached = item.store.identity, item.store.reached
    if identity is None:
        return NO_STATE
    if identity.format != item.identity.format:
        return f"format {identity.format}, this release writes {item.identity.format}"
    if identity.cluster_id != item.identity.cluster_id:
        return f"it belongs to cluster {identity.cluster_id}"
    if (identity.topic_id, identity.partition) != (item.identity.topic_id, item.identity.partition):
        return "the changelog topic was created anew"
    if reached.position > item.ends.stable:
        return f"it reaches offset {reached.position}, the changelog ends at {item.ends.stable}"
    if reached.position == item.ends.stable:
        return None
    if reached.position < item.ends.start:
        return f"it reaches offset {reached.position}, the changelog starts at {item.ends.start}"
    age_ms = now_ms - reached.at_ms
    if age_ms > item.tombstones_kept_ms * TOMBSTONE_MARGIN:
        return f"its last top-up is {age_ms // 1000} s old: deletions may be compacted away"
    return None


def contradicts(item: Plan) -> bool:
    """True if the log, by its ends, cannot be the one of which the database is a prefix, though it is."""
    reached = item.store.reached.position
    return item.store.identity == item.identity and not item.ends.start <= reached <= item.ends.stable


class Recovery:
    """Tops up the databases of one task; blocking, for use in a thread."""

    def __init__(self, options: Options, say: Callable[[str], None]) -> None:
        self._options = options
        self._environment = options.environment
        self._clock = options.environment.clock
        self._say = say
        self.done = 0
        self.total = 0

    def run(self, plans: list[Plan], cancelled: Callable[[], bool]) -> None:
        """Read each changelog from where its database ends to the last stable offset.

        Raises:
            KafkaUnavailable: no progress for 30 s.
        """
        for item in plans:
            self._prepare(item)
        behind = [item for item in plans if item.store.reached.position < item.ends.stable]
        self.total = sum(item.ends.stable - item.store.reached.position for item in behind)
        if behind:
            self._read(behind, cancelled)

    def holds_records(self, changelogs: Mapping[TP, LogEnds]) -> bool:
        """True if a changelog holds a committed record; markers, aborted records are as good as nothing.

        Raises:
            KafkaUnavailable: not read to the end within 30 s.
        """
        left = {log for log, ends in changelogs.items() if ends.start < ends.stable}
        reader = self._environment.clients.consumer(self._reader_config())
        try:
            reader.assign([TopicPartition(*log, changelogs[log].start) for log in left])
            deadline = self._clock.monotonic() + STALL_S
            while left:
                message = reader.poll(0.2)
                error = None if message is None else message.error()
                if message is not None and error is None:
                    return True
                if message is not None and error and error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001
                    log = message.topic() or "", message.partition() or 0
                    if (message.offset() or 0) >= changelogs[log].stable:  # else of a leader that lags
                        left.discard(log)
                elif self._clock.monotonic() > deadline:
                    raise KafkaUnavailable(f"{sorted(left)} was not read to its end in {STALL_S:.0f} s")
        finally:
            reader.close()
        return False

    def _prepare(self, item: Plan) -> None:
        reason = why_not_a_prefix(item, int(self._clock.time() * 1000))
        if reason is not None:
            if reason != NO_STATE:
                self._say(f"table {item.table} partition {item.changelog[1]} is rebuilt from empty: {reason}")
            item.store.wipe()
            item.store.adopt(item.identity)

    def _read(self, behind: list[Plan], cancelled: Callable[[], bool]) -> None:
        by_topic = {item.changelog[0]: item for item in behind}
        reader = self._environment.clients.consumer(self._reader_config())
        try:
            reader.assign([TopicPartition(*item.changelog, _first_offset(item)) for item in behind])
            last_progress = said_at = self._clock.monotonic()
            while by_topic and not cancelled():
                if self._apply(reader.consume(CHUNK, 0.02), by_topic):
                    last_progress = self._clock.monotonic()
                    self._options.probe("during_recovery")
                    if last_progress - said_at >= PROGRESS_EVERY_S:
                        said_at = last_progress
                        self._log_progress(behind[0].changelog[1])
                elif self._clock.monotonic() - last_progress > STALL_S:
                    raise KafkaUnavailable(f"no changelog record of {sorted(by_topic)} for {STALL_S:.0f} s")
        finally:
            reader.close()

    def _log_progress(self, partition: int) -> None:
        share = 100 * self.done // max(1, self.total)
        logger.info("task %d recovers: %d of %d records, %d %%", partition, self.done, self.total, share)

    def _apply(self, messages: list[Any], by_topic: dict[str, Plan]) -> bool:
        """Apply one fetch; topics that have reached their end are taken off. True if there was progress."""
        changes: dict[str, dict[bytes, bytes | None]] = {}
        position: dict[str, int] = {}
        for message in messages:
            error = message.error()
            if error is None:
                changes.setdefault(message.topic(), {})[message.key()] = message.value()
                position[message.topic()] = message.offset() + 1
            elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001
                position[message.topic()] = message.offset()
            elif not is_transient(error):
                raise KafkaUnavailable(f"changelog {message.topic()}: {error.str()}")
        for topic, reached in position.items():
            item = by_topic.get(topic)
            if item is None:
                continue
            self.done += reached - item.store.reached.position
            write = item.store.apply if reached >= item.ends.stable else item.store.top_up
            write(changes.get(topic, {}), max(reached, item.store.reached.position))
            if reached >= item.ends.stable:
                del by_topic[topic]
        return bool(position)

    def _reader_config(self) -> dict[str, Any]:
        return {
            **self._options.client_config,
            "group.id": "changelog-reader",  # never joined: partitions are assigned by hand
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "error",
            "fetch.wait.max.ms": 20,
            "fetch.error.backoff.ms": 20,
            "queued.max.messages.kbytes": 8192,  # per task; librdkafka would hold 64 MiB for each of many
            "log_level": 2,
        }


def _first_offset(item: Plan) -> int:
    return max(item.store.reached.position, item.ends.start)


def start_offsets(
    sources: Mapping[TP, LogEnds], committed: Mapping[TP, int | None], changelog_empty: bool,
    ever_read: frozenset[str] = frozenset(),
) -> dict[TP, int]:  # fmt: skip
    """Where a task's sources continue (point 7): the committed offsets, or the very beginning.

    Args:
        ever_read: the sources that the task is known to have read; empty if that is not on record.

    Raises:
        OffsetsMissing: an offset is gone although the task has state, or points below the log's start.
    """
    nothing_known = all(offset is None for offset in committed.values())
    starts: dict[TP, int] = {}
    for tp, ends in sources.items():
        offset = committed.get(tp)
        if offset is None:
            if nothing_known and not changelog_empty:
                raise OffsetsMissing(
                    f"no committed offset for {tp[0]}-{tp[1]} although its tables have content (group "
                    "offsets expire): set them with kafka-consumer-groups --reset-offsets, then restart"
                )
            if not nothing_known and ends.high > 0 and (not ever_read or tp[0] in ever_read):
                raise OffsetsMissing(_not_new(tp, tp[0] in ever_read))
            starts[tp] = ends.start
        elif offset < ends.start or offset > ends.high:
            raise OffsetsMissing(
                f"the committed offset {offset} of {tp[0]}-{tp[1]} is outside its log "
                f"{ends.start}..{ends.high}: records were deleted before they were handled; "
                "choose where to go on with kafka-consumer-groups --reset-offsets"
            )
        else:
            starts[tp] = offset
    return starts


def _not_new(tp: TP, known: bool) -> str:
    why = "was read before" if known else "may have been read before: its task's other offsets do not say"
    return (
        f"no committed offset for {tp[0]}-{tp[1]}, while other sources of its task have one; {tp[0]} {why}. "
        "Stop all workers, choose where to go on with kafka-consumer-groups --reset-offsets, then restart"
    )
