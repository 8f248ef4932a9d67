"""What a worker makes of an owner that is old, gone, silent, or answers nonsense: real sockets, no Kafka."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from support.system import free_port, payment
from yarl import URL

from faust_exactly_once import Router
from streamsocial_billing.intake.http_replies import PROBLEM, Reply
from streamsocial_billing.web.payments_in import ASK_WITHIN_S, QUESTIONS, NotAsked, ask_owner

PAYMENT = payment("alice", "p1")
REQUEST = SimpleNamespace(headers={"Authorization": "Bearer t", "Cookie": "c", "Idempotency-Key": "p1"})
Handler = Callable[[web.Request], Awaitable[web.Response]]


@pytest.fixture
async def router() -> AsyncIterator[Router]:
    """A router of a worker that is called http://127.0.0.1:1/."""
    async with aiohttp.ClientSession() as client:
        conf = SimpleNamespace(canonical_url=URL("http://127.0.0.1:1/"))
        app: Any = SimpleNamespace(http_client=client, conf=conf, assignor=None)
        yield Router(app)


def owner(handler: Handler, path: str = QUESTIONS) -> TestServer:
    """An owner that answers so."""
    app = web.Application()
    app.router.add_post(path, handler)
    return TestServer(app)


async def asked(router: Router, url: URL | None) -> Reply | None:
    """The question, as a worker asks it."""
    return await ask_owner(router, url, REQUEST, PAYMENT)


async def test_the_question_carries_the_payment_and_the_token_and_nothing_else(router: Router) -> None:
    """The whole event, so that both speak of the same; of the client's headers the token alone."""
    seen: list[tuple[bytes, dict[str, str]]] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append((await request.read(), dict(request.headers)))
        return web.json_response({"answer": None})

    async with owner(answer) as server:
        assert await asked(router, server.make_url("/")) is None
    body, headers = seen[0]
    assert PAYMENT.to_bytes() == body
    assert ("Bearer t", "1") == (headers["Authorization"], headers["X-Exactly-Once-Hop"])
    assert {"Cookie", "Idempotency-Key"}.isdisjoint(headers)


async def test_what_the_owner_knows_is_answered_as_it_says(router: Router) -> None:
    """Status, body, headers, content type."""
    said = Reply(409, {"error": "duplicate_business_ref"}, {"X": "y"}, PROBLEM)

    async def answer(_: web.Request) -> web.Response:
        return web.json_response({"answer": {**asdict(said), "of a later release": 1}})

    async with owner(answer) as server:
        assert said == await asked(router, server.make_url("/"))


async def test_a_worker_of_an_older_release_is_asked_and_appends_nothing(router: Router) -> None:
    """It does not have the page: 404. Its own POST /payments would append, and is never called."""
    posted: list[str] = []

    async def append(request: web.Request) -> web.Response:
        posted.append(request.path)
        return web.json_response({"status": "accepted"}, status=202)

    async with owner(append, "/payments") as server:
        with pytest.raises(NotAsked, match="no_answer"):
            await asked(router, server.make_url("/"))
    assert [] == posted


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"answer":7}', b'{"answer":{}}', b"\xff"])
async def test_an_answer_that_is_none_is_no_answer(router: Router, body: bytes) -> None:
    """Whatever stands under that address now."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=body)

    async with owner(answer) as server:
        with pytest.raises(NotAsked, match="no_answer"):
            await asked(router, server.make_url("/"))


GOOD = asdict(Reply(202, {"status": "accepted"}, {"Location": "/payments/alice/p1"}))


@pytest.mark.parametrize("wrong", [
    {"status": "202"}, {"status": 503}, {"status": 200.5}, {"status": None}, {"body": [1]}, {"body": None},
    {"headers": [1]}, {"headers": {"A": 3}}, {"headers": {"A": "b\r\nC: d"}},
    {"headers": {"Content-Type": "text/html"}}, {"content_type": 5}, {"content_type": "text/html"},
])  # fmt: skip
async def test_an_answer_in_another_shape_is_no_answer(router: Router, wrong: dict[str, Any]) -> None:
    """The client would get a 500, or the owner's nonsense, where the payment can be appended."""

    async def answer(_: web.Request) -> web.Response:
        return web.json_response({"answer": GOOD | wrong})

    async with owner(answer) as server:
        with pytest.raises(NotAsked, match="no_answer"):
            await asked(router, server.make_url("/"))


async def test_an_answer_without_end_is_no_answer(router: Router) -> None:
    """What the owner knows of a payment is some hundred bytes: more is not read into memory."""

    async def answer(_: web.Request) -> web.Response:
        return web.json_response({"answer": GOOD | {"body": {"x": "y" * 2_000_000}}})

    async with owner(answer) as server:
        with pytest.raises(NotAsked, match="no_answer"):
            await asked(router, server.make_url("/"))


@pytest.mark.parametrize("status", [202, 401, 500, 503])
async def test_only_200_is_an_answer(router: Router, status: int) -> None:
    """Recovering, no access, broken: it does not know."""

    async def answer(_: web.Request) -> web.Response:
        return web.json_response({"answer": None}, status=status)

    async with owner(answer) as server:
        with pytest.raises(NotAsked, match="no_answer"):
            await asked(router, server.make_url("/"))


async def test_an_owner_that_hangs_is_waited_for_300_ms_and_no_longer(router: Router) -> None:
    """In all: it takes the connection and never says a word, as a frozen process does."""
    release = asyncio.Event()

    async def hang(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        began = time.monotonic()
        with pytest.raises(NotAsked, match="no_answer"):
            await asked(router, URL(f"http://127.0.0.1:{port}/"))
        assert ASK_WITHIN_S * 0.9 <= time.monotonic() - began < 30 * ASK_WITHIN_S
        release.set()
    assert 0.3 == ASK_WITHIN_S


async def test_an_owner_that_is_gone_or_is_this_worker_itself_is_not_waited_for(router: Router) -> None:
    """A refused connection; an assignment that still names this worker; none at all."""
    with pytest.raises(NotAsked, match="no_answer"):
        await asked(router, URL(f"http://127.0.0.1:{free_port()}/"))
    for url in (None, URL("http://127.0.0.1:1/")):
        with pytest.raises(NotAsked, match="no_owner"):
            await asked(router, url)
