"""The state of payments and gateways as Prometheus metrics, beside those of the layer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from streamsocial_billing.domain.statuses import OPEN
from streamsocial_billing.payments.gateway_availability import ALL_STATES, Gatekeeper, GatewayStatus
from streamsocial_billing.payments.open_payments import Tally


class PaymentMetrics(Collector):
    """What one worker knows of the tasks that run on it; `dead_letter_counts` are by reason.

    Collected in a thread beside the event loop; everything it reads is replaced as a whole, or copied.
    """

    def __init__(self, gatekeeper: Gatekeeper, dead_letter_counts: Counter[str]) -> None:
        self._gatekeeper = gatekeeper
        self._dead_letter_counts = dead_letter_counts

    def collect(self) -> Iterable[Metric]:
        """Every metric."""
        gateways = self._gatekeeper.status()
        yield from _of_gateways(gateways)
        yield from _of_payments(self._gatekeeper.open_counts.total(), [one.name for one in gateways])
        dead = CounterMetricFamily("billing_dead_letters", "Dead letters written.", labels=["reason"])
        for reason, count in self._dead_letter_counts.copy().items():
            dead.add_metric([reason], count)
        yield dead


def _of_gateways(gateways: Iterable[GatewayStatus]) -> Iterable[Metric]:
    state = _gauge("gateway_state", "1 for the state that a gateway is in.", "gateway", "state")
    openings = CounterMetricFamily(
        "billing_gateway_breaker_openings", "How often the breaker opened.", labels=["gateway"]
    )
    changed = _gauge("gateway_account_changed", "1 while open payments belong to other accounts.", "gateway")
    for one in gateways:
        for name in ALL_STATES:
            state.add_metric([one.name, name], one.state == name)
        openings.add_metric([one.name], one.openings)
        changed.add_metric([one.name], bool(one.foreign))
    yield from (state, openings, changed)


def _of_payments(tally: Tally, gateways: Iterable[str]) -> Iterable[Metric]:
    """An alarm needs the 0 before the 1, so every gateway has its counts from the start."""
    count = _gauge("open_payments", "Payments with an open outcome.", "gateway", "status")
    oldest = _gauge(
        "oldest_open_payment_timestamp_seconds", "When the oldest of them arrived.", "gateway", "status"
    )
    minor = _gauge("open_minor", "Their amounts, minor units.", "gateway", "status", "currency")
    groups = {(gateway, status): 0 for gateway in gateways for status in sorted(OPEN)}
    for group, number in (groups | dict(tally.counts)).items():
        count.add_metric(group, number)
    for group, since in tally.oldest_ms.items():
        oldest.add_metric(group, since / 1000)
    for labels, amount in tally.minor.items():
        minor.add_metric(labels, amount)
    yield from (count, oldest, minor)


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"billing_{name}", text, labels=labels)
