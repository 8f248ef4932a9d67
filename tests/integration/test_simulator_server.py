"""The simulator process: its API, its durability, its end."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import subprocess
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.system import free_port
from support.until import until

from processes import ROOT
from processes.simulator import Simulator, simulator_command
from streamsocial_billing.domain.gateway_calls import Ambiguous, ChargeRequest, Succeeded
from streamsocial_billing.gateways.simulated import SimulatedGateway

CHARGE = {"amount": 500, "currency": "EUR", "payment_method": "pm_card_visa", "metadata": {"ref": "r1"}}


@pytest.fixture
async def http(simulator: Simulator) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(simulator.url) as session:
        yield session


async def post(
    http: aiohttp.ClientSession, path: str, key: str | None, **body: Any
) -> tuple[int, dict[str, Any], str | None]:
    headers = {} if key is None else {"Idempotency-Key": key}
    async with http.post(path, headers=headers, **body) as response:
        return response.status, await response.json(), response.headers.get("Idempotent-Replayed")


async def get(http: aiohttp.ClientSession, path: str) -> tuple[int, dict[str, Any]]:
    async with http.get(path) as response:
        return response.status, await response.json()


async def test_a_replay_is_marked_and_equal(http: aiohttp.ClientSession) -> None:
    """Same key, same parameters in another order: the stored reply with the replay mark."""
    status, charge, mark = await post(http, "/v1/charges", "k1", json=CHARGE)
    assert (200, None) == (status, mark)
    again = await post(http, "/v1/charges", "k1", json=dict(reversed(CHARGE.items())))
    assert (200, charge, "true") == again
    assert (200, charge) == await get(http, f"/v1/charges/{charge['id']}")
    assert [charge] == (await get(http, "/v1/charges/search?ref=r1"))[1]["data"]
    assert [] == (await get(http, "/v1/charges/search?ref=r2"))[1]["data"]


async def test_a_form_is_the_same_request_as_json(http: aiohttp.ClientSession) -> None:
    """The form encoding of Stripe's own clients names the same charge."""
    form = {"amount": "500", "currency": "EUR", "payment_method": "pm_card_visa", "metadata[ref]": "r1"}
    _, charge, _ = await post(http, "/v1/charges", "k1", data=form)
    assert (200, charge, "true") == await post(http, "/v1/charges", "k1", json=CHARGE)


async def test_a_decline_is_a_card_error_that_names_its_failed_charge(http: aiohttp.ClientSession) -> None:
    """A decline answers 402 and leaves a failed charge on the books."""
    status, body, _ = await post(
        http, "/v1/charges", "k1", json={**CHARGE, "payment_method": "pm_card_insufficient_funds"}
    )
    _, charge = await get(http, f"/v1/charges/{body['error']['charge']}")
    assert (402, "card_error", "insufficient_funds") == (status, body["error"]["type"], body["error"]["code"])
    assert ("failed", "insufficient_funds") == (charge["status"], charge["failure_code"])


@pytest.mark.parametrize(
    ("key", "body"),
    [
        (None, {"json": CHARGE}),
        ("k" * 256, {"json": CHARGE}),
        ("k", {"json": {**CHARGE, "amount": 0}}),
        ("k", {"json": {**CHARGE, "amount": -1}}),
        ("k", {"json": {**CHARGE, "amount": 1.5}}),
        ("k", {"json": {**CHARGE, "amount": "500"}}),
        ("k", {"json": {**CHARGE, "amount": True}}),
        ("k", {"json": {**CHARGE, "amount": 10**12}}),
        ("k", {"json": {**CHARGE, "currency": "EURO"}}),
        ("k", {"json": {**CHARGE, "currency": None}}),
        ("k", {"json": {**CHARGE, "payment_method": "4242"}}),
        ("k", {"json": {**CHARGE, "metadata": []}}),
        ("k", {"json": {**CHARGE, "metadata": {"ref": 1}}}),
        ("k", {"json": [CHARGE]}),
        ("k", {"data": b"not json"}),
        ("k", {"data": b'{"amount": NaN}'}),
    ],
)
async def test_a_bad_request_charges_nothing(
    http: aiohttp.ClientSession, key: str | None, body: dict[str, Any]
) -> None:
    """A request that cannot be accepted gets 400 in Stripe's shape; a later good one with its key works."""
    status, reply, _ = await post(http, "/v1/charges", key, **body)
    assert (400, "invalid_request_error") == (status, reply["error"]["type"])
    assert 0 == (await get(http, "/_stats"))[1]["charges"]
    assert 200 == (await post(http, "/v1/charges", "k", json=CHARGE))[0]


