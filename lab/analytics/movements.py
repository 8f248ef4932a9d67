"""What a record says about money: the rule that makes revenue of `charge-results` and `payment-metrics`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from streamsocial_billing.domain.results import ChargeResult, PaymentMetric

RESULTS: Final = "charge-results"
METRICS: Final = "payment-metrics"
MINUTE_MS: Final = 60_000


@dataclass(frozen=True, slots=True)
class Movement:
    """Money that moved.

    minute        ms since the epoch at which its minute begins
    action        `charge`: to us, `refund`: back
    amount_minor  minor units of `currency`, more than 0
    """

    minute: int
    product: str
    currency: str
    action: str
    amount_minor: int


def movement(topic: str, value: bytes | None) -> Movement | None:
    """What moved by a record of this topic (its name without a prefix); None: nothing.

    Money moved = `succeeded`, not `replayed`. A replay repeats what was counted before; a record that
    `resolves` an open payment is the first one that is `succeeded`; `requested` is no outcome.
    """
    if value is None:
        return None
    if topic == RESULTS:
        result = ChargeResult.from_bytes(value)
        return _moved(result, result.processed_at)
    metric = PaymentMetric.from_bytes(value)
    return _moved(metric, metric.at)


def _moved(one: ChargeResult | PaymentMetric, at: int) -> Movement | None:
    if one.status != "succeeded" or one.replayed:
        return None
    return Movement(at - at % MINUTE_MS, one.product, one.currency, one.action, one.amount_minor)
