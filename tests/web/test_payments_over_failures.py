"""POST /payments while a worker dies, while one stops and another joins: nobody is sent away.

Each payment is sent twice at the same moment, to both workers. A refused or cut connection is tried again at
another worker, as a load balancer does; every answer counts.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import orjson
from prometheus_client.parser import text_string_to_metric_families
from support.patient_worker import PATIENT
from support.system import System, WorkerProcess
from support.topics import committed
from support.until import until
from support.web_client import get

from streamsocial_billing.settings import PAYMENTS

PARTITIONS = 4
CLIENTS = 8
LONGEST_S = 60.0
"""Of who waits for nobody that is away. The figure itself is printed."""


@dataclass
class Senders:
    """Clients that send payments side by side, each payment to two of the workers that take any."""

    targets: list[WorkerProcess]
    answers: Counter[tuple[int, str]] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    slowest: tuple[float, str] = (0.0, "")
    sent: int = 0

    async def send_all(self, name: str, count: int, at: int, then: Callable[[], Awaitable[None]]) -> None:
        """Send `count` payments; `then` begins when `at` of them were sent, beside the others."""
        numbers = iter(range(count))
        beside: list[asyncio.Task[None]] = []

        async def client(session: aiohttp.ClientSession) -> None:
            for number in numbers:
                if number == at:
                    beside.append(asyncio.ensure_future(then()))
                turned = self.targets[number % len(self.targets) :] + self.targets
                await asyncio.gather(*(self._send(session, f"{name}-{number}", to) for to in turned[:2]))
                self.sent += 1

        timeout = aiohttp.ClientTimeout(total=120)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            await asyncio.gather(*(client(session) for _ in range(CLIENTS)))
        await asyncio.gather(*beside)

    async def _send(self, session: aiohttp.ClientSession, name: str, worker: WorkerProcess) -> None:
        body = {
            "user_id": f"u-{name}", "product": "gift", "amount_minor": 999, "currency": "EUR",
            "payment_method": "pm_card_visa", "gateway": "simulated",
        }  # fmt: skip
        began = time.monotonic()
        for target in [worker, *(other for other in [*self.targets, *self.targets] if other is not worker)]:
            try:
                url = f"http://127.0.0.1:{target.web_port}/payments"
                async with session.post(url, json=body, headers={"Idempotency-Key": name}) as answer:
                    said = await answer.json(content_type=None)
                    break
            except (aiohttp.ClientConnectionError, ConnectionError):
                continue
        else:
            raise AssertionError(f"no worker takes {name}")
        self.seconds.append(time.monotonic() - began)
        self.slowest = max(self.slowest, (self.seconds[-1], f"{target.name}, {name}"))
        self.answers[answer.status, said.get("error") or said["status"]] += 1

    def report(self, what: str) -> None:
        """Print the figures."""
        middle, (slowest, where) = statistics.median(self.seconds), self.slowest
        above = sum(one > 0.3 for one in self.seconds)
        print(f"\n{what}: {len(self.seconds)} requests, median {middle * 1000:.0f} ms, {above} over 300 ms, "
              f"slowest {slowest * 1000:.0f} ms ({where}), answers {dict(self.answers)}")  # fmt: skip


def be_patient(system: System) -> None:
    """A Kafka that is only slow refuses nothing; who does not listen is away at once."""
    for worker in system.workers:
        worker.program = PATIENT


def both_share(workers: list[WorkerProcess]) -> None:
    """Return when each is ready with half of the partitions."""

    def shared() -> bool:
        bodies = [get(worker.web_port, "/ready").json() for worker in workers]
        return all(body["ready"] and len(body["assigned"]) == PARTITIONS // 2 for body in bodies)

    until(shared, "both workers share the partitions")


def unchecked(worker: WorkerProcess) -> float:
    """How many payments this worker has taken without asking their owner."""
    families = text_string_to_metric_families(get(worker.web_port, "/metrics").body.decode())
    name = "billing_payments_unchecked_total"
    return sum(one.value for family in families for one in family.samples if one.name == name)


def every_charge(system: System) -> Counter[str]:
    """How many charges the gateway's ledger holds, by payment_id."""
    found: Counter[str] = Counter()
    after = ""
    while True:
        page: Any = system.gateway.get(f"/v1/charges?limit=100{after}")["data"]
        if not page:
            return found
        found.update(one["metadata"]["payment_id"] for one in page)
        after = f"&starting_after={page[-1]['id']}"


def each_was_charged_once(system: System, name: str, count: int) -> None:
    """One charge in the ledger, one success that is no replay; all other results are replays of it."""
    sent = [orjson.loads(one.value() or b"")["payment_id"] for one in committed(system.settings, PAYMENTS)]
    system.sent = len(sent)
    system.wait_answered()
    once = {f"{name}-{number}": 1 for number in range(count)}
    assert set(once) == set(sent)
    assert once == every_charge(system)


    def successes() -> Counter[str]:
        return Counter(
            one["payment_id"] for one in system.all_results()
            if one["status"] == "succeeded" and not one["replayed"]
        )  # fmt: skip

    system.results.wait(lambda: once == successes())
    assert once == successes()
    print(f"{len(sent)} events for {count} payments, {len(sent) - count} of them repeats")
    system.audit()


async def test_no_payment_is_sent_away_while_a_worker_is_killed(
    broker: str, tmp_path: Path, unique_name: str
) -> None:
    """800 payments, each sent to two workers, over a SIGKILL of one: no 503, each charged once."""
    options: dict[str, Any] = {"workers": 2, "partitions": PARTITIONS, "BILLING_SESSION_TIMEOUT_S": 10}
    with System(broker, tmp_path, unique_name, **options) as system:
        be_patient(system)
        system.start()
        await asyncio.to_thread(both_share, system.workers)
        survivor, victim = system.workers
        senders = Senders([survivor, victim])

        async def kill() -> None:
            await asyncio.to_thread(victim.kill)

        await senders.send_all("k", 800, 200, kill)
        senders.report("over a SIGKILL")
        assert {200, 202} >= {status for status, _ in senders.answers}, senders.answers
        assert unchecked(survivor) > 0
        assert max(senders.seconds) < LONGEST_S
        await asyncio.to_thread(each_was_charged_once, system, "k", 800)


async def test_no_payment_is_sent_away_while_a_worker_stops_and_another_joins(
    broker: str, tmp_path: Path, unique_name: str
) -> None:
    """600 payments, each sent to two workers, over a clean stop with a join: no 503, each charged once."""
    with System(broker, tmp_path, unique_name, workers=3, partitions=PARTITIONS) as system:
        be_patient(system)
        first, leaver, joiner = system.workers
        for worker in (first, leaver):
            worker.start()
            worker.wait_ready()
        await asyncio.to_thread(both_share, [first, leaver])
        senders = Senders([first, leaver])

        async def change() -> None:
            joiner.start()
            senders.targets.append(joiner)
            assert 0 == await asyncio.to_thread(leaver.stop), leaver.tail()
            senders.targets.remove(leaver)

        await senders.send_all("s", 600, 150, change)
        senders.report("over a clean stop with a join")
        assert {200, 202} >= {status for status, _ in senders.answers}, senders.answers
        assert max(senders.seconds) < LONGEST_S
        await asyncio.to_thread(each_was_charged_once, system, "s", 600)