async def test_the_list_pages_from_new_to_old(http: aiohttp.ClientSession) -> None:
    """Pages follow each other by starting_after without a gap, the newest first."""
    made = [(await post(http, "/v1/charges", f"k{n}", json=CHARGE))[1]["id"] for n in range(7)]
    seen: list[str] = []
    after, more = "", True
    while more:
        _, page = await get(http, f"/v1/charges?limit=3{after}")
        assert 0 < len(page["data"]) <= 3
        seen += [charge["id"] for charge in page["data"]]
        after, more = f"&starting_after={seen[-1]}", page["has_more"]
    assert made[::-1] == seen
    for query in ("limit=0", "limit=1001", "limit=x", "starting_after=ch_none"):
        assert 400 == (await get(http, f"/v1/charges?{query}"))[0]
    assert 404 == (await get(http, "/v1/charges/ch_none"))[0]


async def test_refunds_add_up_to_the_charge_at_most(http: aiohttp.ClientSession) -> None:
    """Partial refunds pass until nothing is left, each once per key, also when they come at once."""
    _, charge, _ = await post(http, "/v1/charges", "k1", json=CHARGE)
    part = {"charge": charge["id"], "amount": 200}
    _, refund, _ = await post(http, "/v1/refunds", "r1", json=part)
    assert (200, refund, "true") == await post(http, "/v1/refunds", "r1", json=part)
    tries = await asyncio.gather(*(post(http, "/v1/refunds", f"r{n}", json=part) for n in range(2, 8)))
    assert [200] + [400] * 5 == sorted(status for status, _, _ in tries)
    _, rest, _ = await post(http, "/v1/refunds", "r9", json={"charge": charge["id"]})
    assert 100 == rest["amount"]
    assert 500 == (await get(http, f"/v1/charges/{charge['id']}"))[1]["amount_refunded"]
    assert 400 == (await post(http, "/v1/refunds", "k1", json=part))[0]
    assert 404 == (await post(http, "/v1/refunds", "r10", json={"charge": "ch_none"}))[0]


async def test_a_wrong_fault_plan_is_refused_and_changes_nothing(
    http: aiohttp.ClientSession, simulator: Simulator
) -> None:
    """The plan in force is shown, replaced as a whole, and kept when the new one is wrong."""
    assert 0.25 == simulator.faults(conflict=0.25, seed=4)["conflict"]
    status, reply, _ = await post(http, "/_faults", None, json={"drop": 1})
    assert (400, True) == (status, "drop: unknown" in reply["error"]["message"])
    assert 0.25 == simulator.get("/_faults")["conflict"]
    assert 0 == simulator.faults()["conflict"]


async def test_no_replied_charge_is_lost_by_sigkill(tmp_path: Path) -> None:
    """Killed under load again and again, the ledger holds every charge it replied to, each once."""
    replied: dict[int, str] = {}
    with Simulator(tmp_path / "ledger.db", port=free_port()) as simulator:
        for turn in range(4):
            await _charge_until_killed(simulator, range(turn * 100_000, (turn + 1) * 100_000), replied)
            simulator.start()
        assert len(replied) > 400
        on_the_books = await _all_charges(simulator.url)
        assert replied == {number: on_the_books[number] for number in replied}

        client = SimulatedGateway(simulator.url, 100)
        await client.start()
        repeated = await asyncio.gather(*(client.charge(_request(n), timeout_s=200) for n in on_the_books))
        await client.close()
        assert [Succeeded(ref) for ref in on_the_books.values()] == repeated
        assert len(on_the_books) == simulator.get("/_stats")["charges"]


