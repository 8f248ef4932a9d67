"""What a worker refuses to start with, as far as no broker is needed to see it."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import faust
import pytest
from faust.types import TP

import faust_exactly_once as exactly_once
from faust_exactly_once import Layer, Options, SetupRefused, answers, batched, start
from faust_exactly_once.facts import TopicFacts
from faust_exactly_once.start import prepare
from faust_exactly_once.table_manager import whole_tasks


def app_with(**settings: Any) -> Any:
    """An app that is fine but for these settings."""
    common = exactly_once.settings(["kafka://127.0.0.1:1"]) | {"web_enabled": False}
    app = faust.App("refused", **{**common, **settings})
    exactly_once.install(
        app, Options(client_config={"bootstrap.servers": "127.0.0.1:1"}, request_timeout_s=0.1)
    )
    return app


def read(app: Any, topic: Any, name: str = "reader", **options: Any) -> None:
    """Declare an agent."""

    async def agent(stream: Any) -> None:
        async for batch in stream:
            del batch

    app.agent(topic, name=name, **options)(agent)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An app makes its data folder where it starts: not in this checkout."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"processing_guarantee": "at_least_once"}, 'set processing_guarantee="exactly_once"'),
        (
            {"producer_threaded": True},
            "producer_threaded sends everything outside transactions: switch it off",
        ),
        ({"table_standby_replicas": 1}, "table_standby_replicas must be 0"),
        (
            {"topic_disable_leader": False},
            "the leader topic is not part of a task: set topic_disable_leader=True",
        ),
        (
            {"autodiscover": True},
            "autodiscover skips modules that cannot be imported, agents and all: import them, leave it off",
        ),
        (
            {"broker": "kafka://127.0.0.1:1"},
            "broker and store must be exactly-once://, take them from exactly_once.settings()",
        ),
        (
            {"store": "memory://"},
            "broker and store must be exactly-once://, take them from exactly_once.settings()",
        ),
        (
            {"Stream": "faust:Stream"},
            "Stream must be the layer's, or made from it: take it from exactly_once.settings()",
        ),
    ],
)
def test_settings_that_break_the_contract_are_refused(settings: dict[str, Any], message: str) -> None:
    """Each with one sentence that names what to do (point 12)."""
    with pytest.raises(SetupRefused) as refusal:
        prepare(app_with(**settings))
    assert message == str(refusal.value)


def two_agents(app: Any) -> None:
    topic = batched(app.topic("t"))
    read(app, topic, "one")
    read(app, topic, "two")


DECLARATIONS: list[tuple[Callable[[Any], Any], str]] = [
    (
        lambda app: read(app, batched(app.topic("t")), concurrency=2),
        "agent reader: concurrency must be 1, batches run their handlers concurrently",
    ),
    (lambda app: read(app, app.channel()), "agent reader must read one named topic of this app"),
    (
        lambda app: read(app, batched(app.topic(pattern="t.*"))),
        "agent reader must read one named topic of this app",
    ),
    (
        lambda app: read(app, app.topic("t"), isolated_partitions=True),
        "agent reader: isolated_partitions would split a task over several agents",
    ),
    (two_agents, "agents one and two both read t"),
    *(
        (declare, f"table {name}: set, global, windowed, use_partitioner tables are not supported")
        for name, declare in {
            "s": lambda app: app.SetTable("s"),
            "g": lambda app: app.GlobalTable("g"),
            "w": lambda app: app.Table("w").tumbling(10),
            "p": lambda app: app.Table("p", use_partitioner=True),
        }.items()
    ),
]


@pytest.mark.parametrize(("declare", "message"), DECLARATIONS)
def test_declarations_that_break_the_contract_are_refused(
    declare: Callable[[Any], Any], message: str
) -> None:
    """Each with one sentence that names the agent or table (point 12)."""
    app = app_with()
    declare(app)
    with pytest.raises(SetupRefused) as refusal:
        prepare(app)
    assert message == str(refusal.value)


def test_what_keeps_the_contract_gets_as_far_as_the_broker() -> None:
    """None of the refusals hits a good app."""
    app = app_with()
    read(app, batched(app.topic("t")))
    app.Table("good")
    with pytest.raises(exactly_once.KafkaUnavailable, match="no Kafka broker answers"):
        prepare(app)


class Changing:
    """A cluster that gives no fact at first: `unavailable` questions have no answer."""

    def __init__(self, unavailable: int) -> None:
        self.unavailable = unavailable
        self.created: list[tuple[str, int]] = []

    def id(self) -> str:
        """Always known."""
        return "c"

    def session_bounds_ms(self) -> tuple[int, int]:
        """Wide."""
        return 1, 10**9

    def _answer(self) -> None:
        self.unavailable -= 1
        if self.unavailable >= 0:
            raise exactly_once.KafkaUnavailable("no leader")

    def topics(self, names: Any, *, expected: Any = ()) -> dict[str, TopicFacts]:
        """The source alone."""
        self._answer()
        return {"t": TopicFacts("id", 3, {})} if "t" in expected else {}

    def create(self, topics: Any, say: Any, advice: str) -> None:
        """Note it."""
        self.created += [(one.topic, one.replication_factor) for one in topics]
        self._answer()

    def facts_of(self, names: Any) -> dict[str, TopicFacts]:
        """As created."""
        return {name: TopicFacts("id", 3, {"cleanup.policy": "compact"}) for name in names}


def starting(monkeypatch: pytest.MonkeyPatch, cluster: Any, **settings: Any) -> Any:
    """A good app on that cluster."""
    monkeypatch.setattr(answers, "PAUSES_S", (0.001,))
    app = app_with(**settings)
    read(app, batched(app.topic("t")))
    app.Table("good")
    Layer.of(app).cluster = cluster
    return app


def test_a_start_asks_again_until_the_answers_are_facts(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each question; what was made meanwhile is asked for once more; the log says why it takes longer."""
    cluster = Changing(unavailable=4)
    app = starting(monkeypatch, cluster)
    prepare(app)
    assert 3 == Layer.of(app).partitions
    assert "no answer from Kafka yet (no leader): asking again for up to" in caplog.text


