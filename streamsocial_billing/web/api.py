"""The views: look-ups in the two tables, health, readiness, metrics."""

from collections.abc import Callable, Mapping
from typing import Any

from aiohttp.web import Response
from faust.web import Request, View

from faust_exactly_once import CONTENT_TYPE, Layer, Metrics, Passed, Router
from streamsocial_billing.intake.http_replies import Reply, later, no_access, owner_unavailable, refusal
from streamsocial_billing.intake.public_fields import charge_state, stored_payment
from streamsocial_billing.payments.gateway_availability import Gatekeeper
from streamsocial_billing.settings import Settings
from streamsocial_billing.web.access import may_read
from streamsocial_billing.web.html import for_people
from streamsocial_billing.web.responding import respond
from tables.payments import payment_key

ACTIONS = ("charge", "refund", "not_recorded")
SEVERITY_OF_STATUS = {"succeeded": "ok", "unknown": "warning", "parked": "warning"}
"""How the page of a payment is coloured; others are neither good nor bad news for an operator."""
Find = Callable[[], Mapping[str, Any] | None]


def page_of_tables(app: Any, layer: Layer, settings: Settings, charges: Any, payments: Any) -> None:
    """`/users/{user_id}/charges` with `/payments/{user_id}/{payment_id}`, both routed by user_id."""
    router: Router = app.router

    @app.page("/users/{user_id}/charges")  # type: ignore[untyped-decorator]
    async def user_charges(view: View, request: Request, user_id: str) -> Response:
        def found() -> Mapping[str, Any] | None:
            state = charges.get(user_id)
            return None if state is None else charge_state(state)

        answered = await answer(router, settings, request, user_id, found)
        return for_people(request, answered, "charges.html", user_id=user_id, actions=ACTIONS)

    @app.page("/payments/{user_id}/{payment_id}")  # type: ignore[untyped-decorator]
    async def payment(view: View, request: Request, user_id: str, payment_id: str) -> Response:
        def found() -> Mapping[str, Any] | None:
            entry = payments.get(payment_key(user_id, payment_id))
            return None if entry is None else stored_payment(user_id, payment_id, entry)

        answered = await answer(router, settings, request, user_id, found)
        named = {"user_id": user_id, "payment_id": payment_id, "severities": SEVERITY_OF_STATUS}
        return for_people(request, answered, "payment.html", **named)


def page_of_state(app: Any, layer: Layer, metrics: Metrics, gatekeeper: Gatekeeper) -> None:
    """`/health`, `/ready`, `/metrics`: state without user data, for whoever asks."""

    @app.page("/health")  # type: ignore[untyped-decorator]
    async def health(view: View, request: Request) -> Response:
        return respond(Reply(200, {"status": "alive"}))

    @app.page("/ready")  # type: ignore[untyped-decorator]
    async def ready(view: View, request: Request) -> Response:
        tasks = layer.status()
        body = {
            "ready": layer.ready(),
            "assigned": [task["partition"] for task in tasks],
            "recovering": [task["partition"] for task in tasks if task["state"] != "running"],
            "tasks": tasks,
            "gateways": {one.name: one.state for one in gatekeeper.status()},
        }
        return respond(Reply(200 if body["ready"] else 503, body))

    @app.page("/metrics")  # type: ignore[untyped-decorator]
    async def prometheus(view: View, request: Request) -> Response:
        return Response(body=await metrics.text(), headers={"Content-Type": CONTENT_TYPE})


async def answer(router: Router, settings: Settings, request: Any, user_id: str, find: Find) -> Response:
    """A committed value from the worker that owns the user; at most one hop.

    404 where unknown, 401 without access, 503 with Retry-After while the owner is moving, recovering or gone.
    """
    if not may_read(request, settings.api_token):
        return respond(no_access())
    partition, url = router.place(user_id.encode())
    if not router.is_here(partition):
        passed = await router.forward(url, request)
        if passed is None:
            return respond(owner_unavailable(partition))
        return passed_back(passed)
    try:
        found = find()
    except LookupError as exc:
        return respond(later("recovering", str(exc)))
    if found is None:
        return respond(refusal(404, "not_found", "nothing is stored under this id"))
    return respond(Reply(200, found))


def passed_back(passed: Passed) -> Response:
    """The owner's answer."""
    return Response(
        status=passed.status, body=passed.body, content_type=passed.content_type, headers=passed.headers
    )
