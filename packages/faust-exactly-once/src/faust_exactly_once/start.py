"""What is checked, created, refused before a worker starts."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from confluent_kafka import KafkaException
from confluent_kafka.admin import NewTopic

from .answers import START_S, ask_again
from .cluster import AS_BROKERS, Cluster
from .declarations import refuse_what_breaks_the_contract, source_topics
from .errors import KafkaUnavailable, SetupRefused
from .facts import TopicFacts
from .layer import Layer, partitions_changed
from .membership import check_layout
from .web_port import bind, keep_port
from .worker_folder import check_folder

logger = logging.getLogger(__package__)

BeforeStart = Callable[[Cluster], None]

_before_start: WeakKeyDictionary[Any, BeforeStart] = WeakKeyDictionary()


def before_start(app: Any, call: BeforeStart) -> None:
    """Let the application create or check its own topics, right after the broker was found."""
    _before_start[app] = call


def prepare(app: Any) -> None:
    """Check everything that can be checked before the event loop runs.

    Raises:
        SetupRefused: with one sentence that names what to do.
        KafkaUnavailable: no broker answers.
    """
    layer = Layer.of(app)
    refuse_what_breaks_the_contract(app)
    check_folder(Path(app.conf.tabledir))
    if app.conf.web_enabled:
        keep_port(app, bind(app.conf.web_bind, app.conf.web_port))
    check_layout()
    _check_broker(layer)
    _check_session_timeout(app, layer)
    if app in _before_start:
        ask_again(lambda: _before_start[app](layer.cluster), START_S, say_no_answer)
    layer.partitions = ask_again(lambda: _create_changelogs(app, layer), START_S, say_no_answer)


def say_no_answer(text: str) -> None:
    """Into the log: why the start takes longer."""
    logger.warning("%s", text)


def _check_broker(layer: Layer) -> None:
    try:
        layer.cluster.id()
    except (KafkaUnavailable, KafkaException) as exc:
        at = layer.options.client_config.get("bootstrap.servers")
        advice = layer.options.broker_advice
        raise KafkaUnavailable(f"no Kafka broker answers at {at} ({exc}): {advice}") from exc


def _check_session_timeout(app: Any, layer: Layer) -> None:
    """Refuse what the broker would refuse at every join; one that hides its settings is believed."""
    try:
        low, high = layer.cluster.session_bounds_ms()
    except (KafkaUnavailable, KafkaException, KeyError):
        return
    wanted = int(app.conf.broker_session_timeout * 1000)
    if not low <= wanted <= high:
        raise SetupRefused(
            f"the broker takes session time-outs from {low} to {high} ms, not {wanted} ms: "
            f"{layer.options.session_advice}"
        )


def _create_changelogs(app: Any, layer: Layer) -> int:
    """Create missing changelogs with the partition count of the sources.

    Returns:
        how many partitions, that is tasks, there are.
    """
    cluster, sources = layer.cluster, source_topics(app)
    names = [str(table.changelog_topic_name) for table in app.tables.values()]
    facts = cluster.topics([*sources, *names], expected=sources)
    absent = sorted(set(sources) - set(facts))
    if absent:
        raise SetupRefused(f"source topics {absent} do not exist: create them first")
    counts = {topic: facts[topic].partitions for topic in sources}
    if len(set(counts.values())) != 1:
        raise SetupRefused(f"source topics share tasks, so their partition counts must agree: {counts}")
    partitions = counts[sources[0]]
    replicas = app.conf.topic_replication_factor or AS_BROKERS
    missing = [
        NewTopic(name, partitions, replicas, config={"cleanup.policy": "compact"})
        for name in names if name not in facts
    ]  # fmt: skip
    cluster.create(missing, say_no_answer, layer.options.replication_advice)
    _check_changelogs(cluster.facts_of(names), sources[0], partitions)
    return partitions


def _check_changelogs(facts: dict[str, TopicFacts], source: str, partitions: int) -> None:
    for name, fact in facts.items():
        if fact.partitions != partitions:
            raise SetupRefused(f"changelog {name}: {partitions_changed(source, fact.partitions, partitions)}")
        if fact.config.get("cleanup.policy") != "compact":
            raise SetupRefused(
                f"changelog {name} must have cleanup.policy=compact: deleting it loses table state"
            )
