"""Which gateways take part, and which of them a payment goes to that names none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from streamsocial_billing.domain.foreign_fields import BadInput
from streamsocial_billing.settings import Settings

NEEDED: Final = {
    "simulated": ("gateway_url",),
    "stripe": ("stripe_api_key",),
    "paypal": ("paypal_client_id", "paypal_client_secret"),
}
"""The settings without which a gateway takes no part."""
HOW_TO_SET_UP: Final = (
    "set BILLING_STRIPE_API_KEY, BILLING_PAYPAL_CLIENT_ID with its secret, or BILLING_GATEWAY_URL"
)


def gateways_set_up(settings: Settings) -> tuple[str, ...]:
    """The gateways that take part, by name."""
    return tuple(sorted(name for name in NEEDED if _missing(settings, name) is None))


def with_gateway(
    payment: Mapping[str, Any], settings: Settings, override: str | None = None
) -> dict[str, Any]:
    """The payment with a gateway: its own, else `override`, else BILLING_DEFAULT_GATEWAY, else the only one.

    Every intake asks here, so that what one accepts goes nowhere else by another. Raises BadInput
    (`missing_field`) where that leaves several gateways, or none: a guess would charge at the wrong one, or
    wait at one that nobody runs.
    """
    chosen = payment.get("gateway")
    if chosen is None:
        chosen = override or settings.default_gateway or _only_one(gateways_set_up(settings))
    return {**payment, "gateway": chosen}


def _only_one(names: tuple[str, ...]) -> str:
    if len(names) == 1:
        return names[0]
    there = f"several are set up ({', '.join(names)})" if names else "none is set up here"
    what_to_do = "name it in the payment, or set BILLING_DEFAULT_GATEWAY"
    raise BadInput("missing_field", f"gateway is missing, and {there}: {what_to_do}")


def default_problem(settings: Settings) -> str | None:
    """Why BILLING_DEFAULT_GATEWAY cannot be what it is set to, with what to do; None: it can."""
    name = settings.default_gateway
    if name is None or (variable := _missing(settings, name)) is None:
        return None
    return f"BILLING_DEFAULT_GATEWAY={name} is not set up: set {variable} too, or choose another gateway"


def participation(settings: Settings) -> str:
    """One line: which gateways take part, which do not and why, where a payment goes that names none."""
    there = gateways_set_up(settings)
    others = sorted(NEEDED.keys() - set(there))
    absent = [f"{name} ({_missing(settings, name)} is not set)" for name in others]
    parts = [f"take part: {', '.join(there) or 'none'}"]
    if absent:
        parts.append(f"take no part: {', '.join(absent)}")
    try:
        parts.append(f"a payment that names none goes to {with_gateway({}, settings)['gateway']}")
    except BadInput:
        parts.append("a payment that names none is refused (BILLING_DEFAULT_GATEWAY is not set)")
    return f"gateways that {'; '.join(parts)}"


def _missing(settings: Settings, gateway: str) -> str | None:
    """The first variable that keeps a gateway from taking part."""
    for name in NEEDED[gateway]:
        if getattr(settings, name) is None:
            return f"BILLING_{name.upper()}"
    return None
