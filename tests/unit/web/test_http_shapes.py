"""What answers over HTTP have in common: problem details, times, the fields of a payment."""

from __future__ import annotations

import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from support.charge_states import after
from support.system import payment

from streamsocial_billing.domain.known import Received
from streamsocial_billing.domain.outcomes import Called, Verdict
from streamsocial_billing.domain.payment_entry import first_entry
from streamsocial_billing.domain.results import charge_result
from streamsocial_billing.domain.times import iso, with_iso
from streamsocial_billing.intake.http_replies import Reply, later, no_access, owner_unavailable, refusal
from streamsocial_billing.intake.public_fields import PAYMENT_FIELDS, charge_state, stored_payment
from streamsocial_billing.payments.retention import smaller
from streamsocial_billing.web.refusing import in_our_words
from streamsocial_billing.web.responding import respond
from tables.charges import ChargeState
from tables.payments import PaymentEntry, written

AT = 1_790_000_000_250
AT_ISO = "2026-09-21T14:13:20.250Z"


def an_entry() -> PaymentEntry:
    """A succeeded payment as its unit stores it."""
    received = Received(payment("alice", "p1"), {"topic": "payments", "partition": 0, "offset": 7}, AT)
    return first_entry(received, Called(Verdict("succeeded", None, "ch_1"), "acct", 2), AT)


@pytest.mark.parametrize(
    "reply",
    [refusal(422, "idempotency_mismatch", "why"), no_access(), owner_unavailable(3), later("busy", "?")],
)
def test_a_refusal_is_problem_details(reply: Reply) -> None:
    """RFC 9457: its content type, type, title, status, detail; `error` stays."""
    response = respond(reply)
    body = orjson.loads(response.text or "")
    assert ("application/problem+json", reply.status) == (response.content_type, body["status"])
    assert f"urn:problem-type:streamsocial-billing:{body['error']}" == body["type"]
    assert {"type", "title", "status", "detail", "error"} == set(body)
    assert (503 == reply.status) == ("Retry-After" in response.headers)


def test_an_answer_that_is_no_refusal_stays_json() -> None:
    """Also where its status is no success: /ready."""
    assert "application/json" == respond(Reply(503, {"ready": False})).content_type


def test_beside_each_time_in_milliseconds_it_stands_in_iso_8601() -> None:
    """At every depth; null and "never" have none; what is no time is left alone."""
    body = {
        "requested_at": AT, "next_try_at": None, "rows_at": 0, "settled_by": {"at": AT}, "amount_minor": AT,
        "rows": [{"last_commit_at_ms": AT}], "oldest": None, "since": AT,
    }  # fmt: skip
    assert body | {
        "requested_at_iso": AT_ISO, "settled_by": {"at": AT, "at_iso": AT_ISO}, "since_iso": AT_ISO,
        "rows": [{"last_commit_at_ms": AT, "last_commit_at_iso": AT_ISO}],
    } == with_iso(body)  # fmt: skip
    assert with_iso(body) == with_iso(with_iso(body))
    assert AT_ISO == orjson.loads(respond(Reply(200, body)).text or "")["requested_at_iso"]


def test_a_time_beyond_the_calendar_is_left_in_milliseconds() -> None:
    """A foreign number ends no answer."""
    assert {"at": 10**18} == with_iso({"at": 10**18})
    assert iso(10**18) is None


def test_a_stored_payment_is_shown_whole_but_for_its_fingerprint() -> None:
    """Its ids and the fields of a result first; every stored one; a small or an observed one has null."""
    entry = an_entry()
    for stored in (written(entry), dict(smaller(entry)), {"seen": "pending", "status": "observed"}):
        shown = stored_payment("alice", "p1", stored)
        assert set(PAYMENT_FIELDS) <= set(shown)
        assert {name: shown.get(name) for name in stored if name != "fingerprint"}.items() <= stored.items()
        assert ("alice", "p1", False) == (shown["user_id"], shown["payment_id"], shown["replayed"])
        assert "fingerprint" not in shown


def test_the_fields_of_a_payment_are_those_of_a_result() -> None:
    """`resolves` says what one record on the topic does; it is no property of a payment."""
    result = orjson.loads(charge_result(
        payment_id="p1", user_id="u1", action="charge", product="gift", status="succeeded", reason=None,
        replayed=False, amount_minor=1, currency="EUR", gateway="simulated", gateway_ref="ch", attempt=1,
        requested_at=1, processed_at=2, source=None,
    ))  # fmt: skip
    assert set(result) - {"resolves"} == set(PAYMENT_FIELDS)


def _after(state: ChargeState | None, action: str, status: str, *, replayed: bool = False) -> ChargeState:
    return after(state, status=status, replayed=replayed, processed_at=AT, action=action)


def test_refunds_are_counted_apart_from_charges() -> None:
    """`counts` stays what it was; beside it the same by action."""
    state = None
    for action, status in (("charge", "succeeded"), ("charge", "declined"), ("refund", "succeeded")):
        state = _after(state, action, status)
    state = _after(state, "refund", "succeeded", replayed=True)
    shown = charge_state(state)
    assert {"succeeded": 2, "declined": 1, "replayed": 1} == shown["counts"]
    assert {
        "charge": {"succeeded": 1, "declined": 1}, "refund": {"succeeded": 1, "replayed": 1},
        "not_recorded": {},
    } == shown["counts_by_action"]  # fmt: skip


def test_a_row_of_an_older_release_says_what_it_cannot_tell() -> None:
    """What it had counted is `not_recorded`, for ever; what comes after is told apart."""
    old: ChargeState = {"user_id": "u1", "money": {}, "counts": {"succeeded": 3}, "last_payment": None}
    expected: dict[str, dict[str, int]] = {"charge": {}, "refund": {}, "not_recorded": {"succeeded": 3}}
    assert expected == charge_state(old)["counts_by_action"]
    state = _after(_after(old, "refund", "succeeded"), "charge", "declined")
    expected |= {"charge": {"declined": 1}, "refund": {"succeeded": 1}}
    assert expected == charge_state(state)["counts_by_action"]
    assert {"succeeded": 4, "declined": 1} == state["counts"]


def test_a_row_that_an_older_worker_wrote_in_between_says_so_too() -> None:
    """A rolling upgrade: an old worker drops the fields; nothing is then claimed of what it had counted."""
    state = _after(None, "refund", "succeeded")
    by_old: ChargeState = {"user_id": "u1", "money": {}, "counts": {"succeeded": 2}, "last_payment": None}
    assert {"succeeded": 1} == charge_state(state)["counts_by_action"]["refund"]
    again = charge_state(_after(by_old, "charge", "failed"))["counts_by_action"]
    assert ({"succeeded": 2}, {}) == (again["not_recorded"], again["refund"])


async def test_an_error_of_ours_is_500_without_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    """The answer names no code of ours, the log names the page, not the user in its path."""

    async def broken(_: web.Request) -> web.Response:
        raise RuntimeError("a secret")

    app = web.Application(middlewares=[in_our_words])
    app.router.add_get("/users/{user_id}", broken)
    async with TestClient(TestServer(app)) as client, client.get("/users/alice") as answer:
        assert (500, "application/problem+json") == (answer.status, answer.content_type)
        text = await answer.text()
    assert ("internal_error", False) == (orjson.loads(text)["error"], "secret" in text)
    assert "GET /users/{user_id}: internal error" in caplog.text
