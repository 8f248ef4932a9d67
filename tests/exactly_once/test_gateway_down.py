"""One of two gateways is down for a while, under load: what the other one's payments notice of it."""

from __future__ import annotations

import signal
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import orjson
import pytest
from support.system import System, payment

from processes import ROOT
from processes.kernel import resident_bytes
from processes.simulator import Simulator
from streamsocial_billing.audit.readers import read_ledger
from streamsocial_billing.domain.events import PaymentEvent
from streamsocial_billing.domain.statuses import FINAL

MOST_GROWTH_KIB = 48 * 1024
GATEWAYS = "simulated", "paypal"
MEANWHILE = 6.0
"""An outage lasts so much longer at most, where the machine is too busy for the other one's payments."""


class TwoGateways(System):
    """A system whose workers have a second gateway."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.other = Simulator(self.folder / "other.sqlite")
        self.other.start()
        self._read_to = 0
        self._finals: dict[str, Counter[str]] = {gateway: Counter() for gateway in GATEWAYS}
        for worker in self.workers:
            worker.program = (sys.executable, "-P", str(ROOT / "tests/support/two_gateways_worker.py"))
            worker.environment["OTHER_GATEWAY_URL"] = self.other.url

    def __enter__(self) -> TwoGateways:
        super().__enter__()
        return self

    def __exit__(self, *args: Any) -> None:
        try:
            super().__exit__(*args)
        finally:
            self.other.stop()

    def memory_kib(self) -> int:
        """Resident memory of the workers together."""
        return sum(resident_bytes(worker.pid) for worker in self.workers) // 1024

    def finals(self, gateway: str) -> Counter[str]:
        """How many final results each payment of a gateway has; each record is read once."""
        records = self.results.records
        while self._read_to < len(records):
            one = orjson.loads(records[self._read_to].value())
            self._read_to += 1
            if one["status"] in FINAL:
                self._finals[one["gateway"]][one["payment_id"]] += 1
        return self._finals[gateway]

    def wait_final(self, gateway: str, count: int, within_s: float) -> None:
        """Return when so many payments of the gateway are final."""
        done = self.results.wait(lambda: len(self.finals(gateway)) >= count, within_s)
        assert done, f"{len(self.finals(gateway))} of {count} final at {gateway}{self.worker.tail()}"

    def latencies_ms(self, events: Iterable[PaymentEvent]) -> list[int]:
        """From being made to the commit of the first final result, sorted."""
        made = {event.payment_id: event.requested_at for event in events}
        took: dict[str, int] = {}
        for message in list(self.results.records):
            one = orjson.loads(message.value())
            if one["payment_id"] in made and one["status"] in FINAL:
                took.setdefault(one["payment_id"], message.timestamp()[1] - made[one["payment_id"]])
        return sorted(took.values())


class Load:
    """Makes payments in pairs, one for each gateway."""

    def __init__(self, system: TwoGateways) -> None:
        self._system = system
        self.made: dict[str, list[PaymentEvent]] = {gateway: [] for gateway in GATEWAYS}

    def submit(self, pairs: int) -> None:
        """So many payments for each gateway."""
        events = []
        for _ in range(pairs):
            for gateway, made in self.made.items():
                number = len(made)
                made.append(
                    payment(f"user-{gateway[0]}{number % 97}", f"{gateway}-{number}", gateway=gateway)
                )
                events.append(made[-1])
        self._system.submit(events)


@pytest.mark.parametrize("way", ["gone", "hung"])
@pytest.mark.parametrize(
    ("count", "down_s", "environment"),
    [
        pytest.param(200, 10.0, {"BILLING_MAX_IN_FLIGHT": 20}, marks=pytest.mark.timeout(480)),
        pytest.param(
            2000, 120.0, {"BILLING_SESSION_TIMEOUT_S": 10, "BILLING_GATEWAY_DEADLINE_S": 8},
            marks=(pytest.mark.slow, pytest.mark.timeout(900)),
        ),
    ],
)  # fmt: skip
def test_a_gateway_that_is_down_holds_up_no_one_but_its_own_payments(
    broker: str, tmp_path: Path, unique_name: str, count: int, down_s: float, environment: dict[str, int],
    way: str,
) -> None:  # fmt: skip
    """0 lost, 0 double, all final afterwards; memory flat; the other one's payments are final meanwhile."""
    with TwoGateways(broker, tmp_path, unique_name, workers=2, **environment) as system:
        load = Load(system)
        system.start()
        before = count // 10
        load.submit(before)
        for gateway in GATEWAYS:
            system.wait_final(gateway, before, 60)
        usual = system.latencies_ms(load.made["paypal"])

        _down(system, way)
        began, memory = time.monotonic(), [system.memory_kib()]
        steps = 20
        for step in range(steps):
            load.submit((count // 2 - before) // steps)
            memory.append(system.memory_kib())
            # the outage has a length; payments come in over two thirds of it
            time.sleep(max(0.0, began + down_s * (step + 1) / steps / 1.5 - time.monotonic()))
        system.wait_final("paypal", len(load.made["paypal"]), MEANWHILE * down_s)
        other = system.latencies_ms(load.made["paypal"][before:])
        time.sleep(max(0.0, began + down_s - time.monotonic()))
        memory.append(system.memory_kib())
        _back(system, way)
        back = time.monotonic()
        system.wait_final("simulated", len(load.made["simulated"]), 400)
        drained_s = time.monotonic() - back
        memory.append(system.memory_kib())

        _say(way, count, usual, other, drained_s, memory, system)
        assert max(memory) - memory[0] < MOST_GROWTH_KIB, memory
        for gateway, url in zip(GATEWAYS, (system.gateway.url, system.other.url), strict=True):
            once = {event.payment_id: 1 for event in load.made[gateway]}
            assert once == dict(system.finals(gateway))
            ledger, _ = read_ledger(url, 1000)
            assert once == dict(Counter(one.payment.partition("/")[2] for one in ledger))
            assert {"succeeded"} == {one.status for one in ledger}
        firsts = Counter(one["payment_id"] for one in system.all_results() if not one["resolves"])
        assert {1} == set(firsts.values())
        assert system.sent == len(firsts)
        system.check_order()
        system.stop_workers()
        system.check_disk()


def _down(system: TwoGateways, way: str) -> None:
    if way == "gone":
        system.gateway.kill()
    else:
        system.gateway.signal(signal.SIGSTOP)


def _back(system: TwoGateways, way: str) -> None:
    if way == "gone":
        system.gateway.start()
    else:
        system.gateway.signal(signal.SIGCONT)


def _say(
    way: str, count: int, usual: list[int], other: list[int], drained_s: float, memory: list[int],
    system: TwoGateways,
) -> None:  # fmt: skip
    """The figures, for whoever runs the full size with -s."""

    def quantiles(values: list[int]) -> str:
        return "/".join(str(values[min(len(values) - 1, int(len(values) * q))]) for q in (0.5, 0.99, 1.0))

    unknown = sum(one["status"] == "unknown" and not one["replayed"] for one in system.all_results())
    print(
        f"{way}, {count} payments: other gateway p50/p99/max {quantiles(usual)} ms before, "
        f"{quantiles(other)} ms meanwhile; {unknown} unknown, drained {drained_s:.1f} s after the end; "
        f"workers' memory {memory[0] // 1024} MiB, most {max(memory) // 1024} MiB"
    )
