"""The simulated gateway serves clients, and no web page but its own."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from streamsocial_billing.gateways.simulator.ledger import Ledger
from streamsocial_billing.gateways.simulator.routes import Simulator

Http = TestClient[Any, Any]
ROUTES = [
    ("GET", "/_stats"), ("GET", "/v1/charges"), ("POST", "/_faults"), ("POST", "/v1/charges"),
    ("POST", "/_refunds/re_1/fail"), ("POST", "/_intents/pi_1/confirm"), ("GET", "/nowhere"),
]  # fmt: skip


@pytest.fixture
async def http(tmp_path: Path) -> AsyncIterator[Http]:
    ledger = Ledger(tmp_path / "ledger.db")
    await ledger.open()
    async with TestClient(TestServer(Simulator(ledger, ["Gateway"]).application())) as client:
        yield client
    await ledger.close()


async def status(http: Http, method: str, path: str, body: str = "", **headers: str) -> int:
    """Of the answer; underscores in header names become dashes."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    async with http.request(method, path, headers=given, data=body or None, allow_redirects=False) as reply:
        if reply.status == 403:
            assert "not_allowed_from_here" == (await reply.json())["error"]["code"]
        return reply.status


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"}, {"Origin": "null"}, {"Origin": "http://127.0.0.1:1"},
        {"Origin": "http://localhost", "Sec_Fetch_Site": "same-site"}, {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site", "Sec_Fetch_Dest": "image"}, {"Host": "evil.example"},
        {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Dest": "iframe"}, {"Host": "127.0.0.1.evil.example:8420"},
        {"Host": "evil.example", "Origin": "http://evil.example", "Sec_Fetch_Site": "same-origin"},
        {"Host": "127.0.0.1@evil.example"}, {"Host": "gateway.example"}, {"Host": "127.0.0.1:x"},
    ],
)  # fmt: skip
async def test_a_page_elsewhere_is_refused(
    http: Http, method: str, path: str, headers: dict[str, str]
) -> None:
    """Whatever it asks for: scripts, forms, pictures, frames, a name that was pointed here."""
    assert 403 == await status(http, method, path, **headers)


async def test_a_page_elsewhere_turns_no_fault_on(http: Http) -> None:
    """As a form does, without a preflight: a body of text that is JSON."""
    sent = {"Origin": "https://evil.example", "Content_Type": "text/plain"}
    assert 403 == await status(http, "POST", "/_faults", '{"error_before": 1}', **sent)
    async with http.get("/_faults") as reply:
        assert 0 == (await reply.json())["error_before"]


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8420", "[::1]:8420", "localhost", "gateway:8420", "192.0.2.7", socket.gethostname()]
)
@pytest.mark.parametrize("kind", ["application/json", "application/x-www-form-urlencoded", "text/plain"])
async def test_clients_are_served_by_every_own_name(http: Http, host: str, kind: str) -> None:
    """curl sends its -d as a form; none of them says where it comes from."""
    assert 200 == await status(http, "GET", "/v1/charges", Host=host)
    assert 200 == await status(http, "POST", "/_faults", "{}", Host=host, Content_Type=kind)


async def test_its_own_page_works(http: Http) -> None:
    """Typed by a person, or reached by a link; its buttons; nothing frames it."""
    own = {"Host": "localhost:8420", "Sec_Fetch_Site": "same-origin", "Origin": "http://localhost:8420"}
    assert 404 == await status(http, "POST", "/_intents/pi_none/confirm", **own)
    for site in ("none", "cross-site"):
        assert 200 == await status(http, "GET", "/_intents", Sec_Fetch_Site=site, Sec_Fetch_Dest="document")
    async with http.get("/_intents") as reply:
        assert "frame-ancestors 'none'" in reply.headers["Content-Security-Policy"]
        assert ("nosniff", "no-store") == (
            reply.headers["X-Content-Type-Options"], reply.headers["Cache-Control"]
        )  # fmt: skip
