"""A plain billing worker whose gateway lives inside the process: what is left is ours."""

import os
import sys

from streamsocial_billing.app import create_app
from streamsocial_billing.gateways.instant import InstantGateway
from streamsocial_billing.settings import Settings


def main() -> None:
    """Run as: python -m benchmarks.worker DELAY_MS --datadir=... worker ..."""
    delay_ms = float(sys.argv.pop(1))
    gateway = InstantGateway(delay_ms / 1000)
    create_app(Settings.from_environment(os.environ), {gateway.name: gateway}).main()


if __name__ == "__main__":
    main()
