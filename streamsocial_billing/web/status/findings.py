"""Says what is wrong with the system now, the worst first: pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from streamsocial_billing.domain.english import counted, lasting, listed, partitions
from streamsocial_billing.web.status.state import (
    CALLABLE,
    NO_WORKER,
    NOT_KNOWN,
    NOT_SET_UP,
    RUNNING,
    STARTING,
    GatewayState,
    Partition,
    State,
    Worker,
)

CRITICAL: Final = "critical"
"""Money is wrong, or payments are not handled: somebody has to act now."""
WARNING: Final = "warning"
"""Somebody should look; payments go on, or will by themselves."""
OK: Final = "ok"
"""Nothing is wrong."""
SEVERITIES: Final = (CRITICAL, WARNING, OK)

BACKLOG_LATE_S: Final = 60
"""An event on `payments` that waits longer than this is worth a warning."""
OPEN_LATE_S: Final = 60
"""A payment without a final outcome for longer than this is worth a warning."""
CHECK_LATE_S: Final = 60
"""Books that were checked longer ago than this do not count as checked."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is so now.

    severity  CRITICAL, WARNING or OK
    code      for machines, one of CODES
    headline  for people, one short sentence
    detail    what is behind it: which partitions, which reason; may be empty
    since_ms  since when, ms since the epoch; None where that is not known
    action    what to do
    subject   what tells two findings of one code apart: a gateway, a worker, a partition
    """

    severity: str
    code: str
    headline: str
    detail: str = ""
    since_ms: int | None = None
    action: str = ""
    subject: str = ""

    def as_json(self) -> dict[str, Any]:
        """For those who read `/status`."""
        return {
            "severity": self.severity, "code": self.code, "headline": self.headline, "detail": self.detail,
            "since": self.since_ms, "action": self.action, "subject": self.subject,
        }  # fmt: skip


def findings(state: State) -> list[Finding]:
    """What is wrong, the worst first; one finding with severity OK if nothing is."""
    found = [
        *_books(state), *_kafka(state), *_brokers(state), *_workers(state), *_gateways(state),
        *_partitions(state), *_stuck(state), *_waiting(state), *_unchecked(state),
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
        CRITICAL, "books_differ", f"The books are wrong: {', '.join(said)}.", _sentence(detail),
        action="Stop the workers, keep their data folders, then run `streamsocial-billing audit`.",
    )  # fmt: skip


# -- Kafka, workers, partitions


def _kafka(state: State) -> Iterator[Finding]:
    lost = [worker for worker in state.workers if worker.kafka_lost_ms is not None]
    if not lost:
        return
    since_ms = min(worker.kafka_lost_ms or 0 for worker in lost)
    every = len(lost) == sum(worker.answers for worker in state.workers)
    headline = (
        "Kafka does not answer: no payment is handled." if every
        else f"Kafka does not answer {counted(len(lost), 'worker')}."
    )  # fmt: skip
    yield Finding(
        severity=CRITICAL, code="kafka_unreachable", headline=headline,
        detail=_sentence(f"asked by {_urls(lost)}"), since_ms=since_ms,
        action="Look at the broker and the network. "
        "Workers go on by themselves once it answers; nothing is lost.",
    )  # fmt: skip


def _brokers(state: State) -> Iterator[Finding]:
    """A broker of several: the others serve; with all of Kafka gone that is the finding."""
    cut_off = {worker.url for worker in state.workers if worker.kafka_lost_ms is not None}
    asking = sum(worker.answers for worker in state.workers)
    for one in state.brokers:
        if one.brokers < 2 or set(one.workers) <= cut_off:
            continue
        name = f"Kafka broker {one.number} ({one.address or 'address not known'})"
        by = "" if len(one.workers) >= asking else f" from {counted(len(one.workers), 'worker')}"
        waits = f"{partitions(one.waiting)} wait{'s' if len(one.waiting) == 1 else ''} for another leader"
        where = f"asked by {', '.join(one.workers)}"
        yield Finding(
            severity=WARNING, code="kafka_broker_unreachable", headline=f"{name} is not reachable{by}.",
            detail=f"{_sentence(waits) + ' ' if one.waiting else ''}{_sentence(where)}",
            since_ms=one.since_ms,
            action="Start it, or look at the network. "
            "The others serve meanwhile; with a second one gone all waits.",
            subject=str(one.number),
        )  # fmt: skip


def _workers(state: State) -> Iterator[Finding]:
    for worker in state.workers:
        if worker.answers:
            continue
        held = [one.number for one in state.partitions if one.owner == worker.url] if worker.assigned else []
        if held:
            yield Finding(
                severity=CRITICAL,
                code="worker_silent",
                headline=f"A worker does not answer: payments of {counted(len(held), 'partition')} wait.",
                detail=f"{worker.url} has {partitions(held)}.",
                since_ms=worker.since_ms,
                action="Other workers take its partitions over by themselves after the session time-out. "
                "Start it again.",
                subject=worker.url,
            )  # fmt: skip
        else:
            had = f"{worker.url} had {partitions(worker.partitions)}." if worker.partitions else worker.url
            yield Finding(
                severity=WARNING, code="worker_gone",
                headline="A worker is gone; others have taken over its partitions.", detail=had,
                since_ms=worker.since_ms, action="Start it again; if it was stopped on purpose, do nothing.",
                subject=worker.url,
            )  # fmt: skip


def _partitions(state: State) -> Iterator[Finding]:
    silent = {worker.url for worker in state.workers if not worker.answers}
    cut_off = {worker.url for worker in state.workers if worker.kafka_lost_ms is not None}
    said_already = silent | cut_off
    own = [one for one in state.partitions if one.owner is None or one.owner not in said_already]
    if state.total == 0 or not any(one.owner for one in state.partitions):
        if not cut_off:
            yield Finding(
                WARNING, "starting", "No partition is assigned yet.", "The workers are starting.",
                action="Wait some seconds. If this stays, look at Kafka and at the workers' logs.",
            )  # fmt: skip
        return
    free = [one.number for one in own if one.state == NO_WORKER]
    if free:
        yield Finding(
            CRITICAL, "partition_without_worker",
            f"Payments of {counted(len(free), 'partition')} wait: no worker has them.",
            _sentence(partitions(free)), action="Start a worker. Look at the workers' logs.",
        )  # fmt: skip
    yield from _blocked(own)
    starting = [one.number for one in own if one.state in STARTING or one.state == NOT_KNOWN]
    if starting:
        verb = "is" if len(starting) == 1 else "are"
        yield Finding(
            WARNING, "partition_starting", f"{counted(len(starting), 'partition')} {verb} being started.",
            _sentence(partitions(starting)), action="Wait some seconds: it goes on by itself.",
        )  # fmt: skip


def _blocked(own: list[Partition]) -> Iterator[Finding]:
    """One finding for each reason, however many partitions have it."""
    usual = {RUNNING, NO_WORKER, NOT_KNOWN} | STARTING
    blocked = [one for one in own if one.state not in usual]
    for why in sorted({one.why for one in blocked}):
        numbers = [one.number for one in blocked if one.why == why]
        verb = "is" if len(numbers) == 1 else "are"
        yield Finding(
            CRITICAL, "partition_blocked", f"{counted(len(numbers), 'partition')} {verb} blocked.",
            _sentence(f"{partitions(numbers)}: {why or 'no reason known'}"),
            action="See what docs/operations.md says about this line.", subject=why,
        )  # fmt: skip


def _stuck(state: State) -> Iterator[Finding]:
    for one in state.partitions:
        if one.stuck is None:
            continue
        event = f"{one.stuck.topic}-{one.number}@{one.stuck.offset}"
        yield Finding(
            severity=CRITICAL, code="event_stuck",
            headline=f"An event has not finished for {lasting(one.stuck.age_s)}.",
            detail=f"Partition {one.number} cannot commit past {event}, held by: {one.stuck.held_by}.",
            since_ms=state.at_ms - int(one.stuck.age_s * 1000),
            action="Look at the gateway. "
            "Restarting the worker is safe: the call is repeated with the same key.",
            subject=str(one.number),
        )  # fmt: skip


# -- gateways


def _gateways(state: State) -> Iterator[Finding]:
    if not state.gateways:
        yield Finding(
            CRITICAL, "no_gateway", "No gateway is set up: no payment can be charged.",
            action="Set the variables of a gateway (docs/gateways.md), then start the workers again.",
        )  # fmt: skip
    not_called = [one for one in state.gateways if one.state not in CALLABLE or one.since_ms is not None]
    none_left = len(not_called) == len(state.gateways)
    for one in not_called:
        wait = f" {counted(one.waiting, 'payment')} wait{'s' if one.waiting == 1 else ''} for it." \
            if one.waiting else ""  # fmt: skip
        if one.state == NOT_SET_UP:
            yield _not_set_up(one, wait)
        elif one.state == "stopped":
            yield _stopped(one, CRITICAL if none_left else WARNING, wait)
        elif one.state == "account_changed":
            yield Finding(
                severity=CRITICAL,
                code="gateway_account_changed",
                headline=f"Gateway {one.name} is not called: its account has changed.",
                detail=_sentence(one.reason) + wait,
                since_ms=one.since_ms,
                action="Correct its key, or go on with the new account: "
                f"`streamsocial-billing gateways start "
                f'{one.name} --account ACCOUNT --reason "..."`.',
                subject=one.name,
            )  # fmt: skip
        else:
            yield Finding(
                severity=CRITICAL, code="gateway_failing",
                headline=f"Gateway {one.name} fails: no payment can be charged there.",
                detail=_sentence(f"last error: {one.reason or 'not known'}; it is tried now and then") + wait,
                since_ms=one.since_ms,
                action="Look at the gateway. Payments wait; they are charged once it works again.",
                subject=one.name,
            )  # fmt: skip


def _not_set_up(one: GatewayState, wait: str) -> Finding:
    return Finding(
        severity=CRITICAL, code="gateway_not_set_up",
        headline=f"Gateway {one.name} is not set up, and open payments wait for it.",
        detail=f"They are not tried.{wait}", since_ms=one.since_ms,
        action="Set its variables (docs/gateways.md) and start the workers again; "
        "keep it until none is open.",
        subject=one.name,
    )  # fmt: skip


def _stopped(one: GatewayState, severity: str, wait: str) -> Finding:
    return Finding(
        severity=severity, code="gateway_stopped",
        headline=f"Gateway {one.name} is stopped: no payment is charged there.",
        detail=f"Stopped by {one.actor or 'an operator'}: \"{one.reason}\".{wait}", since_ms=one.since_ms,
        action=f'When the reason is gone: `streamsocial-billing gateways start {one.name} --reason "..."`.',
        subject=one.name,
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


def _urls(workers: list[Worker]) -> str:
    return ", ".join(worker.url for worker in workers)


def _sentence(text: str) -> str:
    """With a capital letter and a full stop."""
    return text[:1].upper() + text[1:].rstrip(".") + "." if text else ""


CODES: Final = (
    "books_differ", "kafka_unreachable", "no_gateway", "gateway_failing", "gateway_account_changed",
    "gateway_not_set_up", "gateway_stopped", "worker_silent", "partition_without_worker",
    "partition_blocked", "event_stuck", "kafka_broker_unreachable",
    "worker_gone", "parked", "backlog_late", "open_late", "partition_starting", "starting", "figures_old",
    "all_well",
)  # fmt: skip
"""Every code of a finding; of two with the same severity the earlier one leads."""

__all__ = ["CODES", "CRITICAL", "OK", "SEVERITIES", "WARNING", "Finding", "findings", "listed"]
