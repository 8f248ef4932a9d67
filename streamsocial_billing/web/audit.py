"""`/audit`: the live audit as JSON, as metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from aiohttp.web import Response
from faust.web import Request, View
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from faust_exactly_once import Layer, Metrics
from streamsocial_billing.audit.live import INVARIANTS
from streamsocial_billing.audit.outcomes import Breakdown, breakdown, by_rest, still_open
from streamsocial_billing.audit.watching import Checked, LiveAudit, as_json
from streamsocial_billing.domain.english import counted
from streamsocial_billing.domain.english import partitions as numbered
from streamsocial_billing.domain.money import EXPONENTS
from streamsocial_billing.domain.times import now_ms
from streamsocial_billing.intake.http_replies import Reply
from streamsocial_billing.web.html import for_people
from streamsocial_billing.web.responding import respond
from streamsocial_billing.web.status.overview import Overview, Seen
from tables.task_counters import CHARGED, DEAD_LETTERS, EVENTS, FINAL_RESULTS, FIRST_RESULTS, OPENED, REFUNDED

OF_PAYMENTS = ("handled", "answered", "dead_letters", "lost", "double")
Task = dict[str, Any]


def page_of_audit(app: Any, layer: Layer, live: LiveAudit, metrics: Metrics, overview: Overview) -> None:
    """`/audit`: the tasks of this worker; `/audit?workers=all`: of all that answer. No user data."""
    metrics.registry.register(AuditMetrics(live))

    @app.page("/audit")  # type: ignore[untyped-decorator]
    async def audit(view: View, request: Request) -> Response:
        everywhere = request.query.get("workers") == "all"
        if everywhere:
            body = everywhere_now(await overview.ask(), live.topic)
        else:
            tasks = [as_json(checked, live.topic) for checked in live.tasks()]
            body = summary(tasks, layer.partitions, live.topic, missing=layer.assigned_partitions())
        answer = respond(Reply(200, {"at": now_ms(), **body}))
        return for_people(request, answer, "audit.html", everywhere=everywhere)


def everywhere_now(seen: Seen, topic: str) -> dict[str, Any]:
    """The live audit of all partitions; of those that nobody reports now, what was reported last."""
    return summary(list(seen.books.values()), seen.state.total, topic, seen.now, range(seen.state.total))


def summary(
    tasks: Sequence[Task], partitions: int, topic: str, now: Collection[int] | None = None,
    missing: Iterable[int] = (),
) -> dict[str, Any]:  # fmt: skip
    """The sums over tasks, each counted once.

    Args:
        tasks: what is known of each partition, also of those that nobody reports now.
        partitions: how many there are.
        topic: the full name of `payments`.
        now: the partitions that are reported now; None: all of `tasks`.
        missing: partitions that should be; those that are not are no longer `ok`.
    """
    known = {task["partition"]: task for task in sorted(tasks, key=lambda task: task["checked_at"])}
    kept = [task for _, task in sorted(known.items())]
    here = sorted(known.keys() if now is None else known.keys() & set(now))
    numbers: Counter[str] = Counter()
    listed: Counter[str] = Counter()
    payments: Counter[str] = Counter()
    outcomes: Counter[str] = Counter()
    for task in kept:
        payments.update(task["payments"])
        outcomes.update(breakdown(task["counters"], topic).as_json())  # an older worker sends no `outcomes`
        numbers.update(task["counters"])
        listed.update(task["open"])
    breaks = [{"partition": task["partition"], **one} for task in kept for one in task["breaks"]]
    ok, reason = _verdict(breaks, here, sorted({*missing} - {*here}))
    checked = [task for task in kept if task["partition"] in here]
    return {
        "ok": ok,
        "reason": reason,
        "partitions": partitions,
        "here": here,
        "remembered": {str(p): task["checked_at"] for p, task in sorted(known.items()) if p not in here},
        "checked_at": min((task["checked_at"] for task in checked), default=None),
        "rows_at": min((task["rows_at"] for task in checked), default=None),
        "payments": {name: payments[name] for name in OF_PAYMENTS},
        "outcomes": {name: outcomes[name] for name in Breakdown._fields},
        "open": {"counted": still_open(numbers), "unknown": listed["unknown"], "parked": listed["parked"]},
        "events": by_rest(numbers, EVENTS),
        "money": _money(numbers),
        "breaks": breaks,
        "tasks": kept,
    }


def _verdict(
    breaks: Collection[Any], here: Collection[int], missing: Collection[int]
) -> tuple[bool | None, str]:
    """False: the books are wrong. None: nobody knows, since something is not checked now. Then the reason."""
    if breaks:
        return False, f"{counted(len(breaks), 'open break')}"
    if not here:
        return None, "no partition is checked here now"
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        return None, f"{numbered(missing)} {verb} not checked now"
    return True, ""


def _money(numbers: Counter[str]) -> dict[str, dict[str, int]]:
    charged, refunded = by_rest(numbers, CHARGED), by_rest(numbers, REFUNDED)
    return {
        currency: {
            "charged_minor": charged.get(currency, 0),
            "refunded_minor": refunded.get(currency, 0),
            "exponent": EXPONENTS.get(currency, 0),
        }
        for currency in sorted(charged.keys() | refunded.keys())
    }


class AuditMetrics(Collector):
    """The live audit for Prometheus."""

    def __init__(self, live: LiveAudit) -> None:
        self._live = live

    def collect(self) -> Iterator[Metric]:
        """Counters as committed, by task; what does not hold, by invariant."""
        tasks = self._live.tasks()
        for kind, name, text, label in OF_KINDS:
            family = CounterMetricFamily(f"billing_audit_{name}", text, labels=["partition", label])
            for task in tasks:
                for rest, number in by_rest(task.numbers, kind).items():
                    family.add_metric([str(task.partition), rest], number)
            yield family
        for counter, text in ((OPENED, "First results that left a payment open."),
                              (FINAL_RESULTS, "Results that settled an open payment.")):  # fmt: skip
            family = CounterMetricFamily(f"billing_audit_{counter}", text, labels=["partition"])
            for task in tasks:
                family.add_metric([str(task.partition)], task.numbers.get(counter, 0))
            yield family
        yield self._outcomes(tasks)
        yield from self._gauges()

    def _outcomes(self, tasks: Sequence[Checked]) -> Metric:
        text = "Events of payments that were handled, by what became of them; all but the open ones."
        family = CounterMetricFamily("billing_audit_outcomes", text, labels=["partition", "outcome"])
        for task in tasks:
            for outcome, number in breakdown(task.numbers, self._live.topic).ended().items():
                family.add_metric([str(task.partition), outcome], number)
        return family

    def _gauges(self) -> Iterator[Metric]:
        tasks = self._live.tasks()
        breaks = _gauge("breaks", "Broken invariants: each currency is one.", "invariant")
        listed = _gauge("open", "Open payments now.", "status")
        checked = _gauge("checked_timestamp_seconds", "The last look at the counters.")
        walked = _gauge("rows_timestamp_seconds", "The moment of which the last walk through the rows was.")
        for task in tasks:
            partition = str(task.partition)
            found = Counter(one.invariant for one in task.breaks)
            for invariant in INVARIANTS:
                breaks.add_metric([partition, invariant], found[invariant])
            for status, number in task.open.items():
                listed.add_metric([partition, status], number)
            checked.add_metric([partition], task.at_ms / 1000)
            walked.add_metric([partition], task.rows_at_ms / 1000)
        yield from (breaks, listed, checked, walked)


OF_KINDS = (
    (EVENTS, "events", "Events that a handler took.", "topic"),
    (FIRST_RESULTS, "first_results", "Results of events, replays among them.", "topic"),
    (DEAD_LETTERS, "dead_letters", "Events that became dead letters.", "topic"),
    (CHARGED, "charged_minor_units", "Money charged.", "currency"),
    (REFUNDED, "refunded_minor_units", "Money that went back.", "currency"),
)


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"billing_audit_{name}", text, labels=["partition", *labels])