async def test_no_reply_leaves_before_its_commit(tmp_path: Path) -> None:
    """While the commit cannot end, nothing is replied or shown; killed there, the charge never was."""
    with Simulator(tmp_path / "ledger.db", port=free_port()) as simulator:
        blocker = sqlite3.connect(simulator.ledger, isolation_level=None)
        blocker.execute("BEGIN IMMEDIATE")
        client = SimulatedGateway(simulator.url)
        await client.start()
        charges = [asyncio.create_task(client.charge(_request(n), timeout_s=60)) for n in range(10)]
        await asyncio.to_thread(until, lambda: 10 == simulator.get("/_stats")["calls"], "all have been sent")
        await asyncio.sleep(0.5)  # a reply that did not wait for its commit would come meanwhile
        assert [False] * 10 == [charge.done() for charge in charges]
        assert 0 == simulator.get("/_stats")["charges"]
        await asyncio.to_thread(simulator.kill)
        blocker.close()
        assert [Ambiguous("reset")] * 10 == await asyncio.gather(*charges)
        simulator.start()
        assert 0 == simulator.get("/_stats")["charges"]
        assert isinstance(await client.charge(_request(1), timeout_s=60), Succeeded)
        await client.close()


async def _charge_until_killed(simulator: Simulator, numbers: range, replied: dict[int, str]) -> None:
    client = SimulatedGateway(simulator.url, 100)
    await client.start()
    todo = iter(numbers)
    dead = threading.Event()

    async def payer() -> None:
        for number in todo:
            outcome = await client.charge(_request(number), timeout_s=60)
            if not isinstance(outcome, Succeeded):
                assert dead.is_set(), outcome
                return
            replied[number] = outcome.gateway_ref

    def kill() -> None:
        dead.set()
        simulator.kill()

    before = len(replied)
    payers = [asyncio.create_task(payer()) for _ in range(100)]
    while len(replied) < before + 150:  # noqa: ASYNC110 - bounded by the test's time-out
        await asyncio.sleep(0.005)
    await asyncio.to_thread(kill)
    await asyncio.gather(*payers)
    await client.close()


def _request(number: int) -> ChargeRequest:
    return ChargeRequest(f"ss1_{number}", "u1", f"p{number}", "f" * 64, 100, "EUR", "pm_card_visa")


async def _all_charges(url: str) -> dict[int, str]:
    """Charge ids by number; fails on a number charged twice."""
    found: dict[int, str] = {}
    async with aiohttp.ClientSession(url) as http:
        after, more = "", True
        while more:
            _, page = await get(http, f"/v1/charges?limit=1000{after}")
            for charge in page["data"]:
                number = int(charge["metadata"]["payment_id"][1:])
                assert number not in found
                found[number] = charge["id"]
            after, more = f"&starting_after={page['data'][-1]['id']}", page["has_more"]
    return found


async def test_a_refund_can_fail_after_it_succeeded(tmp_path: Path) -> None:
    """The charge has its room again, the list says failed, now and after a kill; the key's reply stays."""
    with Simulator(tmp_path / "ledger.db", port=free_port()) as simulator:
        async with aiohttp.ClientSession(simulator.url) as http:
            _, charge, _ = await post(http, "/v1/charges", "k1", json=CHARGE)
            whole = {"charge": charge["id"], "amount": 500}
            _, refund, _ = await post(http, "/v1/refunds", "r1", json=whole)
            path = f"/_refunds/{refund['id']}/fail"
            status, failed, _ = await post(http, path, None, json={"reason": "expired_or_canceled_card"})
            assert (200, "failed", "expired_or_canceled_card") == (
                status, failed["status"], failed["failure_reason"],
            )  # fmt: skip
            assert (200, failed, None) == await post(http, path, None)
            assert 404 == (await post(http, "/_refunds/re_none/fail", None))[0]
            assert (200, refund, "true") == await post(http, "/v1/refunds", "r1", json=whole)
        simulator.kill()
        simulator.start()
        async with aiohttp.ClientSession(simulator.url) as http:
            assert [failed] == (await get(http, "/v1/refunds"))[1]["data"]
            assert 0 == (await get(http, f"/v1/charges/{charge['id']}"))[1]["amount_refunded"]
            assert 200 == (await post(http, "/v1/refunds", "r2", json=whole))[0]
            assert 400 == (await post(http, "/v1/refunds", "r3", json=whole))[0]


