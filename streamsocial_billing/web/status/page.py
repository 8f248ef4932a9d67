"""`/status`: what is wrong with the system now, as JSON."""

from __future__ import annotations

from typing import Any

from aiohttp.web import Response
from faust.web import Request, View

from streamsocial_billing.intake.http_replies import Reply
from streamsocial_billing.web.responding import respond
from streamsocial_billing.web.status.overview import Overview


def page_of_status(app: Any, overview: Overview) -> None:
    """`/status`, from memory; `?workers=all` asks every other worker once before. No user data."""

    @app.page("/status")  # type: ignore[untyped-decorator]
    async def status(view: View, request: Request) -> Response:
        seen = await overview.ask() if request.query.get("workers") == "all" else overview.look()
        return respond(Reply(200, seen.as_json()))
