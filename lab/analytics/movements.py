"""What a record says about money: the rule that makes revenue of `charge-results` and `payment-metrics`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

RESULTS: Final = "charge-results"
METRICS: Final = "payment-metrics"
MINUTE_MS: Final = 60_000
_TIME_OF: Final = {RESULTS: "processed_at", METRICS: "at"}


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
    record = json.loads(value or b"{}")
    if record.get("status") != "succeeded" or record["replayed"]:
        return None
    at = record[_TIME_OF[topic]]
    return Movement(
        at - at % MINUTE_MS, record["product"], record["currency"], record["action"], record["amount_minor"]
    )
