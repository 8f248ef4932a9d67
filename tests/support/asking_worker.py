"""Runs a worker whose gateway is said to forget idempotency keys after a few seconds.

So an open payment is asked for by reference at its first try, which takes 18 hours at a real gateway.
"""

from streamsocial_billing.app import create_app
from streamsocial_billing.cli.commands import the_settings
from streamsocial_billing.domain.gateway_calls import Traits
from streamsocial_billing.gateways.breaker import Rules
from streamsocial_billing.gateways.simulated import SimulatedGateway

WINDOW_S = 4.0


class Forgetful(SimulatedGateway):
    """The simulator, with other traits."""

    traits = Traits(key_safe_window_s=WINDOW_S, consistency_delay_s=0.5)


if __name__ == "__main__":
    settings = the_settings()
    gateway = Forgetful(settings.simulator_url)
    # each payment is called once, however many calls before it have failed
    create_app(settings, {gateway.name: gateway}, breaker=Rules(in_a_row=1_000, failing_share=2.0)).main()
