"""The layer's metrics; the page and the alerts that rest on them know the same names."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from faust_exactly_once.assigned_task import STATES, AssignedTask
from faust_exactly_once.brokers import BrokerState
from faust_exactly_once.counts import BUCKETS_S, Counts, Rebalances
from faust_exactly_once.errors import RecordRefused, TaskFenced
from faust_exactly_once.head_of_line import Blocker, FirstUncommitted
from faust_exactly_once.layer import Layer
from faust_exactly_once.membership import Membership
from faust_exactly_once.metrics import Metrics
from faust_exactly_once.options import Options
from streamsocial_billing.payments.gateway_event import REPORTED_EFFECTS
from streamsocial_billing.web.reconciliation import metrics_of

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((ROOT / "docs/alerts.yml").read_text(encoding="utf-8"))["groups"]
    if group["name"] == "exactly-once"  # the others' are not the layer's
    for rule in group["rules"]
]
LAYERS = [rule for rule in RULES if "billing_" not in rule["expr"]]  # the others: test_gatekeeping.py
NAME = re.compile(r"\b(?:exactly_once|process|billing)_\w+")


class App:
    """What the layer's state needs of an app: to be there."""


def a_layer() -> Layer:
    """A layer with one task that had some of everything; its oldest event is known."""
    layer = Layer(App(), Options(client_config={}))
    _apps.append(layer.app)
    layer.partitions = 8
    counts = layer.supervisor.counts.setdefault(3, Counts())
    counts.committed(2, 7, 0.02, time.time())
    counts.committed(1, 4, 30.0, time.time())
    counts.committed(0, 0, 0.001, time.time())
    counts.aborted(RecordRefused("too large"))
    counts.failed(TaskFenced("by another"))
    assigned = AssignedTask(3, frozenset(["events"]), Membership("g", 1, "m"), "running", counts=counts)
    assigned.stages_ms = {"revoke": 1500.0, "join": 20.0, "fence": 30.0, "recover": 40.0, "first_events": 5.0}
    layer.assigned_tasks[3] = assigned
    layer.health.brokers.look({
        1: BrokerState("k1:9092", True, frozenset([3])), 2: BrokerState("k2:9092", False, frozenset([4])),
    })  # fmt: skip
    return layer


_apps: list[App] = []  # a layer is found by its app, which it does not keep alive


def samples(layer: Layer) -> list[Sample]:
    """What a scrape of the layer has, parsed by Prometheus' own parser."""
    text = asyncio.run(Metrics(layer).text()).decode()
    return [sample for family in text_string_to_metric_families(text) for sample in family.samples]


def value(found: Iterable[Sample], name: str, **labels: str) -> float:
    """The value of the one series."""
    (one,) = (s.value for s in found if s.name == f"exactly_once_{name}" and s.labels == labels)
    return float(one)


def oldest(layer: Layer) -> None:
    """Let an event of the task be the oldest one, past its deadline."""
    blockers = layer.watch._of(3).blockers  # noqa: SLF001
    first = FirstUncommitted("events", 42, "handler", 1_700_000_000_500, b"user-1")
    blockers._blockers["events"] = Blocker(first, -1e9)  # noqa: SLF001


def test_a_scrape_says_how_each_task_is() -> None:
    """State, commits, aborts, stages, the oldest event, by partition."""
    layer = a_layer()
    oldest(layer)
    found = samples(layer)
    states = {state: value(found, "task_state", partition="3", state=state) for state in STATES}
    assert {state: float(state == "running") for state in STATES} == states
    assert 3 == value(found, "commits_total", partition="3")
    assert 3 == value(found, "committed_units_total", partition="3")
    assert 11 == value(found, "committed_records_total", partition="3")
    assert (1, 4) == tuple(value(found, f"last_commit_{n}", partition="3") for n in ("units", "records"))
    assert 1 == value(found, "commit_aborts_total", partition="3", reason="RecordRefused")
    assert 0 == value(found, "commit_aborts_total", partition="3", reason="TransactionAborted")
    assert 1.5 == value(found, "rebalance_stage_seconds", partition="3", stage="revoke")
    assert 42 == value(found, "oldest_event_offset", partition="3", topic="events", held_by="handler")
    stamp = value(found, "oldest_event_timestamp_seconds", partition="3", topic="events")
    assert 1_700_000_000.5 == stamp
    assert 1 == value(found, "gap_alarm", partition="3")
    assert value(found, "gap_age_seconds", partition="3") > 1e9


