"""The gateways that the settings configure."""

from __future__ import annotations

from streamsocial_billing.gateways.base import Gateway
from streamsocial_billing.gateways.paypal.client import PayPalGateway
from streamsocial_billing.gateways.simulated import SimulatedGateway
from streamsocial_billing.settings import Settings


def configured_gateways(settings: Settings) -> dict[str, Gateway]:
    """By the value of an event's `gateway` field: those that the settings name (see `gateways_set_up`)."""
    permits = settings.calls_at_once
    gateways: list[Gateway] = []
    if settings.gateway_url is not None:
        gateways.append(SimulatedGateway(settings.gateway_url, max_connections=permits))
    if settings.stripe_api_key is not None:
        # here, not above: who does not charge at Stripe does not wait for its SDK to load
        from streamsocial_billing.gateways.stripe.client import StripeGateway

        gateways.append(
            StripeGateway(
                settings.stripe_api_key, settings.stripe_url, account=settings.stripe_account,
                max_connections=permits,
            )
        )  # fmt: skip
    if settings.paypal_client_id is not None and settings.paypal_client_secret is not None:
        gateways.append(
            PayPalGateway(
                settings.paypal_client_id, settings.paypal_client_secret, settings.paypal_url,
                max_connections=permits,
            )
        )  # fmt: skip
    return {gateway.name: gateway for gateway in gateways}