async def test_the_ledger_survives_a_restart_with_refunds_and_calls(tmp_path: Path) -> None:
    """What the server knew before SIGTERM it knows after it, replies included."""
    with Simulator(tmp_path / "ledger.db", port=free_port()) as simulator:
        async with aiohttp.ClientSession(simulator.url) as http:
            _, charge, _ = await post(http, "/v1/charges", "k1", json=CHARGE)
            await post(http, "/v1/charges", "k1", json=CHARGE)
            part = {"charge": charge["id"], "amount": 200}
            _, refund, _ = await post(http, "/v1/refunds", "r1", json=part)
        books = {**simulator.get("/_stats"), "replays": 0}
        assert 0 == simulator.stop()
        with sqlite3.connect(simulator.ledger) as ledger:
            assert [("k1", 2), ("r1", 1)] == ledger.execute("SELECT * FROM calls ORDER BY 1").fetchall()
        ledger.close()
        simulator.start()
        assert books == simulator.get("/_stats")
        async with aiohttp.ClientSession(simulator.url) as http:
            assert (200, charge, "true") == await post(http, "/v1/charges", "k1", json=CHARGE)
            assert (200, refund, "true") == await post(http, "/v1/refunds", "r1", json=part)


async def test_sigterm_ends_the_server_cleanly_while_replies_are_held(tmp_path: Path) -> None:
    """SIGTERM ends it with exit code 0, and not when the reply is due that is held for ten minutes."""
    with Simulator(tmp_path / "ledger.db", port=free_port()) as simulator:
        simulator.faults(timeout=1, timeout_ms=600_000)
        client = SimulatedGateway(simulator.url)
        await client.start()
        held = asyncio.create_task(client.charge(_request(1), timeout_s=600))
        while simulator.get("/_stats")["charges"] == 0:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.01)
        assert 0 == await asyncio.to_thread(simulator.stop)
        assert (await held).repeatable
        await client.close()


def _one_line_failure(ledger: Path, port: int = 0) -> str:
    done = subprocess.run(  # noqa: S603 - our own module
        simulator_command(ledger, port),
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert (1, "", 1) == (done.returncode, done.stdout, done.stderr.count("\n")), done.stderr
    return done.stderr


def test_a_taken_port_is_said_in_one_line(simulator: Simulator, tmp_path: Path) -> None:
    """A second server on the port stops with the reason, without a stack trace."""
    said = _one_line_failure(tmp_path / "other.db", simulator.port)
    assert f"cannot listen on 127.0.0.1:{simulator.port}: Address already in use" in said


def test_a_second_server_on_a_ledger_is_refused(simulator: Simulator) -> None:
    """Two servers on one ledger would charge twice, so the second does not start."""
    assert "is in use by another gateway simulator" in _one_line_failure(simulator.ledger)


def test_an_unusable_ledger_is_said_in_one_line(tmp_path: Path) -> None:
    """A ledger that cannot be written, is no ledger or is of another format stops the start."""
    (tmp_path / "file").write_text("no folder")
    assert "cannot write the ledger" in _one_line_failure(tmp_path / "file" / "ledger.db")
    (tmp_path / "text.db").write_text("this is not a database, " * 100)
    assert "file is not a database" in _one_line_failure(tmp_path / "text.db")
    with sqlite3.connect(tmp_path / "old.db") as old:
        old.execute("PRAGMA user_version = 99")
    old.close()
    assert "has format 99" in _one_line_failure(tmp_path / "old.db")


@pytest.mark.skipif(shutil.which("prlimit") is None, reason="needs prlimit to fill the disk")
async def test_a_full_disk_charges_nothing_and_says_so(simulator: Simulator) -> None:
    """A charge that cannot be committed answers 500, is not on the books, and works once there is room."""
    pid = str(simulator.pid)
    client = SimulatedGateway(simulator.url)
    await client.start()
    subprocess.run(["prlimit", "--pid", pid, "--fsize=4096:unlimited"], check=True)  # noqa: ASYNC221,S603,S607
    assert "http_500" == getattr(await client.charge(_request(1), timeout_s=60), "reason", None)
    assert 0 == simulator.get("/_stats")["charges"]
    subprocess.run(["prlimit", "--pid", pid, "--fsize=unlimited"], check=True)  # noqa: ASYNC221,S603,S607
    assert isinstance(await client.charge(_request(1), timeout_s=60), Succeeded)
    await client.close()
