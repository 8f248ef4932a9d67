"""Intents at the simulated gateway: payments that wait for their customer, or until they are told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from streamsocial_billing.gateways.simulator.ledger import Ledger
from streamsocial_billing.gateways.simulator.routes import Simulator

INTENTS = "/v1/payment_intents"
ASKS = {"amount": 999, "currency": "eur", "payment_method": "pm_card_authenticationRequired",
        "metadata": {"ref": "ss1_a", "payment_id": "p1", "user_id": "u1"}}  # fmt: skip
PROCESSING = {**ASKS, "payment_method": "pm_card_processing"}
Http = TestClient[Any, Any]


@pytest.fixture
async def http(tmp_path: Path) -> AsyncIterator[Http]:
    ledger = Ledger(tmp_path / "ledger.db")
    await ledger.open()
    async with TestClient(TestServer(Simulator(ledger).application())) as client:
        yield client
    await ledger.close()


async def post(http: Http, path: str, key: str = "", **body: Any) -> tuple[int, dict[str, Any]]:
    async with http.post(path, headers={"Idempotency-Key": key} if key else {}, json=body) as reply:
        return reply.status, await reply.json()


async def get(http: Http, path: str) -> dict[str, Any]:
    async with http.get(path) as reply:
        said: dict[str, Any] = await reply.json()
        return said


async def charges(http: Http) -> list[tuple[Any, ...]]:
    rows = (await get(http, "/v1/charges"))["data"]
    return [(row["status"], row["amount"], row["payment_intent"], row["metadata"]["ref"]) for row in rows]


async def refused(http: Http) -> str:
    """The id of an intent whose bank wants its customer."""
    status, said = await post(http, INTENTS, "k1", **ASKS)
    error = said["error"]
    assert (402, "card_error", "authentication_required") == (status, error["type"], error["code"])
    assert "requires_payment_method" == error["payment_intent"]["status"]
    return str(error["payment_intent"]["id"])


async def test_a_customer_who_comes_back_is_charged_once(http: Http) -> None:
    """Nothing moved before; the charge bears our words; the first answer stays under the key."""
    name = await refused(http)
    assert [] == await charges(http)
    assert "succeeded" == (await post(http, f"/_intents/{name}/confirm"))[1]["status"]
    assert [("succeeded", 999, name, "ss1_a")] == await charges(http)
    assert name == await refused(http)
    assert "succeeded" == (await get(http, f"{INTENTS}/{name}"))["status"]
    assert [name] == [row["id"] for row in (await get(http, f"{INTENTS}/search?ref=ss1_a"))["data"]]
    assert 400 == (await post(http, f"/_intents/{name}/confirm"))[0]
    assert 1 == len(await charges(http))


async def test_what_is_canceled_can_be_confirmed_no_more(http: Http) -> None:
    """And what has succeeded cannot be canceled: the refusal has the intent inside."""
    name = await refused(http)
    assert "canceled" == (await post(http, f"{INTENTS}/{name}/cancel"))[1]["status"]
    assert 400 == (await post(http, f"/_intents/{name}/confirm"))[0]
    assert [] == await charges(http)
    _, said = await post(http, INTENTS, "k2", **ASKS)
    other = said["error"]["payment_intent"]["id"]
    await post(http, f"/_intents/{other}/confirm")
    status, said = await post(http, f"{INTENTS}/{other}/cancel")
    assert (400, "payment_intent_unexpected_state", "succeeded") == (
        status, said["error"]["code"], said["error"]["payment_intent"]["status"])  # fmt: skip


async def test_who_fails_may_try_again(http: Http) -> None:
    """The intent stays open, its last error says why."""
    name = await refused(http)
    said = (await post(http, f"/_intents/{name}/fail"))[1]
    assert ("requires_payment_method", "payment_intent_authentication_failure") == (
        said["status"], said["last_payment_error"]["code"])  # fmt: skip
    assert 200 == (await post(http, f"/_intents/{name}/confirm"))[0]


@pytest.mark.parametrize(
    ("end", "status", "moved"), [("confirm", "succeeded", 1), ("fail", "requires_payment_method", 0)]
)
async def test_what_is_processing_ends_when_it_is_told_to(
    http: Http, end: str, status: str, moved: int
) -> None:
    """It is neither charged nor to be canceled before; a failure has a decline's code."""
    code, intent = await post(http, INTENTS, "k3", **PROCESSING)
    assert (200, "processing") == (code, intent["status"])
    assert 400 == (await post(http, f"{INTENTS}/{intent['id']}/cancel"))[0]
    assert [] == await charges(http)
    said = (await post(http, f"/_intents/{intent['id']}/{end}"))[1]
    assert status == said["status"]
    assert moved == len(await charges(http))
    assert ("card_declined" if end == "fail" else None) == (said["last_payment_error"] or {}).get("code")


async def test_it_is_refunded_by_its_intent(http: Http) -> None:
    """The refund names charge and intent."""
    name = await refused(http)
    await post(http, f"/_intents/{name}/confirm")
    status, said = await post(http, "/v1/refunds", "r1", payment_intent=name, amount=400)
    assert (200, name, 400) == (status, said["payment_intent"], said["amount"])
    assert said["charge"] == (await get(http, f"{INTENTS}/{name}"))["latest_charge"]
    assert 400 == (await post(http, "/v1/refunds", "r2", payment_intent=name, amount=600))[0]


async def test_a_page_lets_people_play_the_customer(http: Http) -> None:
    """It shows what is open, its buttons end it; what an id holds is text, never markup."""
    name = await refused(http)
    await post(http, INTENTS, "k4", **{**ASKS, "metadata": {"ref": "r", "payment_id": "<b>"}})
    page = await (await http.get("/_intents")).text()
    assert f"/_intents/{name}/confirm" in page
    assert "<b>" not in page
    reply = await http.post(f"/_intents/{name}/confirm", headers={"Accept": "text/html"})
    assert ("/_intents", 200) == (reply.url.path, reply.status)
    assert name not in await reply.text()


async def test_intents_are_there_after_a_restart(tmp_path: Path) -> None:
    """With their statuses, their charges, and the refunds of these; what they were answered stays."""
    ledger = Ledger(tmp_path / "ledger.db")
    await ledger.open()
    async with TestClient(TestServer(Simulator(ledger).application())) as http:
        name = await refused(http)
        await post(http, f"/_intents/{name}/confirm")
        await post(http, "/v1/refunds", "r1", payment_intent=name)
    await ledger.close()
    again = Ledger(tmp_path / "ledger.db")
    await again.open()
    assert (ledger.intents, ledger.charges, ledger.refunds) == (again.intents, again.charges, again.refunds)
    assert name == again.refunds[0].payment_intent == again.charges[0].payment_intent
    assert ledger.replies == again.replies
    await again.close()


async def test_only_methods_that_wait_are_intents_here(http: Http) -> None:
    """Any other is a charge, as it ever was."""
    status, said = await post(http, INTENTS, "k5", **{**ASKS, "payment_method": "pm_card_visa"})
    assert (400, "resource_missing") == (status, said["error"]["code"])
