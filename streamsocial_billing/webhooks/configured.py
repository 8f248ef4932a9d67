"""The gateways whose webhooks the settings set up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from streamsocial_billing.gateways.base import Gateway
from streamsocial_billing.settings import Settings
from streamsocial_billing.webhooks.receiver import PayPalSource, Source, StripeSource


def configured_sources(settings: Settings, gateways: Mapping[str, Gateway]) -> dict[str, Source]:
    """By the `{gateway}` of the path; a gateway takes part if it is configured and so is its webhook."""
    sources: dict[str, Source] = {}
    stripe, paypal = gateways.get("stripe"), gateways.get("paypal")
    if stripe is not None and settings.webhook_secrets:
        sources["stripe"] = StripeSource(settings.webhook_secrets, cast(Any, stripe))
    if paypal is not None and settings.paypal_webhook_id is not None:
        sources["paypal"] = PayPalSource(settings.paypal_webhook_id, cast(Any, paypal))
    return sources