def test_a_scrape_says_how_the_worker_is() -> None:
    """Handlers, memory, openings, failures by name: those that have not happened are 0, not absent."""
    layer = a_layer()
    layer.state.bounds.running += 1
    layer.state.bounds.held_bytes += 500
    layer.supervisor.counts[3].opened = 2
    layer.supervisor.rebalances.assigned(0.0)
    del layer.assigned_tasks[3]
    found = samples(layer)
    names = ("running_handlers", "held_bytes", "rebalances_total", "incarnations_opened_total", "partitions")
    assert [1, 500, 1, 2, 8] == [value(found, name) for name in names]
    assert 1 == value(found, "group_contact")
    assert 1 == value(found, "incarnations_failed_total", reason="TaskFenced"), "its partition has left"
    assert 0 == value(found, "incarnations_failed_total", reason="StoreFailed")
    assert 0 < next(one.value for one in found if one.name == "process_resident_memory_bytes")


def test_a_scrape_says_which_broker_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """By id and address, once it has been away for longer than a moment; the others stand beside it as up."""
    layer = a_layer()
    assert 1 == value(samples(layer), "broker_up", broker="2", address="k2:9092")
    monkeypatch.setattr(layer.health.brokers, "_clock", lambda: time.time() + 60)
    layer.health.brokers.look({
        1: BrokerState("k1:9092", True, frozenset()), 2: BrokerState("k2:9092", False, frozenset()),
    })  # fmt: skip
    found = samples(layer)
    assert 1 == value(found, "broker_up", broker="1", address="k1:9092")
    assert 0 == value(found, "broker_up", broker="2", address="k2:9092")


def test_commits_are_counted_by_their_duration() -> None:
    """The histogram is cumulative, as Prometheus wants it."""
    found = samples(a_layer())
    upto = {
        one.labels["le"]: one.value for one in found
        if one.name == "exactly_once_commit_duration_seconds_bucket"
    }  # fmt: skip
    expected = {str(bound): 1.0 if bound < 0.02 else 2.0 for bound in BUCKETS_S} | {"+Inf": 3.0}
    assert expected == upto
    assert pytest.approx(30.021) == value(found, "commit_duration_seconds_sum", partition="3")


def test_no_series_holds_a_message_key() -> None:
    """A key may be personal data; it is in the log alone. Nor has /ready one."""
    layer = a_layer()
    oldest(layer)
    assert "user-1" not in asyncio.run(Metrics(layer).text()).decode()
    assert "user-1" not in str(layer.status())


def test_two_layers_of_a_process_have_nothing_in_common() -> None:
    """No global registry."""
    one, other = Metrics(a_layer()), Metrics(a_layer())
    one._layer.supervisor.counts[3].committed(1, 1, 0.1, time.time())  # noqa: SLF001
    assert one.registry is not other.registry
    texts = [asyncio.run(metrics.text()).decode() for metrics in (one, other)]
    assert [True, False] == ['exactly_once_commits_total{partition="3"} 4.0' in text for text in texts]


