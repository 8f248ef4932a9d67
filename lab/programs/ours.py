"""The product itself, with a probe at the points of its commit."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from lab.guarantees import ANSWERED, CHARGED, COMMITTED
from lab.programs.till import ORDERS
from streamsocial_billing.app import create_app
from streamsocial_billing.cli.commands import the_settings
from streamsocial_billing.gateways.configured import configured_gateways
from torture.orders import Orders

POINTS: Final = {"before_send": CHARGED, "before_commit": ANSWERED, "after_commit": COMMITTED}
"""Of the layer's points (docs/exactly-once.md) those that every guarantee has."""


def named(probe: Callable[[str], None]) -> Callable[[str], None]:
    """A probe that knows each point by its own name and by the lab's."""

    def both(point: str) -> None:
        probe(point)
        if point in POINTS:
            probe(POINTS[point])

    return both


def main() -> None:
    """Build the product's app; then it is a Faust command."""
    settings = the_settings()
    options: dict[str, Any] = {}
    if "LAB_TRANSACTION_TIMEOUT_MS" in os.environ:  # somebody looks at an open transaction for a while
        options["transaction_timeout_ms"] = int(os.environ["LAB_TRANSACTION_TIMEOUT_MS"])
    probe = named(Orders(Path(os.environ[ORDERS])).probe)
    create_app(settings, configured_gateways(settings), probe=probe, **options).main()


if __name__ == "__main__":
    main()
