"""One run of a real worker whose calls to Stripe meet a fault of the network, with a SIGKILL amid them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from support.system import System, payment
from support.toxiproxy import Toxiproxy

from streamsocial_billing.domain.statuses import OPEN

USERS = 10
SETTLED_WITHIN_S = 240.0
FAULTS: dict[str, tuple[str, str, dict[str, int]]] = {
    "time-out down": ("timeout", "downstream", {"timeout": 0}),
    "time-out up": ("timeout", "upstream", {"timeout": 0}),
    "reset": ("reset_peer", "downstream", {"timeout": 100}),
    "body cut": ("limit_data", "downstream", {"bytes": 400}),
    "slow": ("latency", "downstream", {"latency": 3000}),
}
Results = list[dict[str, Any]]


def results_under(
    fault: str, upstream: str, ids: list[str], broker: str, folder: Path, name: str, **stripe: str
) -> Results:
    """The worker dies while its calls hang, comes back, meets the fault again; then the network is well.

    `stripe`: the account and the payment method of these payments. What came of them, once all have ended.
    """
    with Toxiproxy(upstream.removeprefix("http://")) as proxy:
        settings: dict[str, Any] = {
            "BILLING_STRIPE_API_KEY": "sk_test_faults", "BILLING_STRIPE_ACCOUNT": stripe["account"],
            "BILLING_STRIPE_URL": proxy.url,
        }  # fmt: skip
        with System(broker, folder, name, **settings) as system:
            system.start()
            toxic, stream, attributes = FAULTS[fault]
            proxy.poison(toxic, stream, **attributes)
            system.submit(
                payment(f"user-{number % USERS}", one, gateway="stripe", payment_method=stripe["method"])
                for number, one in enumerate(ids)
            )
            system.results.wait(lambda: system.answered() > 0, 5)  # calls hang, few if any are answered
            system.worker.kill()
            system.worker.start()
            system.wait_answered(len(ids) // 2)
            proxy.heal()
            assert system.results.wait(lambda: settled(system), SETTLED_WITHIN_S), system.worker.tail()
            results = system.all_results()
            system.check_order()
            system.stop_workers()
            system.check_disk()
    return results


def settled(system: System) -> bool:
    """True once each payment has a final result."""
    final = {one["payment_id"] for one in system.all_results() if one["status"] not in OPEN}
    return len(final) == system.sent
