"""Runs a worker that waits longer for the others: for an owner, a hop, Kafka, a gateway behind a webhook.

`python -P patient_worker.py FAUST_ARGUMENTS...`: in production who does not answer within a second is away,
on a machine that stalls for seconds it is not. For tests of what is answered, where nobody is away.
"""

import sys

from faust_exactly_once import router
from processes import ROOT
from streamsocial_billing.app import create_app
from streamsocial_billing.cli.commands import the_settings
from streamsocial_billing.gateways.configured import configured_gateways
from streamsocial_billing.intake import http
from streamsocial_billing.intake.webhooks import appending, receiver
from streamsocial_billing.web import payments_in
from streamsocial_billing.web.status import peers

PATIENT = (sys.executable, "-P", str(ROOT / "tests/support/patient_worker.py"))
"""The program of such a worker."""
WAIT_S = 25.0
TIMES = {
    router: ("HOP_TIMEOUT_S",), http: ("WAIT_S", "ASKED_WAIT_S"), appending: ("CONFIRMED_S",),
    receiver: ("ASK_S", "WAIT_S"), payments_in: ("ASK_WITHIN_S",), peers: ("HOP_S",),
}  # fmt: skip


def be_patient() -> None:
    """From now on each of these times is long."""
    for module, names in TIMES.items():
        for name in names:
            assert isinstance(getattr(module, name), float)
            setattr(module, name, WAIT_S)


if __name__ == "__main__":
    be_patient()
    settings = the_settings()
    create_app(settings, configured_gateways(settings)).main()
