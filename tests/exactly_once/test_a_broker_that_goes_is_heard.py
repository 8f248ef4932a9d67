"""What a task's producer hears of a real broker that is killed, and does then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from broker import LocalBroker
from faust_exactly_once.errors import OutcomeUnknown
from faust_exactly_once.options import Options
from faust_exactly_once.producer import ConfluentProducer
from faust_exactly_once.units import Outgoing


def test_a_broker_that_is_killed_after_a_commit_is_heard_though_nothing_was_under_way(tmp_path: Path) -> None:
    """Its markers may be missing, so nothing more is begun; librdkafka says it of idle connections, too."""
    with LocalBroker(tmp_path / "kafka", port=0) as own:
        config: dict[str, Any] = {"bootstrap.servers": own.bootstrap}
        admin = AdminClient(config)
        admin.create_topics([NewTopic("results", 1, 1)])["results"].result(60)
        producer = ConfluentProducer(Options(client_config=config), "task-0")
        producer.init_transactions()
        for _ in range(2):  # one after the other, while the broker lives
            producer.begin_transaction()
            producer.send([Outgoing("results", b"key", b"value", None)])
            producer.confirm()
            producer.commit_transaction()
        own.kill()
        own.start()
        with pytest.raises(OutcomeUnknown, match="its end may not be everywhere"):
            producer.begin_transaction()
