"""PayPal's transaction search: windows that are halved, three years back, no more than is needed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from streamsocial_billing.domain.gateway_calls import Absent, Ambiguous, Found, Query
from streamsocial_billing.domain.payment_identity import gateway_key_of
from streamsocial_billing.gateways.base import ListFailed
from streamsocial_billing.gateways.paypal.client import PayPalGateway
from streamsocial_billing.gateways.paypal.search import LEAST_S, REACH_S, TooLarge, search

NOW_S = int(datetime(2026, 3, 6, 12, tzinfo=UTC).timestamp())
HOUR, DAY = 3600, 86_400
KEY = gateway_key_of("u1", "charge", "p1")


def row(name: str, at_s: float, **more: Any) -> dict[str, Any]:
    """A sale of 1.00 EUR."""
    at = datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%S+0000")
    info = {"transaction_id": name, "transaction_event_code": "T0006", "transaction_status": "S",
            "transaction_initiation_date": at,
            "transaction_amount": {"currency_code": "EUR", "value": "1.00"}}  # fmt: skip
    return {"transaction_info": info | more}


class Account:
    """What PayPal lists: at most `most` rows a window, `page` a page; both ends of a window belong to it."""

    def __init__(self, rows: Mapping[str, float], most: int = 10, page: int = 4) -> None:
        self.rows, self.most, self.page = rows, most, page
        self.asked: list[tuple[int, int]] = []

    async def ask(self, start: datetime, stop: datetime, page: int) -> dict[str, Any]:
        """One page."""
        since, until = start.timestamp(), stop.timestamp()
        assert until - since <= 31 * DAY
        assert since >= NOW_S - 3 * 365 * DAY
        self.asked.append((int(since), int(until)))
        found = sorted((at, name) for name, at in self.rows.items() if since <= at <= until)
        if len(found) > self.most:
            raise TooLarge
        shown = [row(name, at) for at, name in found[(page - 1) * self.page : page * self.page]]
        return {"total_pages": -(-len(found) // self.page) or 1, "transaction_details": shown}


async def names(account: Account, since_s: float, until_s: float) -> list[str]:
    """What the search brings."""
    found = search(account.ask, int(since_s * 1000), int(until_s * 1000), NOW_S * 1000)
    return [one.gateway_ref async for one in found]


async def test_row_f_a_window_that_is_too_large_is_halved() -> None:
    """Thousands within one day between quiet months: each row once, the quiet ones in long windows."""
    busy: dict[str, float] = {f"b{n}": NOW_S - 50 * DAY + n * 60 for n in range(300)}
    quiet: dict[str, float] = {f"q{n}": NOW_S - 100 * DAY + n * 9 * DAY for n in range(11)}
    account = Account(busy | quiet)
    found = await names(account, NOW_S - 110 * DAY, NOW_S)
    assert sorted(busy | quiet) == sorted(found)
    assert max(stop - start for start, stop in account.asked) > 20 * DAY


async def test_row_f_a_minute_that_is_too_large_is_said() -> None:
    """It does not go on for ever, nor leave rows out."""
    account = Account({f"b{n}": NOW_S - DAY for n in range(20)})
    with pytest.raises(ListFailed, match=r"the minute from 2026-03-05T1\d:.*\+00:00: they are too many"):
        await names(account, NOW_S - 2 * DAY, NOW_S)
    assert LEAST_S >= min(stop - start for start, stop in account.asked)


async def test_row_f_it_goes_three_years_back_at_most() -> None:
    """PayPal refuses older questions (the account asserts it)."""
    account = Account({"old": NOW_S - REACH_S - DAY, "new": NOW_S - REACH_S + DAY})
    assert ["new"] == await names(account, 0, NOW_S)


async def test_a_row_on_the_border_of_two_windows_comes_once() -> None:
    """Both ends of a window are listed; broken seconds at the ends are not lost."""
    account = Account({f"r{n}": NOW_S - 62 * DAY + n * 31 * DAY for n in range(3)})
    assert ["r0", "r1", "r2"] == await names(account, NOW_S - 62 * DAY, NOW_S + 0.5)


class Searched(PayPalGateway):
    """The adapter over an account that answers at once."""

    def __init__(self, account: Account) -> None:
        super().__init__("client", "secret", "http://127.0.0.1:1")
        self.account_ = account
        self._transactions = account.ask  # type: ignore[method-assign]


@pytest.fixture
async def now(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    monkeypatch.setattr("time.time_ns", lambda: NOW_S * 1_000_000_000)
    yield


@pytest.mark.usefixtures("now")
async def test_row_f_a_question_does_not_read_everything_since() -> None:
    """A year of sales: the payment is found in the window around its own time."""
    rows = {f"b{n}": NOW_S - 365 * DAY + n * HOUR for n in range(8000)}
    account = Account(rows, most=50_000)
    ours = row("OURS", NOW_S - 364 * DAY, invoice_id=KEY)

    async def ask(start: datetime, stop: datetime, page: int) -> dict[str, Any]:
        reply = await account.ask(start, stop, page)
        if start.timestamp() <= NOW_S - 364 * DAY < stop.timestamp() and page == 1:
            reply["transaction_details"].append(ours)
        return reply

    gateway = Searched(account)
    gateway._transactions = ask  # type: ignore[method-assign]  # noqa: SLF001
    query = Query(KEY, "charge", "u1", "p1", 100, "EUR", (NOW_S - 364 * DAY) * 1000)
    assert Found("OURS", "succeeded", None, 100, "EUR", "u1") == await gateway.find(query, timeout_s=5)
    assert DAY > max(stop for _, stop in account.asked) - (NOW_S - 364 * DAY)


@pytest.mark.usefixtures("now")
async def test_row_f_a_payment_that_is_over_is_looked_for_up_to_its_end() -> None:
    """Its calls were over before its result: nothing later is read, and absent means absent."""
    account = Account({"b": NOW_S - DAY})
    since = (NOW_S - 300 * DAY) * 1000
    query = Query(KEY, "charge", "u1", "p1", 100, "EUR", since, until_ms=since + 3600_000)
    assert Absent() == await Searched(account).find(query, timeout_s=5)
    assert 2 * HOUR > max(stop for _, stop in account.asked) - since // 1000
    crowded = Account({f"b{n}": since / 1000 + 60 for n in range(99)})
    assert isinstance(await Searched(crowded).find(query, timeout_s=5), Ambiguous)


async def test_row_f_over_http_a_refusal_for_size_halves_the_window() -> None:
    """PayPal's own words, status 400; any other refusal is one line."""
    rows = {f"s{n}": NOW_S - 20 * DAY + n * DAY for n in range(20)}
    account, broken = Account(rows, most=6, page=500), False

    async def token(_: web.Request) -> web.Response:
        return web.json_response({"access_token": "t", "expires_in": 3600})

    async def transactions(request: web.Request) -> web.Response:
        if broken:
            return web.json_response({"name": "INVALID_REQUEST"}, status=400)
        since, until = (datetime.fromisoformat(request.query[name]) for name in ("start_date", "end_date"))
        try:
            return web.json_response(await account.ask(since, until, int(request.query["page"])))
        except TooLarge:
            return web.json_response({"name": "RESULTSET_TOO_LARGE", "maximum_items": 10_000}, status=400)

    app = web.Application()
    app.router.add_post("/v1/oauth2/token", token)
    app.router.add_get("/v1/reporting/transactions", transactions)
    async with TestServer(app) as server:
        gateway = PayPalGateway("client", "secret", f"http://127.0.0.1:{server.port}")
        since, until = (NOW_S - 30 * DAY) * 1000, NOW_S * 1000
        assert sorted(rows) == sorted([one.gateway_ref async for one in gateway.movements(since, until)])
        broken = True
        with pytest.raises(ListFailed, match=r"could not be listed \(HTTP 400\); try again"):
            [one async for one in gateway.movements(since, until)]
        await gateway.close()
