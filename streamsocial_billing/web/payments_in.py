"""`POST /payments`, and the question that a worker asks the owner of a user before it appends.

Any worker takes any payment. Only the owner knows what is committed of it, so the owner is asked; it never
appends for another worker. Where nobody answers in time the payment is appended without that knowledge:
its agent decides by the same rules a moment later (docs/http.md).
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Final

import orjson
from aiohttp.web import Response
from faust.web import Request, View
from prometheus_client import CollectorRegistry, Counter
from yarl import URL

from faust_exactly_once import HOP_HEADER, NOT_PASSED_BACK, Router
from streamsocial_billing.domain.events import PaymentEvent
from streamsocial_billing.domain.foreign_fields import BadInput, json_object
from streamsocial_billing.domain.times import now_ms
from streamsocial_billing.intake.http import REFUSALS, HttpIntake, read_payment
from streamsocial_billing.intake.http_replies import JSON, PROBLEM, Reply, later, no_access, refusal
from streamsocial_billing.settings import Settings
from streamsocial_billing.web.access import may_write
from streamsocial_billing.web.bodies import BodyFailed, read_body
from streamsocial_billing.web.responding import respond

MAX_PAYMENT_BYTES: Final = 65_536
"""A payment has a few hundred; unknown fields are allowed for, not carried."""
ASK_WITHIN_S: Final = 0.3
"""How long the owner may take to say what it knows, connecting included."""
QUESTIONS: Final = "/internal/known-payment"
SAID_BY_OWNERS: Final = frozenset({200, 202, *REFUSALS.values(), 400, 429})
"""The statuses of what is known of a payment."""
UNCHECKED: Final = ("no_answer", "no_owner", "recovering")
"""Why nobody could be asked."""


class NotAsked(Exception):
    """Raised when the owner cannot say what it knows; the text is one of UNCHECKED."""


def page_of_payments(app: Any, settings: Settings, intake: HttpIntake, registry: CollectorRegistry) -> None:
    """`POST /payments`, on any worker."""
    count = Counter("billing_payment_requests", "POST /payments, by answer.", ["status"], registry=registry)
    unchecked = Counter(
        "billing_payments_unchecked", "POST /payments whose owner could not be asked, by why.", ["why"],
        registry=registry,
    )  # fmt: skip
    for why in UNCHECKED:
        unchecked.labels(why)

    @app.page("/payments")
    class Payments(View):
        """Takes payments."""

        async def post(self, request: Request, **_: Any) -> Response:
            """One payment: 202 appended or open, 200 final; docs/http.md has every status."""
            reply = await answer(request)
            count.labels(str(reply.status)).inc()
            return respond(reply)

    async def answer(request: Request) -> Reply:
        payment = await _read(settings, request)
        if isinstance(payment, Reply):
            return payment
        try:
            return await _checked(app.router, intake, request, payment)
        except NotAsked as why:
            unchecked.labels(str(why)).inc()
            return await intake.append_unchecked(payment, now_ms())


async def _read(settings: Settings, request: Any) -> PaymentEvent | Reply:
    """The payment, or why there is none: that needs no owner."""
    if not may_write(request, settings.api_token):
        return no_access()
    try:
        body = await read_body(request, MAX_PAYMENT_BYTES)
        if body is None:
            return refusal(413, "too_large", f"a payment has at most {MAX_PAYMENT_BYTES} bytes")
        return read_payment(request.headers.get("Idempotency-Key"), body, now_ms(), settings)
    except BodyFailed as error:
        return refusal(400, "bad_body", str(error))
    except BadInput as bad:
        return refusal(400, bad.reason, bad.detail)


async def _checked(router: Router, intake: HttpIntake, request: Any, payment: PaymentEvent) -> Reply:
    """The answer by what the user's owner knows; raises NotAsked."""
    partition, url = router.place(payment.user_id.encode())
    if router.is_here(partition):
        try:
            return await intake.take(payment, now_ms())
        except LookupError:
            raise NotAsked("recovering") from None
    if HOP_HEADER in request.headers:  # a release that passes payments on sent it here: one hop at most
        raise NotAsked("no_owner")
    known = await ask_owner(router, url, request, payment)
    if known is None:
        return await intake.append(payment, checked=True)
    if known.status != 429:
        intake.forget(payment)
    return known


async def ask_owner(
    router: Router, url: URL | None, request: Any, payment: PaymentEvent
) -> Reply | None:  # fmt: skip
    """What the owner answers, None if it knows nothing of the payment; raises NotAsked."""
    if url is None or router.is_own(url):
        raise NotAsked("no_owner")
    headers = {name: request.headers[name] for name in ("Authorization",) if name in request.headers}
    said = await router.ask(url, QUESTIONS, headers, payment.to_bytes(), within_s=ASK_WITHIN_S)
    if said is None or said.status != 200:
        raise NotAsked("no_answer")
    try:
        answer = orjson.loads(said.body)["answer"]
        if answer is None:
            return None
        reply = Reply(answer["status"], answer["body"], answer["headers"], answer["content_type"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        raise NotAsked("no_answer") from None
    if not _can_be_passed_on(reply):
        raise NotAsked("no_answer")
    return reply


def _can_be_passed_on(reply: Reply) -> bool:
    """False for what no owner says: whoever has its address now, it must not become an error of ours."""
    if type(reply.status) is not int or reply.status not in SAID_BY_OWNERS:
        return False
    if not isinstance(reply.body, dict) or reply.content_type not in (JSON, PROBLEM):
        return False
    if not isinstance(reply.headers, dict):
        return False
    return all(
        isinstance(value, str) and (name + value).isascii() and (name + value).isprintable()
        and name.lower() not in NOT_PASSED_BACK
        for name, value in reply.headers.items()
    )  # fmt: skip


def page_of_questions(app: Any, settings: Settings, intake: HttpIntake) -> None:
    """`POST /internal/known-payment`: what the owner would answer to this payment; appends nothing.

    Its body is a whole PaymentEvent. 200 with `answer`, the fields of a Reply, or null: not known.
    """

    @app.page(QUESTIONS)
    class Questions(View):
        """Answers other workers."""

        async def post(self, request: Request, **_: Any) -> Response:
            """503 while this worker cannot know."""
            given: Any = request
            if not may_write(given, settings.api_token):
                return respond(no_access())
            try:
                payment = PaymentEvent.from_mapping(
                    json_object(await read_body(given, MAX_PAYMENT_BYTES) or b""), now_ms=now_ms()
                )
                answer = await intake.known_or_on_its_way(payment, now_ms())
            except BodyFailed as error:
                return respond(refusal(400, "bad_body", str(error)))
            except BadInput as bad:
                return respond(refusal(400, bad.reason, bad.detail))
            except LookupError as error:
                return respond(later("recovering", str(error)))
            return respond(Reply(200, {"answer": None if answer is None else asdict(answer)}))
