"""`/status`: what is wrong with the system now, as JSON."""

from __future__ import annotations

from typing import Any

import orjson
from aiohttp.web import Response
from faust.web import Request, View

from streamsocial_billing.status.overview import Overview


def page_of_status(app: Any, overview: Overview) -> None:
    """`/status`, from memory; `?workers=all` asks every other worker once before. No user data."""

    @app.page("/status")  # type: ignore[untyped-decorator]
    async def status(view: View, request: Request) -> Response:
        seen = await overview.ask() if request.query.get("workers") == "all" else overview.look()
        return Response(body=orjson.dumps(seen.as_json()), content_type="application/json")
