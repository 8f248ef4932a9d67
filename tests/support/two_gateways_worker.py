"""Runs a worker with two gateways: the simulator of the settings, another one as `paypal`."""

import os

from streamsocial_billing.app import create_app
from streamsocial_billing.cli.commands import the_settings
from streamsocial_billing.gateways.simulated import SimulatedGateway


class Other(SimulatedGateway):
    """A simulator under another name."""

    name = "paypal"
    account = "acct_other"


if __name__ == "__main__":
    settings = the_settings()
    permits = settings.max_in_flight // 2
    other = Other(os.environ["OTHER_GATEWAY_URL"], permits)
    gateways = SimulatedGateway(settings.simulator_url, permits), other
    create_app(settings, {gateway.name: gateway for gateway in gateways}).main()
