"""Runs a worker as the first release was: calls to PayPal in their first shape alone.

`python -P older_worker.py FAUST_ARGUMENTS...`: it kills itself between its first call and its commit.
"""

import os
import signal
from typing import Any

from streamsocial_billing.app import create_app
from streamsocial_billing.cli.commands import the_settings
from streamsocial_billing.gateways.configured import configured_gateways
from streamsocial_billing.gateways.paypal import client as paypal
from streamsocial_billing.gateways.paypal.own_fields import custom_ids
from streamsocial_billing.gateways.paypal.source import sources


def first_words(ref: str, user_id: str, payment_id: str) -> list[str]:
    """The `custom_id` that the first release sent, and no other."""
    return custom_ids(ref, user_id, payment_id)[-1:]


def first_source(payment_method: str, product: str) -> list[dict[str, Any]]:
    """The `payment_source` that the first release sent, and no other."""
    return sources(payment_method, product)[-1:]


def dies_before_commit(point: str) -> None:
    """The gateway was called, nothing of that is stored."""
    if point == "before_commit":
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    setattr(paypal, "custom_ids", first_words)  # noqa: B010 - the product has no switch for it
    setattr(paypal, "sources", first_source)  # noqa: B010
    settings = the_settings()
    create_app(settings, configured_gateways(settings), probe=dies_before_commit).main()
