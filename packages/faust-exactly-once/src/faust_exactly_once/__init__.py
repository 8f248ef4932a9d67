"""Exactly once for Faust: units of work that commit with their source offsets, or not at all.

    import faust_exactly_once as exactly_once

    app = faust.App("counting", **exactly_once.settings(["kafka://127.0.0.1:9092"]))
    exactly_once.install(app, exactly_once.Options(client_config={"bootstrap.servers": "127.0.0.1:9092"}))
    words = exactly_once.batched(app.topic("words"))

    @app.agent(words)
    async def count(stream):
        async for batch in stream:
            await batch.each(count_one)

Public is what `__all__` names; every module below is internal, and may change with any release. "Point
9a" and the like in the code are points of the contract: docs/contract.md.
"""

from collections.abc import Iterable
from typing import Any

from .answers import is_offset
from .batch import Batch
from .cluster import AS_BROKERS, Cluster
from .counters import read as read_counters
from .counters_table import Counters, counters
from .database import read_database
from .errors import (
    ExactlyOnceError,
    ForeignKey,
    KafkaUnavailable,
    NoUnit,
    RecordTooLarge,
    SetupRefused,
    StoreFailed,
)
from .facts import TopicFacts
from .layer import Layer
from .metrics import CONTENT_TYPE, Metrics
from .options import SCHEME, Options
from .router import HOP_HEADER, NOT_PASSED_BACK, Passed, Router, partition_of
from .start import before_start, prepare
from .table import Table, raws
from .task_stores import View
from .topic import Topic, batched, output
from .triggers import Nudger, TriggerWriter
from .units import Event, Unit, current_unit, find_unit
from .web_port import take_port
from .worker import Worker
from .worker_folder import folder_of_its_own

__version__ = "0.1.0"
__all__ = [
    "AS_BROKERS", "CONTENT_TYPE", "HOP_HEADER", "NOT_PASSED_BACK",
    "Batch", "Cluster", "Counters", "Event", "ExactlyOnceError", "ForeignKey", "KafkaUnavailable", "Layer",
    "Metrics", "NoUnit", "Nudger", "Options", "Passed", "RecordTooLarge", "Router", "SetupRefused",
    "StoreFailed", "Table", "Topic", "TopicFacts", "TriggerWriter", "Unit", "View", "Worker",
    "batched", "before_start", "counters", "current_unit", "find_unit", "folder_of_its_own", "install",
    "is_offset", "output", "partition_of", "prepare", "raws", "read_counters", "read_database", "settings",
    "take_port",
]  # fmt: skip


def settings(brokers: Iterable[str], *, session_timeout_s: float = 10.0) -> dict[str, Any]:
    """The Faust settings that put an app on this layer.

    Args:
        brokers: `kafka://host:port` of one or more brokers.
        session_timeout_s: after so many seconds without a heartbeat a worker's tasks go to others.
    """
    here = __name__
    return {
        "broker": [url.replace("kafka://", f"{SCHEME}://", 1) for url in brokers],
        "store": f"{SCHEME}://",
        "processing_guarantee": "exactly_once",
        "topic_disable_leader": True,
        "topic_allow_declare": False,
        "table_standby_replicas": 0,
        "stream_wait_empty": True,
        "broker_session_timeout": session_timeout_s,
        "broker_heartbeat_interval": min(3.0, session_timeout_s / 4),
        "broker_request_timeout": max(30.0, session_timeout_s * 2),
        "broker_rebalance_timeout": 30.0,
        "Agent": f"{here}.agent:Agent",
        "Stream": f"{here}.stream:Stream",
        "Table": f"{here}.table:Table",
        "TableManager": f"{here}.table_manager:TableManager",
        "Topic": f"{here}.topic:Topic",
        "PartitionAssignor": f"{here}.assignor:TaskAssignor",
        "Router": f"{here}.router:Router",
        "Worker": f"{here}.worker:Worker",
    }


def install(app: Any, options: Options) -> Layer:
    """Put the layer under an app, right after making it.

    Args:
        app: the Faust app, made with `settings`.
        options: bounds and client settings.
    """
    return Layer(app, options)
