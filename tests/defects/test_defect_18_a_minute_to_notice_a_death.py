"""Defect 18: with Faust's default settings the group takes a minute to notice that a worker was killed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import faust
from confluent_kafka.admin import AdminClient
from defects.kit import Bench, Trouble, both_layers

import faust_exactly_once as exactly_once

MOST_S = 40.0
"""The layer's default is 10 s, Faust's 60; a machine that does much else asks late."""


def defaults(layer: str) -> dict[str, Any]:
    """The settings that say how a member shows that it lives, where nobody chose them."""
    ours = exactly_once.settings(["kafka://127.0.0.1:1"])
    conf = faust.App("defaults", **ours if layer == "ours" else {}).conf
    return {name: getattr(conf, name) for name in ("broker_session_timeout", "broker_heartbeat_interval")}


def members(client: AdminClient, group: str) -> int:
    """How many members the group believes it has."""
    return len(client.describe_consumer_groups([group])[group].result(60).members)


@both_layers("broker_session_timeout is 60 s")
def test_defect_18_a_killed_worker_is_missed_before_a_minute(
    broker: str, tmp_path: Path, unique_name: str, layer: str
) -> None:
    """With default settings the group misses a killed worker after some ten seconds, not after a minute."""
    with Bench(broker, tmp_path, unique_name, layer, "forward", **defaults(layer)) as bench:
        client = AdminClient({"bootstrap.servers": broker})
        bench.start().kill()
        if members(client, unique_name) != 1:
            raise Trouble("the killed worker was no member")
        deadline = time.monotonic() + MOST_S
        while members(client, unique_name) and time.monotonic() < deadline:
            time.sleep(0.2)  # the group tells nobody: one can only ask
        assert 0 == members(client, unique_name)
