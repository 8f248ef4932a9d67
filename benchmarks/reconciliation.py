"""A million payments in each leg: our results on Kafka, the simulator's list over HTTP, a settlement file."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from confluent_kafka import Producer
from confluent_kafka.admin import NewTopic

from faust_exactly_once import Cluster
from processes.simulator import Simulator
from streamsocial_billing.domain.payment_identity import gateway_key_of
from streamsocial_billing.domain.results import charge_result
from streamsocial_billing.gateways.simulator.ledger import Ledger
from streamsocial_billing.reconciliation.settlement.simple import HEADER
from streamsocial_billing.settings import RESULTS, Settings

LISTENS_WITHIN_S: Final = 120.0
"""It reads a million charges first."""
SINCE_MS: Final = 1_767_225_600_000
"""2026-01-01; a payment each 2 s from then on."""
BROKEN_EVERY: Final = 100_000
"""Of so many payments one is missing in our books."""


def reconciliation(settings: Settings, environ: dict[str, str], folder: Path, count: int) -> dict[str, Any]:
    """Fill the legs, reconcile twice in processes of their own; the second run finds the file loaded."""
    fill_topics(settings, count)
    ledger, lines = folder / "million.sqlite", folder / "million.csv"
    fill_ledger(ledger, count)
    fill_file(lines, count)
    gateway = Simulator(ledger)
    gateway.start(LISTENS_WITHIN_S)
    try:
        told = environ | {"BILLING_GATEWAY_URL": gateway.url}
        first = run(told, folder, "--settlement", str(lines))
        second = run(told, folder)
    finally:
        gateway.stop()
    return {"payments": count, **first, "second_run_s": second["run_s"], "second_peak_mb": second["peak_mb"]}


def run(environ: dict[str, str], folder: Path, *more: str) -> dict[str, Any]:
    """One run: seconds, CPU seconds, the peak of its memory, its exit code (1: the planted breaks)."""
    command = [str(Path(sys.executable).with_name("streamsocial-billing")), "reconcile"]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("BILLING_")}
    told, started = folder / "reconcile.txt", time.monotonic()
    with told.open("w") as out:
        child = subprocess.Popen(  # noqa: S603 - our own command
            [*command, "--output", str(folder / "reconciliation"), *more], env=inherited | environ, stdout=out
        )
        _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    return {
        "run_s": round(time.monotonic() - started, 1), "cpu_s": round(used.ru_utime + used.ru_stime, 1),
        "peak_mb": used.ru_maxrss // 1024, "exit": child.returncode,
        "said": told.read_text().strip().splitlines()[-1],
    }  # fmt: skip


def payments(count: int) -> Iterator[tuple[int, str, str, str, int, int]]:
    """Number, user, payment_id, reference, amount, moment."""
    for number in range(count):
        user, payment = f"user-{number % 50_000}", f"pay-{number}"
        ref = gateway_key_of(user, "charge", payment)
        yield number, user, payment, ref, 100 + number % 9_973, SINCE_MS + number * 2000


def fill_topics(settings: Settings, count: int) -> None:
    """Our books."""
    names = [settings.changelog(name) for name in ("payments", "open_payments")]
    compact = {"cleanup.policy": "compact"}
    cluster = Cluster(settings.client_config(), 15)
    cluster.create([NewTopic(name, settings.partitions, 1, config=compact) for name in names])
    producer = Producer(settings.client_config() | {"partitioner": "murmur2_random", "linger.ms": 50})
    topic = settings.topic(RESULTS)
    for number, user, payment, _, amount, at in payments(count):
        if number % BROKEN_EVERY == 7:
            continue
        value = charge_result(
            payment_id=payment, user_id=user, action="charge", product="gift", status="succeeded",
            reason=None, replayed=False, amount_minor=amount, currency="EUR", gateway="simulated",
            gateway_ref=f"ch_{number}", attempt=1, requested_at=at, processed_at=at + 50,
            source={"topic": "payments", "partition": 0, "offset": number},
        )  # fmt: skip
        while True:
            try:
                producer.produce(topic, value, user.encode(), timestamp=at)
                break
            except BufferError:
                producer.poll(0.2)
    producer.flush(120)
    producer.close()


def fill_ledger(path: Path, count: int) -> None:
    """The simulator's list, written into its file as it would have written it."""
    async def make() -> None:
        ledger = Ledger(path)
        await ledger.open()
        await ledger.close()

    asyncio.run(make())
    with closing(sqlite3.connect(path)) as db:
        db.executemany(
            "INSERT INTO charges (id, idempotency_key, params_hash, amount, currency, status, payment_method,"
            " ref, payment_id, user_id, created_ms)"
            " VALUES (?, ?, '', ?, 'EUR', 'succeeded', 'pm_card_visa', ?, ?, ?, ?)",
            ((f"ch_{n}", ref, amount, ref, payment, user, at)
             for n, user, payment, ref, amount, at in payments(count)),
        )  # fmt: skip
        db.commit()


def fill_file(path: Path, count: int) -> None:
    """A settlement file in our own format."""
    total = 0
    with path.open("w", encoding="utf-8") as file:
        file.write(",".join(HEADER) + "\n")
        for number, _, _, ref, amount, at in payments(count):
            fee = amount // 50
            total += amount - fee
            when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(at / 1000))
            file.write(
                f"charge,simulated,ch_{number},,{ref},{amount / 100:.2f},{fee / 100:.2f},"
                f"{(amount - fee) / 100:.2f},EUR,po_{number // 43_200},{when}\n"
            )
        file.write(f"trailer,,{count},,,,,{total / 100:.2f},EUR,,\n")
