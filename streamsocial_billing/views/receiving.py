"""The pages that take something in: payments, webhooks."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from aiohttp import ClientPayloadError
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web import RequestPayloadError, Response
from faust.web import Request, View
from prometheus_client import CollectorRegistry, Counter

from streamsocial_billing.books import now_ms
from streamsocial_billing.events import BadInput, PaymentEvent
from streamsocial_billing.exactly_once import Router
from streamsocial_billing.gateways.base import Gateway
from streamsocial_billing.intake.appending import appending
from streamsocial_billing.intake.http import AGAIN, Decide, Find, HttpIntake, read_payment
from streamsocial_billing.replies import later, no_access, owner_unavailable, refusal
from streamsocial_billing.settings import Settings
from streamsocial_billing.views.access import may_write
from streamsocial_billing.views.api import passed_back
from streamsocial_billing.views.responding import respond
from streamsocial_billing.webhooks.appending import appending_events
from streamsocial_billing.webhooks.configured import configured_sources
from streamsocial_billing.webhooks.receiver import MAX_BYTES, OUTCOMES, Receiver

MAX_PAYMENT_BYTES: Final = 65_536
"""A payment has a few hundred; unknown fields are allowed for, not carried."""
BODY_WITHIN_S: Final = 10.0


class BodyFailed(Exception):
    """Raised when a request's body did not come whole."""


def declare_receivers(
    app: Any, settings: Settings, gateways: Mapping[str, Gateway], decide: Decide, find: Find,
    registry: CollectorRegistry,
) -> None:  # fmt: skip
    """Add `POST /payments` with `POST /webhooks/{gateway}`; close what they append with at the end."""
    payments = appending(settings, lambda: Path(str(app.conf.datadir)))
    events = appending_events(settings)
    page_of_payments(app, settings, HttpIntake(decide, find, payments.add), registry)
    sources = configured_sources(settings, gateways)
    count = webhook_counter(registry, sources)
    page_of_webhooks(app, Receiver(
        sources, events.add, lambda gateway, outcome: count.labels(gateway, outcome).inc()
    ))  # fmt: skip

    @app.on_before_shutdown.connect  # type: ignore[untyped-decorator]
    async def close_intakes(*_: Any, **__: Any) -> None:
        await asyncio.gather(payments.close(), events.close())


def page_of_payments(app: Any, settings: Settings, intake: HttpIntake, registry: CollectorRegistry) -> None:
    """`POST /payments`, routed by the user_id in its body."""
    router: Router = app.router
    count = Counter("billing_payment_requests", "POST /payments, by answer.", ["status"], registry=registry)

    @app.page("/payments")
    class Payments(View):
        """Takes payments."""

        async def post(self, request: Request, **_: Any) -> Response:
            """One payment: 202 appended or open, 200 final; docs/http.md has every status."""
            response = await _payment(router, settings, intake, request)
            count.labels(str(response.status)).inc()
            return response


async def _payment(router: Router, settings: Settings, intake: HttpIntake, request: Any) -> Response:
    if not may_write(request, settings.api_token):
        return respond(no_access())
    try:
        body = await read_body(request, MAX_PAYMENT_BYTES)
        if body is None:
            return respond(refusal(413, "too_large", f"a payment has at most {MAX_PAYMENT_BYTES} bytes"))
        at_ms = now_ms()
        payment = read_payment(request.headers.get("Idempotency-Key"), body, at_ms, settings)
    except BodyFailed as error:
        return respond(refusal(400, "bad_body", str(error)))
    except BadInput as bad:
        return respond(refusal(400, bad.reason, bad.detail))
    return await _placed(router, intake, request, body, payment, at_ms)


async def _placed(
    router: Router, intake: HttpIntake, request: Any, body: bytes, payment: PaymentEvent, at_ms: int
) -> Response:
    """Answered here if the user's partition is, else passed on to its owner."""
    partition, url = router.place(payment.user_id.encode())
    if router.is_here(partition):
        try:
            return respond(await intake.take(payment, at_ms))
        except LookupError as error:
            return respond(later("recovering", str(error)))
    passed = await router.forward(url, request, body)
    if passed is None:
        return respond(owner_unavailable(partition, AGAIN))
    return passed_back(passed)


def page_of_webhooks(app: Any, receiver: Receiver) -> None:
    """`POST /webhooks/{gateway}`: on any worker, with the gateway's signature instead of our token."""

    @app.page("/webhooks/{gateway}")
    class Webhooks(View):
        """Takes what gateways tell."""

        async def post(self, request: Request, **named: Any) -> Response:
            """One message: 2xx once it is on `gateway-events`, or is none of ours."""
            gateway = str(named["gateway"])
            if not receiver.knows(gateway):
                return respond(refusal(404, "not_set_up", "no webhooks are set up for this gateway"))
            given: Any = request
            try:
                return respond(await receiver.read_and_receive(
                    gateway, given.headers, lambda: read_body(given, MAX_BYTES)
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


async def read_body(request: Any, most: int) -> bytes | None:
    """The body, None if it is longer than `most`; raises BodyFailed."""
    if {*request.headers.getall("Content-Encoding", ())} - {"identity"}:
        raise BodyFailed("a compressed body is not taken")  # a signature is over the bytes on the wire
    if (request.content_length or 0) > most:
        return None
    read = bytearray()
    try:
        async with asyncio.timeout(BODY_WITHIN_S):
            async for chunk in request.content.iter_any():
                read += chunk
                if len(read) > most:
                    return None
    except TimeoutError:
        raise BodyFailed(f"the body did not come within {BODY_WITHIN_S:g} s") from None
    except (RequestPayloadError, ClientPayloadError, HttpProcessingError, OSError) as error:
        raise BodyFailed(f"the body is damaged ({type(error).__name__})") from None
    return bytes(read)
