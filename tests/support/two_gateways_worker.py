"""Runs a worker with two gateways: the simulator of the settings, another one as `paypal`."""

import os

from streamsocial_billing.app import create_app
from streamsocial_billing.cli.main import the_settings
from streamsocial_billing.gateways.simulated import SimulatedGateway


class Other(SimulatedGateway):
    """A simulator under another name."""

    name = "paypal"
    account = "acct_other"


if __name__ == "__main__":
    settings = the_settings()
    places = settings.max_in_flight // 2
    other = Other(os.environ["OTHER_GATEWAY_URL"], places)
    gateways = SimulatedGateway(settings.simulator_url, places), other
    create_app(settings, {gateway.name: gateway for gateway in gateways}).main()
