"""The view of a user's subscriptions."""

from typing import Any

import orjson
from aiohttp.web import Response
from faust.web import Request, View

from faust_exactly_once import Layer, Router
from streamsocial_billing.settings import Settings
from streamsocial_billing.web.api import answer
from streamsocial_billing.web.html import for_people

SHOWN = 1_000
"""Most subscriptions of a user in one answer."""


def page_of_subscriptions(app: Any, layer: Layer, settings: Settings, subscriptions: Any) -> None:
    """`/users/{user_id}/subscriptions`, routed by user_id: a JSON object, subscription_id -> Subscription."""
    router: Router = app.router

    def found(user_id: str) -> dict[str, Any] | None:
        prefix = f"{user_id}/"
        subscriptions.raw(prefix)  # LookupError where the user's task is not here: no empty answer instead
        partition = subscriptions.partition_of(prefix)
        items = layer.committed_items(partition, "subscriptions", SHOWN, prefix)
        own = {key.removeprefix(prefix): value for key, value in items if key.startswith(prefix)}
        return {key: orjson.loads(value) for key, value in own.items()} or None

    @app.page("/users/{user_id}/subscriptions")  # type: ignore[untyped-decorator]
    async def user_subscriptions(view: View, request: Request, user_id: str) -> Response:
        answered = await answer(router, settings, request, user_id, lambda: found(user_id))
        return for_people(request, answered, "subscriptions.html", user_id=user_id)
