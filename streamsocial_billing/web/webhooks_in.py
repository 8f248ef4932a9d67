"""`POST /webhooks/{gateway}`: what gateways send."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiohttp.web import Response
from faust.web import Request, View
from prometheus_client import CollectorRegistry, Counter

from streamsocial_billing.intake.http_replies import refusal
from streamsocial_billing.intake.webhooks.receiver import MAX_BYTES, OUTCOMES, Receiver
from streamsocial_billing.web.bodies import Bodies, BodyFailed
from streamsocial_billing.web.responding import respond


def page_of_webhooks(app: Any, receiver: Receiver) -> None:
    """`POST /webhooks/{gateway}`: on any worker, with the gateway's signature instead of our token."""
    bodies = Bodies()

    @app.page("/webhooks/{gateway}")
    class Webhooks(View):
        """Takes what gateways tell."""

        async def post(self, request: Request, **named: Any) -> Response:
            """One message: 2xx once it is on `gateway-events`, or is none of ours."""
            gateway = str(named["gateway"])
            if not receiver.knows(gateway):
                return respond(refusal(404, "not_set_up", "no webhooks are set up for this gateway"))
            given: Any = request
            if (given.content_length or 0) > MAX_BYTES:
                return respond(await receiver.receive(gateway, given.headers, None))
            try:
                return respond(await receiver.read_and_receive(
                    gateway, given.headers, lambda: bodies.read(given, MAX_BYTES)
                ))  # fmt: skip
            except BodyFailed as error:
                return respond(refusal(400, "bad_body", str(error)))


def webhook_counter(registry: CollectorRegistry, gateways: Mapping[str, Any]) -> Counter:
    """`billing_webhooks_total`, each series there from the start: increase() needs the 0 before the 1."""
    text = "Webhooks of gateways, by what came of them."
    count = Counter("billing_webhooks", text, ["gateway", "outcome"], registry=registry)
    for gateway in gateways:
        for outcome in OUTCOMES:
            count.labels(gateway, outcome)
    return count
