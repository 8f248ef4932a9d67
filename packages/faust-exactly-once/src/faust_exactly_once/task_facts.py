"""What Kafka says of a task that opens: asked for until it is a fact."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from .answers import pauses
from .assigned_task import AssignedTask
from .cluster import Cluster
from .environment import Deadline
from .errors import KafkaUnavailable, OffsetsMissing
from .facts import TP, LogEnds, TopicFacts
from .offset_metadata import changelog_tag, is_of_offset, read_reached, read_sources
from .options import Options
from .recovery import Recovery, start_offsets
from .stable_ends import wait_stable


class Logs(NamedTuple):
    """The partitions that a task reads."""

    sources: Sequence[TP]
    changelogs: Sequence[TP]


class Found(NamedTuple):
    """What Kafka says of a task.

    Attributes:
        ends: of its sources and changelogs.
        starts: where its sources go on.
        ever_read: the sources that it has ever read, empty if that is not on record.
        on_record: each source has a committed offset, and the sources stand in the offsets' metadata.
        stale: the offsets are not those of the last commit.
    """

    ends: Mapping[TP, LogEnds]
    starts: dict[TP, int]
    ever_read: frozenset[str]
    on_record: bool
    stale: bool


class TaskFacts:
    """Asks for a task's offsets, for the ends of its logs; blocking, for use in a thread after the fence.

    `topics` is what is known of each topic.
    """

    def __init__(
        self, app: Any, options: Options, cluster: Cluster, topics: Mapping[str, TopicFacts]
    ) -> None:
        self.topics = topics
        self._app = app  # its configuration is not known yet
        self._options = options
        self._cluster = cluster
        self._clock = options.environment.clock

    def confirmed(
        self, assigned: AssignedTask, logs: Logs, say: Callable[[str], None]
    ) -> Found:
        """What Kafka says; that offsets are missing is believed once it has said so for 5 s.

        A leader or coordinator of just now may know less than the one before it; only a fact may stop a task
        for an operator.
        """
        confirmed, said = Deadline(self._clock, self._options.confirm_s), False
        for pause in pauses():
            late = assigned.revoked or confirmed.left_s() < 0
            try:
                found = self._read(assigned, logs, say)
                if not found.stale or late:
                    return found
                why = ": the changelogs are ahead of the committed offsets"
            except OffsetsMissing as exc:
                if late:
                    raise
                why = f" before the task stops: {exc}"
            if not said:
                say(f"asking Kafka again{why}")
            said = True
            self._cluster.start_afresh()
            self._clock.sleep(pause)
        raise AssertionError("pauses never end")

    def _read(self, assigned: AssignedTask, logs: Logs, say: Callable[[str], None]) -> Found:
        """What Kafka says now; raises OffsetsMissing."""
        sources, changelogs, recovery = logs.sources, logs.changelogs, assigned.recovery
        assert recovery is not None  # noqa: S101 - for the type checker: the caller made it
        offsets = self._cluster.committed_with_metadata(self._app.conf.id, sources)
        self._options.probe("after_offsets")
        committed = {tp: None if at is None else at[0] for tp, at in offsets.items()}
        ends = wait_stable(self._cluster, changelogs, say, also=sources, clock=self._clock)
        self._options.probe("after_log_ends")
        reached = self._reached(changelogs, offsets)
        self._refuse_a_lagging_leader(changelogs, ends, reached)
        # a first commit that was aborted leaves its aborted records behind, no offset: that is no content
        new = set(committed.values()) == {None}
        empty = new and not recovery.holds_records({log: ends[log] for log in changelogs})
        ever_read = read_sources(at[1] for at in offsets.values() if at is not None)
        starts = start_offsets({tp: ends[tp] for tp in sources}, committed, empty, ever_read)
        stale = self._are_stale(recovery, offsets, ends, reached)
        on_record = bool(ever_read) and None not in committed.values()
        return Found(ends, starts, ever_read, on_record, stale)

    def _reached(
        self, changelogs: Sequence[TP], offsets: Mapping[TP, tuple[int, str] | None]
    ) -> dict[TP, int]:
        """How far each changelog must reach, by the metadata of the offsets."""
        found = read_reached(at[1] for at in offsets.values() if at is not None)
        return {log: found[tag] for log in changelogs if (tag := self.tag(log[0])) in found}

    def _refuse_a_lagging_leader(
        self, changelogs: Sequence[TP], ends: Mapping[TP, LogEnds], reached: Mapping[TP, int]
    ) -> None:
        """A leader that is cut off from its peers goes on answering, without what its successor took.

        Raises:
            KafkaUnavailable: a changelog ends before what the task's last commit on record had in it.
        """
        for log in changelogs:
            at, end = reached.get(log, 0), ends[log].stable
            if end < at:
                self._cluster.start_afresh()
                raise KafkaUnavailable(
                    f"changelog {log[0]}-{log[1]} ends at {end}, but {at} was committed: its leader lags "
                    "or its records are lost; to go on without them choose the task's offsets anew with "
                    "kafka-consumer-groups --reset-offsets"
                )

    def _are_stale(
        self, recovery: Recovery, offsets: Mapping[TP, tuple[int, str] | None], ends: Mapping[TP, LogEnds],
        reached: Mapping[TP, int],
    ) -> bool:  # fmt: skip
        """True if a changelog has committed records behind those of the commit that the offsets are of.

        Offsets and changelog records commit together: these offsets came from a coordinator that lags.
        Not known where an offset is an operator's, or of a release that does not write how far they reach.
        """
        known = all(at is None or is_of_offset(at[1], tp[0], at[0]) for tp, at in offsets.items())
        # the one offset behind the last record is the marker of its own transaction
        beyond = {
            log: LogEnds(max(at, ends[log].start), ends[log].stable, ends[log].high)
            for log, at in reached.items() if ends[log].stable > at + 1
        }  # fmt: skip
        return known and bool(beyond) and recovery.holds_records(beyond)

    def tag(self, changelog: str) -> str:
        return changelog_tag(changelog, self.topics[changelog].topic_id)
