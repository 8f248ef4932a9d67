"""Makes the app's topics on a real broker, reads them, for tests that run no worker."""

from __future__ import annotations

from pathlib import Path

from confluent_kafka import Message
from confluent_kafka.admin import AdminClient, NewTopic

from faust_exactly_once.cluster import AS_BROKERS
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
        future.result(20)


def committed(settings: Settings, name: str) -> list[Message]:
    """What a read_committed reader sees on one of the app's topics, now."""
    log, topic = CommittedLog(settings), settings.topic(name)
    places = [(topic, partition) for partition in range(log.partitions([topic])[topic])]
    return list(log.read(log.ends(places)))
