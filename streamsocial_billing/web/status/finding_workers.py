"""What is wrong with Kafka, the workers, their partitions."""

from __future__ import annotations

from collections.abc import Iterator

from streamsocial_billing.domain.english import counted, lasting, partitions
from streamsocial_billing.web.status.finding import CRITICAL, WARNING, Finding, sentence
from streamsocial_billing.web.status.state import (
    NO_WORKER,
    NOT_KNOWN,
    RUNNING,
    STARTING,
    Partition,
    State,
    Worker,
)


def of_kafka(state: State) -> Iterator[Finding]:
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
        detail=sentence(f"asked by {_urls(lost)}"), since_ms=since_ms,
        action="Look at the broker and the network. "
        "Workers go on by themselves once it answers; nothing is lost.",
    )  # fmt: skip


def of_brokers(state: State) -> Iterator[Finding]:
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
            detail=f"{sentence(waits) + ' ' if one.waiting else ''}{sentence(where)}",
            since_ms=one.since_ms,
            action="Start it, or look at the network. "
            "The others serve meanwhile; with a second one gone all waits.",
            subject=str(one.number),
        )  # fmt: skip


def of_workers(state: State) -> Iterator[Finding]:
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


def of_partitions(state: State) -> Iterator[Finding]:
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
            sentence(partitions(free)), action="Start a worker. Look at the workers' logs.",
        )  # fmt: skip
    yield from _blocked(own)
    starting = [one.number for one in own if one.state in STARTING or one.state == NOT_KNOWN]
    if starting:
        verb = "is" if len(starting) == 1 else "are"
        yield Finding(
            WARNING, "partition_starting", f"{counted(len(starting), 'partition')} {verb} being started.",
            sentence(partitions(starting)), action="Wait some seconds: it goes on by itself.",
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
            sentence(f"{partitions(numbers)}: {why or 'no reason known'}"),
            action="See what docs/operations.md says about this line.", subject=why,
        )  # fmt: skip


def of_events(state: State) -> Iterator[Finding]:
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


def _urls(workers: list[Worker]) -> str:
    return ", ".join(worker.url for worker in workers)
