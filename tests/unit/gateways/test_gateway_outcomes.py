"""The two mapping tables of the simulated gateway's client, row by row."""

from __future__ import annotations

import socket
import ssl
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import orjson
import pytest
from aiohttp.http_exceptions import BadHttpMessage

from streamsocial_billing.domain.gateway_calls import (
    Ambiguous,
    ChargeRequest,
    Declined,
    Invalid,
    KeyMismatch,
    NotSent,
    Outcome,
    Succeeded,
)
from streamsocial_billing.gateways.bodies import ReplyTooLarge
from streamsocial_billing.gateways.kept_lines import NotConnected
from streamsocial_billing.gateways.simulated import (
    EXCEPTIONS,
    SimulatedGateway,
    outcome_of_exception,
    outcome_of_reply,
    retry_after_s,
)

REQUEST = ChargeRequest("ss1_k", "u1", "p1", "f" * 64, 999, "EUR", "pm_card_visa")
CHARGE = {"id": "ch_1", "status": "succeeded", "amount": 999, "currency": "EUR"}
KEY = cast(Any, SimpleNamespace(host="h", port=1, ssl=True, is_ssl=True))
REFUSED = ConnectionRefusedError(111, "refused")
INFO = cast(Any, SimpleNamespace(real_url="http://h/"))

RAISED: list[tuple[Exception, Outcome]] = [
    (aiohttp.ConnectionTimeoutError(), NotSent("connect_timeout")),
    (aiohttp.ClientConnectorDNSError(KEY, socket.gaierror(-2, "unknown")), NotSent("unreachable")),
    (aiohttp.ClientConnectorError(KEY, REFUSED), NotSent("unreachable")),
    (aiohttp.ClientConnectorSSLError(KEY, ssl.SSLError(1, "bad")), NotSent("unreachable")),
    (NotConnected("refused"), NotSent("unreachable")),
    (aiohttp.InvalidURL("x"), NotSent("bad_url")),
    (TimeoutError(), Ambiguous("timeout")),
    (aiohttp.SocketTimeoutError(), Ambiguous("timeout")),
    (aiohttp.ClientPayloadError("cut"), Ambiguous("cut_body")),
    (aiohttp.ServerDisconnectedError(), Ambiguous("reset")),
    (aiohttp.ClientOSError(104, "reset"), Ambiguous("reset")),
    (aiohttp.ClientConnectionResetError("closing"), Ambiguous("internal_error")),
    (aiohttp.ClientResponseError(INFO, ()), Ambiguous("bad_reply")),
    (BadHttpMessage("no HTTP"), Ambiguous("bad_reply")),
    (ReplyTooLarge("a reply of more than 262144 bytes"), Ambiguous("bad_reply")),
    (ValueError("whatever"), Ambiguous("internal_error")),
]


def error(code: str | None = None, **more: str) -> dict[str, object]:
    return {"error": {"code": code, **more}}


