"""Says what is wrong with the system now, the worst first: pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from streamsocial_billing.domain.english import counted, lasting, partitions
from streamsocial_billing.web.status.finding import CRITICAL, OK, SEVERITIES, WARNING, Finding, sentence
from streamsocial_billing.web.status.finding_gateways import of_gateways
from streamsocial_billing.web.status.finding_workers import (
    of_brokers,
    of_events,
    of_kafka,
    of_partitions,
    of_workers,
)
from streamsocial_billing.web.status.state import CALLABLE, NO_WORKER, State

BACKLOG_LATE_S: Final = 60
"""An event on `payments` that waits longer than this is worth a warning."""
OPEN_LATE_S: Final = 60
"""A payment without a final outcome for longer than this is worth a warning."""
CHECK_LATE_S: Final = 60
"""Books that were checked longer ago than this do not count as checked."""


def findings(state: State) -> list[Finding]:
    """What is wrong, the worst first; one finding with severity OK if nothing is."""
    found = [
        *_books(state), *of_kafka(state), *of_brokers(state), *of_workers(state), *of_gateways(state),
        *of_partitions(state), *of_events(state), *_waiting(state), *_unchecked(state),
    ]  # fmt: skip
    found.sort(key=lambda one: (SEVERITIES.index(one.severity), CODES.index(one.code)))
    return found or [all_well(state)]


def all_well(state: State) -> Finding:
    """What a page says when nothing is wrong."""
    workers = counted(sum(worker.answers for worker in state.workers), "worker")
    detail = f"{workers}, {counted(state.total, 'partition')}"
    detail += f". {_open(state)}." if state.unknown.count else ", every gateway is available."
    return Finding(OK, "all_well", "All is well: no difference found, payments are handled.", detail)


def _open(state: State) -> str:
    """A gateway that hangs fails no call before its deadline: that its payments wait is known earlier."""
    verb = "has" if state.unknown.count == 1 else "have"
    since = lasting(_age_s(state, state.unknown.oldest_ms))
    return f"{counted(state.unknown.count, 'payment')} {verb} no final outcome yet, the oldest for {since}"


# -- money

_SAYS: Final = {
    "charged": "money charged", "refunded": "money refunded", "open": "payments without a final outcome",
    "results": "results", "readable": "rows that cannot be read",
}  # fmt: skip


def _books(state: State) -> Iterator[Finding]:
    if not any(state.breaks.values()):
        return
    lost = double = 0
    others: Counter[str] = Counter()
    for breaks in state.breaks.values():
        for one in breaks:
            if one.invariant == "answered":
                lost += max(0, one.expected - one.actual)
                double += max(0, one.actual - one.expected)
            else:
                others[f"{_SAYS.get(one.invariant, one.invariant)}{' ' + one.of if one.of else ''}"] += 1
    said = [
        *([f"{counted(lost, 'payment')} without a result"] if lost else []),
        *([f"{counted(double, 'result')} too many"] if double else []),
        *(["counters and tables differ"] if others else []),
    ]  # fmt: skip
    where = partitions(number for number, breaks in state.breaks.items() if breaks)
    detail = f"{where}: {', '.join(sorted(others)) or ', '.join(said)}."
    yield Finding(
        CRITICAL, "books_differ", f"The books are wrong: {', '.join(said)}.", sentence(detail),
        action="Stop the workers, keep their data folders, then run `streamsocial-billing audit`.",
    )  # fmt: skip


# -- payments that wait


def _waiting(state: State) -> Iterator[Finding]:
    if state.parked.count:
        verb = "waits" if state.parked.count == 1 else "wait"
        yield Finding(
            severity=WARNING, code="parked",
            headline=f"{counted(state.parked.count, 'payment')} {verb} for a person.",
            detail="Their outcome is not known, and they are not tried again by themselves.",
            since_ms=state.parked.oldest_ms,
            action='Settle each: `streamsocial-billing resolve USER/PAYMENT --status STATUS --reason "..."`.',
        )  # fmt: skip
    if _is_late(state, state.backlog.oldest_ms, BACKLOG_LATE_S):
        verb = "waits" if state.backlog.count == 1 else "wait"
        yield Finding(
            severity=WARNING, code="backlog_late",
            headline=f"{counted(state.backlog.count, 'payment')} {verb} to be handled.",
            detail=f"The oldest for {lasting(_age_s(state, state.backlog.oldest_ms))}.",
            since_ms=state.backlog.oldest_ms,
            action="Look at the gateway's latency, at Kafka, at the workers' CPU. More workers help.",
        )  # fmt: skip
    failing = any(one.state not in CALLABLE or one.since_ms is not None for one in state.gateways)
    if not failing and _is_late(state, state.unknown.oldest_ms, OPEN_LATE_S):
        verb = "has" if state.unknown.count == 1 else "have"
        yield Finding(
            severity=WARNING,
            code="open_late",
            headline=f"{counted(state.unknown.count, 'payment')} {verb} no final outcome yet.",
            detail=f"The oldest for {lasting(_age_s(state, state.unknown.oldest_ms))}; "
            "they are tried again by themselves.",
            since_ms=state.unknown.oldest_ms,
            action="Look at the gateway.",
        )  # fmt: skip


def _unchecked(state: State) -> Iterator[Finding]:
    """Figures of partitions that nobody reports now are not the figures of now."""
    late = state.at_ms - CHECK_LATE_S * 1000
    silent = {worker.url for worker in state.workers if not worker.answers}
    missing = [
        one.number for one in state.partitions
        if one.checked_ms is None or one.checked_ms < late or one.owner in silent or one.state == NO_WORKER
    ]  # fmt: skip
    if not missing:
        return
    reporting = state.total - len(missing)
    yield Finding(
        WARNING, "figures_old", f"{reporting} of {counted(state.total, 'partition')} report.",
        f"The figures of {partitions(missing)} are missing or old.",
        action="They come back with the partitions' next worker.",
    )  # fmt: skip


def _is_late(state: State, oldest_ms: int | None, limit_s: float) -> bool:
    return oldest_ms is not None and _age_s(state, oldest_ms) > limit_s


def _age_s(state: State, at_ms: int | None) -> float:
    return 0.0 if at_ms is None else (state.at_ms - at_ms) / 1000


CODES: Final = (
    "books_differ", "kafka_unreachable", "no_gateway", "gateway_failing", "gateway_account_changed",
    "gateway_not_set_up", "gateway_stopped", "worker_silent", "partition_without_worker",
    "partition_blocked", "event_stuck", "kafka_broker_unreachable",
    "worker_gone", "parked", "backlog_late", "open_late", "partition_starting", "starting", "figures_old",
    "all_well",
)  # fmt: skip
"""Every code of a finding; of two with the same severity the earlier one leads."""
