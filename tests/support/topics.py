"""Makes the app's topics on a real broker, reads them, for tests that run no worker."""

from __future__ import annotations

from pathlib import Path

from confluent_kafka import Message
from confluent_kafka.admin import AdminClient, NewTopic
from support.until import until

from faust_exactly_once.cluster import AS_BROKERS, Cluster
from faust_exactly_once.facts import LogEnds
from streamsocial_billing.kafka.committed import CommittedLog
from streamsocial_billing.settings import DEAD_LETTERS, METRICS, RESULTS, SOURCES, Settings

ROOT = Path(__file__).resolve().parents[2]


def make_topics(settings: Settings) -> None:
    """Every topic of the app, with the partitions of the settings."""
    names = [settings.topic(name) for name in (*SOURCES, RESULTS, METRICS, DEAD_LETTERS)]
    names += [settings.changelog("payments"), settings.changelog("charges")]
    admin = AdminClient(settings.client_config())
    topics = [NewTopic(name, settings.partitions, settings.replication or AS_BROKERS) for name in names]
    for future in admin.create_topics(topics).values():
        future.result(60)


def committed(settings: Settings, name: str) -> list[Message]:
    """What a read_committed reader sees on one of the app's topics once no transaction is open on it.

    An open one hides what others commit behind it.
    """
    wait_settled(settings, settings.topic(name))
    return committed_now(settings, name)


def wait_settled(settings: Settings, *topics: str) -> None:
    """Return once no transaction is open on these topics: committed records are all to be seen.

    Kafka answers a commit before its end is in each log; it aborts what a killed producer left open after
    that one's time-out.
    """
    cluster = Cluster(settings.client_config(), 60)
    counts = CommittedLog(settings).partitions(topics)
    places = [(topic, number) for topic in topics for number in range(counts[topic])]

    def is_settled() -> bool:
        return not any(hidden(one) for one in cluster.log_ends(places).values())

    until(is_settled, f"no transaction is open on {', '.join(topics)}", within_s=60)


def committed_now(settings: Settings, name: str) -> list[Message]:
    """What a read_committed reader sees on one of the app's topics now, up to an open transaction."""
    log, topic = CommittedLog(settings), settings.topic(name)
    places = [(topic, partition) for partition in range(log.partitions([topic])[topic])]
    return list(log.read(log.ends(places)))


def hidden(ends: LogEnds) -> int:
    """How many offsets an open transaction hides."""
    return ends.high - ends.stable
