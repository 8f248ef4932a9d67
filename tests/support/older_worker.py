"""Runs a worker as an older release was: `custom_id` at PayPal in its first shape alone.

`python -P older_worker.py FAUST_ARGUMENTS...`: it kills itself between its first call and its commit.
"""

import os
import signal

from streamsocial_billing.app import create_app
from streamsocial_billing.cli.main import the_settings
from streamsocial_billing.gateways.configured import configured_gateways
from streamsocial_billing.gateways.paypal import client as paypal
from streamsocial_billing.gateways.paypal.own_fields import custom_ids


def first_shape(ref: str, user_id: str, payment_id: str) -> list[str]:
    """What the first release sent, and nothing else."""
    return custom_ids(ref, user_id, payment_id)[-1:]


def dies_before_commit(point: str) -> None:
    """The gateway was called, nothing of that is stored."""
    if point == "before_commit":
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    setattr(paypal, "custom_ids", first_shape)  # noqa: B010 - the product has no switch for it
    settings = the_settings()
    create_app(settings, configured_gateways(settings), probe=dies_before_commit).main()