def test_a_scrape_reads_on_the_event_loop_and_writes_beside_it() -> None:
    """State is taken where it changes; the text, which takes long for many tasks, in a thread of its own."""
    layer, threads = a_layer(), []

    class Noting(Metrics):
        def _write(self, seen: Any) -> bytes:
            threads.append(threading.current_thread())
            return super()._write(seen)

    status = layer.status

    def noted() -> list[dict[str, Any]]:
        threads.append(threading.current_thread())
        return status()

    layer.status = noted  # type: ignore[method-assign]
    asyncio.run(Noting(layer).text())
    assert threading.main_thread() is threads[0]
    assert threading.main_thread() is not threads[1]


def test_the_stages_of_a_rebalance_are_those_of_its_first_revocation_and_its_assignment() -> None:
    """Faust revokes twice in one rebalance, once to wait for handlers."""
    times = Rebalances()
    assert {} == times.assigned(0.0)
    times.revoking(10.0)
    times.revoked(11.5)
    times.revoking(11.5)
    times.revoked(11.5)
    assert {"revoke": 1500.0, "join": 500.0} == times.assigned(12.0)
    assert {} == times.assigned(13.0)
    assert 3 == times.total


def exported() -> dict[str, set[str]]:
    """Every series a scrape may have, with its labels."""
    layer = a_layer()
    oldest(layer)
    found: dict[str, set[str]] = {}
    REPORTED_EFFECTS.labels("simulated", "contradicts")
    one_break = {"count": 1, "money": {"EUR": 100}, "oldest": 1000}
    families = [*REPORTED_EFFECTS.collect(), *metrics_of({"as_of": 1, "breaks": {"orphan_line": one_break}})]
    of_the_application = [sample for family in families for sample in family.samples]
    for one in [*samples(layer), *of_the_application]:
        found.setdefault(one.name, set()).update(one.labels)
    return found


def test_every_alert_is_complete() -> None:
    """A name of its own, an expression, a severity, a summary."""
    names = [rule["alert"] for rule in RULES]
    assert sorted(set(names)) == sorted(names)
    for rule in RULES:
        assert {"alert", "expr", "labels", "annotations"} <= rule.keys() <= {
            "alert", "expr", "labels", "annotations", "for",
        }  # fmt: skip
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert rule["annotations"]["summary"]
        assert re.fullmatch(r"\d+m", rule.get("for", "0m"))


def test_every_alert_asks_for_series_that_exist() -> None:
    """Names and labels of the expressions are those of a real scrape; states are states of a task."""
    there = exported()
    for rule in LAYERS:
        names = NAME.findall(rule["expr"])
        assert names or "up{" in rule["expr"], rule["alert"]
        assert set() == set(names) - there.keys(), rule["alert"]
        labels = set().union(*(there[name] for name in names)) | {"job", "instance"}
        given = set(re.findall(r"(\w+)=~?\"", rule["expr"]))
        for group in re.findall(r"by \(([^)]*)\)", rule["expr"]):
            given |= set(re.split(r",\s*", group))
        assert set() == given - labels, rule["alert"]
        for states in re.findall(r"state=~?\"([^\"]+)\"", rule["expr"]):
            assert set() == set(states.split("|")) - set(STATES), rule["alert"]


def test_the_page_explains_every_metric_every_alert_every_state() -> None:
    """What a scrape has stands in docs/operations.md; what stands there exists."""
    there = {re.sub(r"_(bucket|count|sum)$", "", name) for name in exported()}
    ours = {name for name in there if name.startswith("exactly_once_")}
    assert ours == {name for name in NAME.findall(PAGE) if name.startswith("exactly_once_")}
    of_the_application = {n for n in there if n.startswith("billing_") and not n.endswith("_created")}
    assert set() == of_the_application - set(NAME.findall(PAGE))
    assert set() == {name for name in NAME.findall(PAGE) if name.startswith("process_")} - there
    assert set() == {rule["alert"] for rule in RULES} - set(re.findall(r"`(\w+)`", PAGE))
    assert set() == set(STATES) - set(re.findall(r"^\| `(\w+)` \|", PAGE, flags=re.MULTILINE))
