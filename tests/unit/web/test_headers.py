"""The headers that every answer has."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import faust
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from streamsocial_billing.intake.http_replies import Reply, no_access
from streamsocial_billing.web.html import page, policy
from streamsocial_billing.web.responding import respond

Http = TestClient[Any, Any]
NOTHING = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"


@pytest.fixture
async def http() -> AsyncIterator[Http]:
    """The web driver as the app has it, with a page of each kind."""
    app = faust.App("headers", web="billing://", broker="kafka://127.0.0.1:1")

    async def json(_: web.Request) -> web.Response:
        return respond(Reply(200, {"a": 1}))

    async def refused(_: web.Request) -> web.Response:
        return respond(no_access())

    async def html(_: web.Request) -> web.Response:
        return page("refusal.html", body={"title": "t", "detail": "d", "error": "e", "status": 400}, path="/")

    async def broken(_: web.Request) -> web.Response:
        raise RuntimeError

    driver: Any = app.web
    for path, handler in (("/json", json), ("/refused", refused), ("/html", html), ("/broken", broken)):
        driver.web_app.router.add_get(path, handler)
    async with TestClient(TestServer(driver.web_app)) as client:
        yield client


@pytest.mark.parametrize(
    ("path", "status"),
    [("/json", 200), ("/refused", 401), ("/html", 200), ("/broken", 500), ("/nowhere", 404)],
)
async def test_every_answer_has_them(http: Http, path: str, status: int) -> None:
    """A refusal, an error of ours, a path that is no page: all the same."""
    async with http.get(path) as reply:
        assert status == reply.status
        assert ("no-store", "nosniff", "same-origin", "streamsocial-billing") == tuple(
            reply.headers[name]
            for name in ("Cache-Control", "X-Content-Type-Options", "Referrer-Policy", "Server")
        )
        assert [policy() if path == "/html" else NOTHING] == reply.headers.getall("Content-Security-Policy")


async def test_a_refusal_for_want_of_a_token_says_which_kind(http: Http) -> None:
    """RFC 9110, 11.6.1; RFC 6750, 3."""
    async with http.get("/refused") as reply:
        assert "Bearer" == reply.headers["WWW-Authenticate"]


async def test_a_method_that_is_not_there_has_them_too(http: Http) -> None:
    """405, with Allow."""
    async with http.post("/json") as reply:
        assert (405, "nosniff") == (reply.status, reply.headers["X-Content-Type-Options"])
