"""The dashboard: what leads it, then the figures, gateways, workers, partitions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote

from aiohttp.web import Response
from faust.web import Request, View

from streamsocial_billing.domain.english import counted
from streamsocial_billing.web.audit import everywhere_now
from streamsocial_billing.web.html import page, script
from streamsocial_billing.web.status.finding import CRITICAL, OK, WARNING
from streamsocial_billing.web.status.overview import Overview, Seen
from streamsocial_billing.web.status.state import (
    NO_WORKER,
    NOT_KNOWN,
    RUNNING,
    STARTING,
    GatewayState,
    Partition,
    Worker,
)

GATEWAY_WORDS: Final = {
    "closed": "available", "open": "fails, not called", "half_open": "fails, one call decides",
    "stopped": "stopped", "account_changed": "account changed, not called",
    "not_configured": "not set up",
}  # fmt: skip
OUTCOMES: Final = (
    ("charged", ""), ("refunded", ""), ("declined", ""), ("failed", ""), ("rejected", ""),
    ("open", "no final outcome yet"), ("repeats", "sent again, not charged again"), ("dead_letters", ""),
    ("uncounted", "handled by an older release"),
)  # fmt: skip


def page_of_dashboard(app: Any, overview: Overview, topic: str) -> None:
    """`/`: the dashboard over all workers; `/users?user_id=&payment_id=`: on to the page of one of them."""

    @app.page("/")  # type: ignore[untyped-decorator]
    async def dashboard(view: View, request: Request) -> Response:
        return page("dashboard.html", **dashboard_of(await overview.ask(), topic))

    @app.page("/users")  # type: ignore[untyped-decorator]
    async def look_up(view: View, request: Request) -> Response:
        user, payment = (quote(request.query.get(name, ""), safe="") for name in ("user_id", "payment_id"))
        target = f"/payments/{user}/{payment}" if payment else f"/users/{user}/charges"
        return Response(status=303, headers={"Location": target if user else "/"})


def dashboard_of(seen: Seen, topic: str) -> dict[str, Any]:
    """What the template needs."""
    state, audit = seen.state, everywhere_now(seen, topic)
    outcomes = list(_outcomes(audit, state.backlog.count, state.total - len(seen.backlog)))
    return {
        "seen": seen,
        "state": state,
        "audit": audit,
        "outcomes": outcomes,
        "sent": sum(number for _, number, _ in outcomes),
        "waiting": (
            ("not handled yet", state.backlog), ("open: unknown, no outcome yet", state.unknown),
            ("open: parked, for a person", state.parked),
        ),
        "unknown": state.total - len(audit["here"]) - len(audit["remembered"]),
        "gateways": [_gateway(one, seen) for one in state.gateways],
        "workers": [_worker(one, seen) for one in state.workers],
        "partitions": [_partition(one, seen) for one in state.partitions],
        "assignment_old": not seen.report["kafka"]["answers"],
        "assigned_at": seen.report["assignment"]["at"],
        "script": script(),
    }  # fmt: skip


def _outcomes(audit: Mapping[str, Any], waiting: int, unknown: int) -> Iterator[tuple[str, int, str]]:
    """The parts that add up to what was sent; of `unknown` partitions nobody knows what waits there."""
    for name, about in OUTCOMES:
        number = audit["outcomes"][name]
        if number or name != "uncounted":
            yield name.replace("_", " "), number, about
    beside = f"; of {counted(unknown, 'partition')} nobody knows" if unknown > 0 else ""
    yield "waiting", waiting, f"not handled yet{beside}"


def _severity(seen: Seen, subject: str) -> str:
    """Of the worst finding about a gateway or a worker."""
    return next((one.severity for one in seen.findings if one.subject == subject), OK)


def _gateway(one: GatewayState, seen: Seen) -> dict[str, Any]:
    return {
        "name": one.name, "words": GATEWAY_WORDS.get(one.state, one.state),
        "severity": _severity(seen, one.name), "since_ms": one.since_ms, "actor": one.actor,
        "reason": one.reason, "waiting": one.waiting,
    }  # fmt: skip


def _worker(one: Worker, seen: Seen) -> dict[str, Any]:
    severity, words = _severity(seen, one.url), "answers" if one.answers else "does not answer"
    if one.kafka_lost_ms is not None:
        severity, words = CRITICAL, "answers; Kafka does not answer it"
    return {
        "url": one.url, "link": one.url.startswith(("http://", "https://")), "words": words,
        "severity": severity, "since_ms": one.since_ms or one.kafka_lost_ms, "partitions": one.partitions,
    }  # fmt: skip


def _partition(one: Partition, seen: Seen) -> dict[str, Any]:
    severity = OK if one.state == RUNNING else WARNING if one.state in STARTING else CRITICAL
    if one.stuck is not None:
        severity = CRITICAL
    breaks = seen.state.breaks.get(one.number, ())
    unbroken = "no difference found" if one.checked_ms else "not checked"
    books = "; ".join(str(found) for found in breaks) or unbroken
    return {
        "number": one.number, "state": one.state, "why": one.why, "severity": severity, "owner": one.owner,
        "waiting": _waiting(one, seen), "checked_ms": one.checked_ms, "wrong": bool(breaks), "books": books,
        "old": one.number not in seen.now or one.state in (NO_WORKER, NOT_KNOWN),
    }  # fmt: skip


def _waiting(one: Partition, seen: Seen) -> str:
    """Events that are not handled; of a partition that nobody reports nobody knows how many."""
    backlog = seen.backlog.get(one.number)
    return "not known" if backlog is None else f"{backlog:,}"
