"""What is asked of a real cluster for the checks at the start."""

from __future__ import annotations

import logging

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic
from support.until import until

from broker.clients import fresh_client
from broker.cluster import LocalCluster
from streamsocial_billing.kafka import production_checks as kafka_checks
from streamsocial_billing.settings import PAYMENTS, RESULTS, Settings

RISKY = {"min.insync.replicas": "1"}


def known_to_all(cluster: LocalCluster, topics: set[str]) -> bool:
    """True if every broker has heard of these topics: any of them may be asked."""
    try:
        known = [fresh_client(one.bootstrap).list_topics(timeout=5).topics for one in cluster.brokers]
        return all(topics <= set(one) for one in known)
    except KafkaException:
        return False


def test_a_topic_whose_records_one_broker_may_lose_is_a_warning_line(
    cluster: LocalCluster, topic_prefix: str, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """Three copies of which one is enough for an acknowledgement; one copy only; nothing else is said."""
    monkeypatch.setattr(kafka_checks, "ANSWER_WITHIN_S", 60.0)
    chosen = {"BILLING_BROKER": cluster.url, "BILLING_TOPIC_PREFIX": topic_prefix}
    settings = Settings.from_environment(chosen)
    payments, results = settings.topic(PAYMENTS), settings.topic(RESULTS)
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap, "log_level": 0}, logger=None)
    made = admin.create_topics([NewTopic(payments, 2, 3, config=RISKY), NewTopic(results, 1, 1)])
    for future in made.values():
        future.result(60)
    # each broker hears of a new topic in its own time
    until(lambda: known_to_all(cluster, {payments, results}), "both are known")
    with caplog.at_level(logging.INFO, kafka_checks.__name__):
        kafka_checks.warn(settings)
    lines = [(one.levelname, one.getMessage()) for one in caplog.records]
    assert [
        ("WARNING", f"Kafka: {results}: one copy only"),
        ("WARNING", f"Kafka: {payments}: min.insync.replicas=1"),
    ] == [(level, ":".join(text.split(":")[:3])) for level, text in lines]


def test_a_cluster_that_does_not_answer_holds_up_no_start(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The checks are advice: they say that they could not be made, as information."""
    monkeypatch.setattr(kafka_checks, "ANSWER_WITHIN_S", 0.5)
    settings = Settings.from_environment({"BILLING_BROKER": "kafka://127.0.0.1:1"})
    with caplog.at_level(logging.INFO, kafka_checks.__name__):
        kafka_checks.warn(settings)
    (line,) = caplog.records
    assert ("INFO", True) == (line.levelname, "were not checked" in line.getMessage())
