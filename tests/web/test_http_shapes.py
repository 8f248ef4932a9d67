"""What every page of a real worker has in common: problem details, ISO times, JSON where nothing is found."""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from support.shown import wait_shown
from support.system import CALM, System, payment
from support.until import until
from support.web_client import ANSWERS_WITHIN_S, Answer, get, post

from streamsocial_billing.intake.public_fields import PAYMENT_FIELDS


@pytest.fixture(scope="module")
def system(broker: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """One worker; a charge of alice's is refunded in part."""
    folder = tmp_path_factory.mktemp("shapes")
    options: dict[str, Any] = {
        "BILLING_STRIPE_API_KEY": "sk_test_x", "BILLING_STRIPE_WEBHOOK_SECRETS": "whsec_x",
        "BILLING_DEFAULT_GATEWAY": "simulated", "partitions": 1, **CALM,
    }  # fmt: skip
    with System(broker, folder, f"shapes-{time.time_ns()}", **options) as system:
        system.start()
        refund = payment("alice", "r1", action="refund", refund_of="p1", amount_minor=99)
        system.submit([payment("alice", "p1", business_ref="sub:1"), refund])
        system.wait_answered()
        wait_shown(system)
        yield system


def ask(system: System, method: str, path: str, body: bytes = b"", **headers: str) -> Answer:
    """Any request."""
    connection = http.client.HTTPConnection("127.0.0.1", system.worker.web_port, timeout=ANSWERS_WITHIN_S)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return Answer(answer.status, answer.headers, answer.read())
    finally:
        connection.close()


def is_problem(answer: Answer, status: int, error: str) -> dict[str, Any]:
    """The body, once it is the refusal that is expected in the shape of all."""
    assert (status, "application/problem+json") == (answer.status, answer.headers.get_content_type())
    body: dict[str, Any] = answer.json()
    assert (status, error) == (body["status"], body["error"])
    assert f"urn:problem-type:streamsocial-billing:{error}" == body["type"]
    assert body["title"]
    assert body["detail"]
    return body


@pytest.mark.parametrize("path", ["/nothing", "/payments/alice", "/users/alice", "/payments/a/b/c"])
def test_a_path_that_is_no_page_is_a_problem_in_json(system: System, path: str) -> None:
    """Not the web server's own words."""
    is_problem(get(system.worker.web_port, path), 404, "no_such_page")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/payments", "POST"),
        ("HEAD", "/payments", "POST"),
        ("DELETE", "/payments/alice/p1", "GET, HEAD"),
        ("POST", "/health", "GET, HEAD"),
        ("OPTIONS", "/", "GET, HEAD"),
        ("PUT", "/webhooks/stripe", "POST"),
    ],
)
def test_a_method_that_a_page_does_not_take_is_a_problem_with_allow(
    system: System, method: str, path: str, allowed: str
) -> None:
    """405 names those that it takes (RFC 9110)."""
    answer = ask(system, method, path)
    assert (405, allowed) == (answer.status, answer.headers["Allow"])
    if method != "HEAD":
        is_problem(answer, 405, "method_not_allowed")


def test_the_refusals_of_pages_are_problems(system: System) -> None:
    """Of look-ups, payments, webhooks."""
    port = system.worker.web_port
    is_problem(get(port, "/payments/alice/no"), 404, "not_found")
    is_problem(get(port, "/users/alice/charges", Via="x"), 401, "no_access")
    is_problem(post(port, "/payments", b"{}"), 400, "missing_key")
    is_problem(post(port, "/payments", b" " * 70_000), 413, "too_large")
    is_problem(post(port, "/webhooks/stripe", b"{}"), 400, "bad_signature")
    is_problem(post(port, "/webhooks/stripe", b" " * 1_100_000), 413, "too_large")
    is_problem(post(port, "/webhooks/nobody", b"{}"), 404, "not_set_up")
    is_problem(get(port, "/reconciliation"), 404, "no_run_yet")


def test_a_payment_has_the_same_fields_in_post_in_a_result_and_in_get(system: System) -> None:
    """With its ids, its times in ISO 8601 too, where to read it; without the fingerprint."""
    port = system.worker.web_port
    sent = {
        "user_id": "alice", "product": "subscription", "amount_minor": 999, "currency": "EUR",
        "payment_method": "pm_card_visa", "business_ref": "sub:1",
    }  # fmt: skip
    answer = post(port, "/payments", orjson.dumps(sent), Idempotency_Key="p1")
    assert (200, "/payments/alice/p1") == (answer.status, answer.headers["Location"])
    told, stored = answer.json(), get(port, answer.headers["Location"]).json()
    result = system.results_of("p1")[0]
    for shown in (told, stored):
        fields = {name: shown[name] for name in PAYMENT_FIELDS}
        assert {name: result[name] for name in PAYMENT_FIELDS} == fields | {"replayed": False}
        assert shown["requested_at_iso"].endswith("Z")
        assert shown["processed_at_iso"].endswith("Z")
    assert ({"fingerprint"}, True) == ({"fingerprint"} - set(stored), "first_seen_at_iso" in stored)


def test_a_conflict_says_what_differs_and_who_holds_it(system: System) -> None:
    """422 names fields, 409 the payment."""
    port = system.worker.web_port
    sent = {
        "user_id": "alice", "product": "subscription", "amount_minor": 1000, "currency": "EUR",
        "payment_method": "pm_other", "business_ref": "sub:1",
    }  # fmt: skip
    body = is_problem(
        post(port, "/payments", orjson.dumps(sent), Idempotency_Key="p1"), 422, "idempotency_mismatch"
    )
    assert ["amount_minor", "payment_method"] == body["differs"]
    assert "pm_other" not in str(body)
    body = is_problem(
        post(port, "/payments", orjson.dumps(sent), Idempotency_Key="p2"), 409, "duplicate_business_ref"
    )
    assert ("p1", "payment p1 holds this business_ref") == (body["conflicts_with"], body["reason"])


def test_a_refund_is_no_success_of_a_charge(system: System) -> None:
    """What a user was charged: counts by action, the last payment's time in ISO 8601."""
    state = get(system.worker.web_port, "/users/alice/charges").json()
    one = {"succeeded": 1}
    assert {"charge": one, "refund": one, "not_recorded": {}} == state["counts_by_action"]
    assert state["last_payment"]["at_iso"].endswith("Z")


def test_the_pages_of_state_have_iso_times(system: System) -> None:
    """`/audit`, `/ready`."""
    assert get(system.worker.web_port, "/audit").json()["at_iso"].endswith("Z")

    def last_commit() -> str:
        return get(system.worker.web_port, "/ready").json()["tasks"][0].get("last_commit_at_iso") or ""

    until(lambda: last_commit() != "", "the commit is counted")
    assert last_commit().endswith("Z")
