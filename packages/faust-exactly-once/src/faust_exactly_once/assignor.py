"""Assigning whole tasks: a partition number of every source topic goes to one member."""

import logging
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import orjson
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata
from faust.types.assignor import PartitionAssignorT
from yarl import URL

from .layer import Layer
from .options import Options

logger = logging.getLogger(__name__)

VERSION = 0
PROTOCOL = "exactly-once-tasks"
UNNAMED = "older"  # of a release that did not say yet which one it is
MemberId = str


def share_out(partitions: int, owned: Mapping[MemberId, list[int]]) -> dict[MemberId, list[int]]:
    """Share partition numbers out evenly, leaving as many as possible where they are.

    Args:
        partitions: how many there are.
        owned: what each member says it owns now; a number claimed twice goes to the first by member id.

    Returns:
        per member its sorted numbers; sizes differ by at most one.
    """
    members = sorted(owned)
    low, extra = divmod(partitions, len(members))
    free = set(range(partitions))
    kept: dict[MemberId, list[int]] = {}
    for member in members:
        limit = low + (1 if extra > 0 else 0)
        kept[member] = [p for p in sorted(set(owned[member])) if p in free][:limit]
        extra -= len(kept[member]) > low
        free.difference_update(kept[member])
    for partition in sorted(free):
        smallest = min(members, key=lambda m: (len(kept[m]), m))
        kept[smallest].append(partition)
    return {member: sorted(numbers) for member, numbers in kept.items()}


class TaskAssignor(AbstractPartitionAssignor, PartitionAssignorT):  # type: ignore[misc]
    """The group protocol of the layer.

    A topic that not every member subscribes to stays unassigned until all do: in a rolling deploy that adds
    a source topic no task is ever split over two workers (point 6). Each member learns the web address of
    every partition's owner for the router, and which releases there are. What members and leader say to each
    other may get further fields: a release ignores those that it does not know.
    """

    def __init__(self, app: Any, replicas: int = 0) -> None:
        AbstractPartitionAssignor.__init__(self)
        self.app = app
        self.replicas = replicas
        self._mine: list[int] = []
        self._urls: dict[int, URL] = {}
        self._releases: dict[str, int] = {}
        self.assigned_at_ms: int | None = None
        """When the last assignment came, ms since the epoch; None: there was none yet."""

    @property
    def name(self) -> str:
        """The protocol's name in the group: Kafka refuses members with another one while there are any."""
        number = self._options().group_format
        return PROTOCOL if number == 1 else f"{PROTOCOL}-{number}"

    @property
    def version(self) -> int:
        """The protocol's version."""
        return VERSION

    def metadata(self, topics: Any) -> Any:
        """What this member tells the leader: its subscription, address, tasks owned, release."""
        about = {"url": str(self.app.conf.canonical_url), "owned": self._mine}
        if self._options().release:
            about["release"] = self._options().release
        return ConsumerProtocolMemberMetadata(VERSION, sorted(topics), orjson.dumps(about))

    def assign(self, cluster: Any, member_metadata: Any) -> Any:
        """The leader's part: share out the tasks."""
        topics = _common_topics({m: set(meta.subscription) for m, meta in member_metadata.items()})
        counts = {topic: len(cluster.partitions_for_topic(topic) or ()) for topic in topics}
        usable = sorted(topic for topic, count in counts.items() if count)
        partitions = min((counts[topic] for topic in usable), default=0)
        if len(set(counts.values())) > 1:
            logger.error("source topics differ in partitions: %s; only the common ones are assigned", counts)
        about = {m: orjson.loads(meta.user_data or b"{}") for m, meta in member_metadata.items()}
        shares = share_out(partitions, {m: a.get("owned", []) for m, a in about.items()})
        urls = {str(p): about[m].get("url", "") for m, numbers in shares.items() for p in numbers}
        told = orjson.dumps(
            {"urls": urls, "releases": Counter(a.get("release", UNNAMED) for a in about.values())}
        )
        return {
            member: ConsumerProtocolMemberAssignment(VERSION, [(topic, numbers) for topic in usable], told)
            for member, numbers in shares.items()
        }

    def on_assignment(self, assignment: Any) -> None:
        """Take in what the leader decided."""
        self._mine = sorted({p for _, numbers in assignment.assignment for p in numbers})
        self.assigned_at_ms = int(time.time() * 1000)
        about = orjson.loads(assignment.user_data or b"{}")
        self._urls = {int(p): URL(url) for p, url in about.get("urls", {}).items()}
        self._note_releases(about.get("releases", {}))

    def _note_releases(self, releases: dict[str, int]) -> None:
        """Say which releases there are when that has changed, unless it is, and was, one alone.

        A leader of a release before these words says nothing: then nothing is known, nothing is said.
        """
        before, self._releases = self._releases, releases
        if releases and releases != before and max(len(releases), len(before)) > 1:
            logger.info("releases in the group: %s", _counted(releases.items()))

    def _options(self) -> Options:
        return Layer.of(self.app).options

    def url_of(self, partition: int) -> URL | None:
        """The web address of the worker that owns the partition, as of the last assignment."""
        return self._urls.get(partition)

    # -- the rest of Faust's interface

    def group_for_topic(self, topic: str) -> int:
        """All sources are one group of tasks."""
        return 0

    def assigned_standbys(self) -> set[Any]:
        """None: there are no standby replicas."""
        return set()

    def assigned_actives(self) -> set[Any]:
        """Not used: the layer knows its tasks."""
        return set()

    def is_active(self, tp: Any) -> bool:
        """True if this member owns the partition number."""
        return tp.partition in self._mine

    def is_standby(self, tp: Any) -> bool:
        """False: there are no standby replicas."""
        return False

    def key_store(self, topic: str, key: bytes) -> URL:
        """Not used: `Router` routes."""
        raise NotImplementedError("use app.router")

    def table_metadata(self, topic: str) -> dict[str, Any]:
        """Per address the partitions of the table's topic."""
        found: dict[str, Any] = {}
        for partition, url in sorted(self._urls.items()):
            found.setdefault(str(url), {}).setdefault(topic, []).append(partition)
        return found

    def tables_metadata(self) -> dict[str, Any]:
        """Per address the partitions of each changelog."""
        found: dict[str, Any] = {}
        for topic in self.app.tables.changelog_topics:
            for url, topics in self.table_metadata(topic).items():
                found.setdefault(url, {}).update(topics)
        return found


def _counted(releases: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{one} ({count} worker{'s' * (count != 1)})" for one, count in sorted(releases))


def _common_topics(subscriptions: Mapping[MemberId, set[str]]) -> set[str]:
    every = list(subscriptions.values())
    common = set.intersection(*every) if every else set()
    for topic in sorted(set().union(*every) - common):
        logger.warning("topic %s stays unassigned until every worker subscribes to it", topic)
    return common
