"""What of an app's declarations could not be exactly once."""

from typing import Any

from .agent import Agent
from .assignor import TaskAssignor
from .errors import SetupRefused
from .options import SCHEME
from .router import Router
from .stream import Stream
from .table import Table
from .table_manager import TableManager
from .topic import Topic

OWN_CLASSES = {
    "Agent": Agent, "Stream": Stream, "Topic": Topic, "Table": Table, "TableManager": TableManager,
    "PartitionAssignor": TaskAssignor, "Router": Router,
}  # fmt: skip


def refuse_what_breaks_the_contract(app: Any) -> None:
    """The part of point 12 that can be seen in the declarations."""
    conf = app.conf
    if str(conf.processing_guarantee.value) != "exactly_once":
        raise SetupRefused('set processing_guarantee="exactly_once"')
    if {SCHEME} != {url.scheme for url in [*conf.broker, conf.store]}:
        raise SetupRefused(f"broker and store must be {SCHEME}://, take them from exactly_once.settings()")
    if conf.producer_threaded:
        raise SetupRefused("producer_threaded sends everything outside transactions: switch it off")
    if conf.table_standby_replicas:
        raise SetupRefused("table_standby_replicas must be 0")
    if not conf.topic_disable_leader:
        raise SetupRefused("the leader topic is not part of a task: set topic_disable_leader=True")
    if conf.autodiscover:
        raise SetupRefused(
            "autodiscover skips modules that cannot be imported, agents and all: import them, leave it off"
        )
    for setting, own in OWN_CLASSES.items():
        if not issubclass(getattr(conf, setting), own):
            raise SetupRefused(
                f"{setting} must be the layer's, or made from it: take it from exactly_once.settings()"
            )
    readers: dict[str, str] = {}
    for name, agent in app.agents.items():
        if agent.concurrency != 1:
            raise SetupRefused(
                f"agent {name}: concurrency must be 1, batches run their handlers concurrently"
            )
        channel = agent.channel
        if not isinstance(channel, Topic) or channel.pattern:
            raise SetupRefused(f"agent {name} must read one named topic of this app")
        if agent.isolated_partitions:
            raise SetupRefused(f"agent {name}: isolated_partitions would split a task over several agents")
        for topic in channel.topics:
            if topic in readers:
                raise SetupRefused(f"agents {readers[topic]} and {name} both read {topic}")
            readers[topic] = name
    for name, table in app.tables.items():
        if not isinstance(table, Table) or table.window is not None or table.use_partitioner:
            raise SetupRefused(
                f"table {name}: set, global, windowed, use_partitioner tables are not supported"
            )


def source_topics(app: Any) -> list[str]:
    return sorted({topic for agent in app.agents.values() for topic in agent.channel.topics})
