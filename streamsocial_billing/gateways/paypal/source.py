"""What PayPal charges: a payment token of its vault, as a payment of ours that its owner agreed to before.

`payment_method` is the token's id, of a saved PayPal account; `card/ID` is that of a saved card. The shape
has versions, the newest first:

2  `paypal` or `card` with `vault_id` and `stored_credential` (vault v3; "payment_source" at
   developer.paypal.com/docs/api/orders/v2): we ask, the payer is not there, and was when it was saved;
   whether it is one payment of a series.
1  `token` of the type PAYMENT_METHOD_TOKEN (vault v2), which that page knows no more. Releases before made
   their calls with it.
"""

from __future__ import annotations

from typing import Any, Final

CARD: Final = "card/"
SUBSCRIPTION: Final = "subscription"
OURS: Final = {"payment_initiator": "MERCHANT", "usage": "SUBSEQUENT"}
"""A gift or an upgrade claims no more: nothing tells when there will be another."""


def sources(payment_method: str, product: str) -> list[dict[str, Any]]:
    """`payment_source` in each shape that it ever had, the newest first."""
    in_series = product == SUBSCRIPTION  # a fixed amount, at fixed intervals, paid before each
    if payment_method.startswith(CARD):
        stored = {**OURS, "payment_type": "RECURRING" if in_series else "UNSCHEDULED"}
        return [{"card": {"vault_id": payment_method.removeprefix(CARD), "stored_credential": stored}}]
    stored = {**OURS, "usage_pattern": "SUBSCRIPTION_PREPAID"} if in_series else OURS
    return [
        {"paypal": {"vault_id": payment_method, "stored_credential": stored}},
        {"token": {"id": payment_method, "type": "PAYMENT_METHOD_TOKEN"}},
    ]