REPLIED: list[tuple[int, object, Outcome]] = [
    (200, CHARGE, Succeeded("ch_1")),
    (200, {**CHARGE, "currency": "eur"}, Succeeded("ch_1")),
    (200, {**CHARGE, "status": "pending"}, Ambiguous("pending", ask_only=True)),
    (200, {**CHARGE, "status": "failed"}, Ambiguous("bad_reply")),
    (200, {**CHARGE, "amount": 998}, Ambiguous("bad_reply")),
    (200, {**CHARGE, "amount": 999.0}, Ambiguous("bad_reply")),
    (200, {**CHARGE, "currency": "USD"}, Ambiguous("bad_reply")),
    (200, {**CHARGE, "id": ""}, Ambiguous("bad_reply")),
    (200, {**CHARGE, "id": None}, Ambiguous("bad_reply")),
    (200, [CHARGE], Ambiguous("bad_reply")),
    (200, None, Ambiguous("bad_reply")),
    (201, CHARGE, Ambiguous("bad_reply")),
    (302, CHARGE, Ambiguous("bad_reply")),
    (400, error("idempotency_error"), KeyMismatch("idempotency_error")),
    (400, error(type="idempotency_error"), KeyMismatch("idempotency_error")),
    (400, error("parameter_invalid"), Invalid("parameter_invalid")),
    (400, error(type="invalid_request_error"), Invalid("invalid_request_error")),
    (400, {"message": "from a proxy"}, Ambiguous("bad_reply")),
    (401, None, NotSent("auth")),
    (402, error("card_declined", type="card_error", charge="ch_2"), Declined("card_declined", "ch_2")),
    (402, error("card_declined", type="card_error", decline_code="lost_card"), Declined("lost_card")),
    (402, error("card_declined"), Ambiguous("bad_reply")),
    (402, None, Ambiguous("bad_reply")),
    (403, None, NotSent("auth")),
    (404, error("resource_missing"), Invalid("resource_missing")),
    (404, None, Ambiguous("bad_reply")),
    (409, error("idempotency_key_in_use"), Ambiguous("in_flight")),
    (409, None, Ambiguous("in_flight")),
    (418, None, Ambiguous("bad_reply")),
    (500, CHARGE, Ambiguous("http_500")),
    (503, None, Ambiguous("http_503")),
]


@pytest.mark.parametrize(("raised", "outcome"), RAISED, ids=lambda value: type(value).__name__)
def test_each_exception_has_one_outcome(raised: Exception, outcome: Outcome) -> None:
    """An exception is "not sent" only where no byte of the request can have left."""
    assert outcome == outcome_of_exception(raised)


def test_every_row_of_the_exception_table_is_reached() -> None:
    """No row stands behind one of its bases, and each is tried above."""
    first = [next(row for row in EXCEPTIONS if isinstance(raised, row[0])) for raised, _ in RAISED]
    assert set(EXCEPTIONS) == set(first)


@pytest.mark.parametrize(("status", "body", "outcome"), REPLIED)
def test_each_reply_has_one_outcome(status: int, body: object, outcome: Outcome) -> None:
    """A reply counts only if status and body agree; what tells nothing is ambiguous."""
    raw = b"<html>" if body is None else orjson.dumps(body)
    assert outcome == outcome_of_reply(REQUEST, status, {}, raw)


def test_a_rate_limit_carries_the_wish_of_the_gateway() -> None:
    """A 429 is proven unsent, with the seconds that the gateway asks for."""
    assert NotSent("rate_limited", 3.0) == outcome_of_reply(REQUEST, 429, {"Retry-After": "3"}, b"")
    assert NotSent("rate_limited", None) == outcome_of_reply(REQUEST, 429, {}, b"")


@pytest.mark.parametrize(
    "value", ["", "-1", "soon", "inf", "1e3", "²", "9999999", "Wed, 21 Oct 2026 07:28:00 GMT"]
)
def test_a_retry_after_that_is_no_number_of_seconds_is_ignored(value: str) -> None:
    """Nonsense in a header cannot set a wait."""
    assert retry_after_s(value) is None


@pytest.mark.parametrize("url", ["", "127.0.0.1:8420", "ftp://h/", "http://"])
def test_a_url_that_is_not_http_is_refused_at_once(url: str) -> None:
    """A wrong url stops the start, it does not make payments wait."""
    with pytest.raises(ValueError, match="gateway url"):
        SimulatedGateway(url)


async def test_a_gateway_that_was_not_started_sends_nothing() -> None:
    """Before start and after close a charge is proven unsent."""
    gateway = SimulatedGateway("http://127.0.0.1:1")
    assert NotSent("not_started") == await gateway.charge(REQUEST, timeout_s=1)
    await gateway.start()
    await gateway.close()
    assert NotSent("not_started") == await gateway.charge(REQUEST, timeout_s=1)