def test_a_start_without_any_fact_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the worker ends with the reason."""
    monkeypatch.setattr(start, "START_S", 0.05)
    with pytest.raises(exactly_once.KafkaUnavailable, match="no leader"):
        prepare(starting(monkeypatch, Changing(unavailable=10**9)))


@pytest.mark.parametrize(("factor", "asked"), [(0, -1), (1, 1), (3, 3)])
def test_changelogs_have_the_replication_of_the_app(
    monkeypatch: pytest.MonkeyPatch, factor: int, asked: int
) -> None:
    """0: the brokers' default.replication.factor."""
    cluster = Changing(unavailable=0)
    prepare(starting(monkeypatch, cluster, topic_replication_factor=factor))
    assert [("refused-good-changelog", asked)] == cluster.created


def test_a_worker_takes_whole_tasks() -> None:
    """Per partition number the topics that share a task."""
    assigned = {TP("a", 0), TP("b", 0), TP("a", 3), TP("b", 3)}
    assert {0: frozenset("ab"), 3: frozenset("ab")} == whole_tasks(assigned)
    assert {} == whole_tasks(set())


def test_a_worker_refuses_part_of_a_task() -> None:
    """Its units would be split over two workers (point 6)."""
    with pytest.raises(SetupRefused) as refusal:
        whole_tasks({TP("a", 0), TP("b", 0), TP("a", 1), TP("b", 2)})
    assert "partitions [1, 2] were assigned for some source topics only, of ['a', 'b']" == str(refusal.value)


@pytest.mark.parametrize(("seconds", "refused"), [(5.9, True), (6.0, False), (1800.0, False), (1800.1, True)])
def test_a_session_timeout_that_the_broker_does_not_take_is_refused(seconds: float, refused: bool) -> None:
    """The line names the bounds; else the worker would be turned away at every join, with no task ever."""
    app = SimpleNamespace(conf=SimpleNamespace(broker_session_timeout=seconds))
    bounds = SimpleNamespace(session_bounds_ms=lambda: (6_000, 1_800_000))
    layer: Any = SimpleNamespace(cluster=bounds, options=Options(client_config={}))
    if not refused:
        start._check_session_timeout(app, layer)  # noqa: SLF001
        return
    with pytest.raises(SetupRefused, match="from 6000 to 1800000 ms"):
        start._check_session_timeout(app, layer)  # noqa: SLF001
