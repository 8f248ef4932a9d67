"""The gateways whose webhooks the settings set up."""

from __future__ import annotations

from collections.abc import Mapping

from streamsocial_billing.gateways.base import Gateway
from streamsocial_billing.intake.webhooks.receiver import (
    AsksOwner,
    PayPalSource,
    Source,
    StripeSource,
    Verifies,
)
from streamsocial_billing.settings import Settings


def configured_sources(settings: Settings, gateways: Mapping[str, Gateway]) -> dict[str, Source]:
    """By the `{gateway}` of the path; a gateway takes part if it is configured and so is its webhook.

    Raises TypeError for a client that cannot be asked what a webhook needs.
    """
    sources: dict[str, Source] = {}
    stripe, paypal = gateways.get("stripe"), gateways.get("paypal")
    if stripe is not None and settings.webhook_secrets:
        if not isinstance(stripe, AsksOwner):
            raise TypeError(f"{stripe} has no owner_of")
        sources["stripe"] = StripeSource(settings.webhook_secrets, stripe)
    if paypal is not None and settings.paypal_webhook_id is not None:
        if not isinstance(paypal, Verifies):
            raise TypeError(f"{paypal} has no owner_of, verify_webhook")
        sources["paypal"] = PayPalSource(settings.paypal_webhook_id, paypal)
    return sources
