"""Runs a worker as of a release that cannot run beside this one: `python -P FILE FAUST_ARGUMENTS...`."""

from streamsocial_billing.app import create_app
from streamsocial_billing.cli.commands import the_settings
from streamsocial_billing.framework_options import GROUP_FORMAT
from streamsocial_billing.gateways.configured import configured_gateways

ADVICE = "stop all workers of 0.3.0 first"

if __name__ == "__main__":
    settings = the_settings()
    create_app(
        settings, configured_gateways(settings), release="0.4.0", group_format=GROUP_FORMAT + 1,
        group_advice=ADVICE,
    ).main()  # fmt: skip
