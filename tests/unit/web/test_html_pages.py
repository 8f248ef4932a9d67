"""The pages for people: who gets one, what stands in it, that nothing in it is code."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp.web import Response
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from streamsocial_billing.intake.http_replies import Reply, refusal
from streamsocial_billing.intake.public_fields import charge_state, stored_payment
from streamsocial_billing.reconciliation.breaks import MEANINGS
from streamsocial_billing.web.api import ACTIONS, SEVERITY_OF_STATUS
from streamsocial_billing.web.html import for_people, page, policy, prefers_html, script
from streamsocial_billing.web.responding import respond

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"
NASTY = "<script>alert('x')</script>\"&"
AT = 1_790_000_000_000
ISO = "2026-09-21T14:13:20Z"
CHARGES = charge_state({
    "user_id": "u1", "money": {"EUR": {"charged_minor": 123_456, "refunded_minor": 50},
    "JPY": {"charged_minor": 5000, "refunded_minor": 0}}, "counts": {"succeeded": 3, "declined": 1},
    "last_payment": {"payment_id": "p1", "status": "succeeded", "at": AT},
})  # fmt: skip
ENTRY: dict[str, Any] = {
    "action": "charge", "product": "gift", "status": "declined", "reason": "card_declined",
    "gateway": "stripe", "gateway_ref": None, "amount_minor": 1234, "currency": "KWD", "refunded_minor": 0,
    "requested_at": AT, "processed_at": AT, "attempts": 2, "source": {"topic": "payments", "partition": 3,
    "offset": 77}, "settled_by": {"actor": "ann", "reason": NASTY, "at": AT}, "last_error": NASTY,
}  # fmt: skip
RUN = {
    "run": {"as_of": AT, "clean": False, "open_breaks": 1, "breaks": {
        "missing_internal": {"count": 1, "money": {"EUR": 1999}, "oldest": AT}}},
    "listed": 1, "breaks": [{
        "id": "brk_1", "class": "missing_internal", "tags": [NASTY], "user_id": "u1", "payment_id": "p1",
        "gateway": "stripe", "gateway_ref": NASTY, "payout_id": None, "at_stake_minor": 1999,
        "currency": "EUR", "since": AT, "detail": NASTY, "action": NASTY,
    }],
}  # fmt: skip
SUBSCRIPTION = {
    "gold": {
        "product": "subscription", "amount_minor": 999, "currency": "EUR", "gateway": "stripe",
        "interval": "month", "state": "past_due", "reason": NASTY, "next_at": AT, "ends_at": None,
        "pending": {"payment_id": "p9", "status": "sent"},
    }
}  # fmt: skip
PAGES: dict[str, dict[str, Any]] = {
    "charges.html": {"body": CHARGES, "user_id": "u1", "actions": ACTIONS},
    "payment.html": {
        "body": stored_payment("u1", "p1", ENTRY), "user_id": "u1", "payment_id": "p1",
        "severities": SEVERITY_OF_STATUS,
    },
    "subscriptions.html": {"body": SUBSCRIPTION, "user_id": "u1"},
    "reconciliation.html": {"body": RUN, "meanings": MEANINGS},
}  # fmt: skip


def asking(accept: str | None) -> Any:
    """A request for a page."""
    return SimpleNamespace(headers={} if accept is None else {"Accept": accept}, path="/users/u1/charges")


def text_of(template: str, **values: Any) -> str:
    """A page as it is sent."""
    return str(page(template, path="/x", **values).text)


@pytest.mark.parametrize(("accept", "expected"), [
    (BROWSER, True), ("text/html", True), ("text/html;q=0.5, */*;q=0.1", True),
    ("application/xhtml+xml", True),
    ("text/html, application/json;q=0.9", True), (None, False), ("", False), ("*/*", False),
    ("application/json", False), ("application/json, text/html;q=0.9", False),
    ("application/json, text/html", False), ("text/html;q=0, */*", False), ("text/plain, */*;q=0.1", False),
    ("text/html;q=nonsense", False), (",;,=;q", False), ("text/*", False),
])  # fmt: skip
def test_a_page_is_for_who_asks_for_html_and_json_for_all_others(accept: str | None, expected: bool) -> None:
    """curl, `*/*`, a client for JSON get what they always got; a browser's own header gets a page."""
    assert expected == prefers_html(asking(accept))


@given(st.text(max_size=60))
def test_no_header_breaks_the_answer(accept: str) -> None:
    """Whatever a client sends there."""
    assert prefers_html(asking(accept)) in (True, False)


def test_json_stays_byte_for_byte_what_it_was() -> None:
    """Only Vary is added, so that no cache gives one to who wants the other."""
    answer = Response(body=b'{"a":1}', content_type="application/json")
    assert answer is for_people(asking("*/*"), answer, "charges.html")
    assert (b'{"a":1}', "Accept") == (answer.body, answer.headers["Vary"])


@pytest.mark.parametrize("status", [401, 404, 503])
def test_a_refusal_is_a_page_with_the_same_status_and_headers(status: int) -> None:
    """In its own words, escaped."""
    answer = respond(refusal(status, "not_found", NASTY, {"Retry-After": "1"}))
    shown = for_people(asking(BROWSER), answer, "charges.html")
    assert (status, "text/html", "1") == (shown.status, shown.content_type, shown.headers["Retry-After"])
    assert shown.text is not None
    assert "<h1>Not found</h1>" in shown.text
    assert NASTY not in shown.text


@pytest.mark.parametrize("template", PAGES)
def test_nothing_from_outside_is_code(template: str) -> None:
    """What people or gateways wrote is text, in every page; no script runs there, none may be loaded."""
    shown = text_of(template, **PAGES[template])
    assert "<script" not in shown
    assert "alert(" not in shown or "&lt;script&gt;alert(" in shown
    assert "default-src 'none'" in policy()
    assert "unsafe-inline" not in policy().split("script-src")[1]


@pytest.mark.parametrize("template", PAGES)
def test_tables_say_what_they_are(template: str) -> None:
    """Each has a caption, each header cell a scope, and every tag is closed."""
    shown = text_of(template, **PAGES[template])
    assert shown.count("<table") == shown.count("<caption") > 0
    assert [] == [tag for tag in re.findall(r"<th\b[^>]*>", shown) if "scope=" not in tag]
    assert [] == unclosed(shown)


def test_money_has_its_currency_s_digits_and_times_are_utc() -> None:
    """1,234.56 EUR, 5,000 JPY, 1.234 KWD."""
    charges = text_of("charges.html", **PAGES["charges.html"])
    assert (True, True) == ("1,234.56" in charges, "5,000" in charges)
    assert ISO in charges
    payment = text_of("payment.html", **PAGES["payment.html"])
    assert "1.234 KWD" in payment
    assert "_iso" not in payment


def test_a_payment_of_any_kind_of_entry_has_a_page() -> None:
    """Full, small, told by a gateway before its event: what is not known is `none`."""
    small = {"small": True, "action": "refund", "status": "succeeded", "amount_minor": 5, "currency": "EUR",
             "processed_at": AT, "attempts": 1}  # fmt: skip
    seen = {"status": "observed", "seen": "pending", "action": "charge", "amount_minor": 5, "currency": "EUR"}
    for entry in (small, seen):
        body = json.loads(respond_body(stored_payment("u1", "p1", entry)))
        assert "5" in text_of("payment.html", **PAGES["payment.html"] | {"body": body})


def respond_body(body: dict[str, Any]) -> bytes:
    """As it goes over the wire, ISO times beside."""
    sent = respond(Reply(200, body)).body
    assert isinstance(sent, bytes)
    return sent


def test_a_reconciliation_that_checked_a_part_is_not_green() -> None:
    """What was not checked leads beside the verdict."""
    unchecked = {"gateway": "paypal", "payments": 1, "lines": 2, "money": {"EUR": 1234}}
    run = {"as_of": AT, "clean": True, "open_breaks": 0, "breaks": {}, "not_checked": [unchecked]}
    body = {"run": run, "listed": 0, "breaks": []}
    shown = text_of("reconciliation.html", body=body, meanings=MEANINGS)
    assert '<section class="lead warning">' in shown
    assert "paypal is not set up here (1 payment in our books, 2 settlement lines, " in shown
    assert "12.34 EUR charged)" in shown
    whole = body | {"run": run | {"not_checked": []}}
    checked = text_of("reconciliation.html", body=whole, meanings=MEANINGS)
    assert '<section class="lead ok">' in checked


def test_the_script_of_the_dashboard_is_the_one_that_its_policy_allows() -> None:
    """Its hash is that of what stands between the tags; the tag ends where it should."""
    assert isinstance(script(), Markup)
    assert "</script" not in script()
    assert "sha256-" in policy()


def unclosed(text: str) -> list[str]:
    """Tags that are opened and not closed, or the other way round."""

    class Reader(HTMLParser):
        found: list[str]
        open: list[str]

        def handle_starttag(self, tag: str, attrs: Any) -> None:
            if tag not in ("meta", "input", "br"):
                self.open.append(tag)

        def handle_endtag(self, tag: str) -> None:
            if not self.open or self.open.pop() != tag:
                self.found.append(tag)

    reader = Reader()
    reader.found, reader.open = [], []
    reader.feed(text)
    return reader.found + reader.open


@pytest.mark.parametrize("template", ["charges.html", "payment.html"])
def test_what_an_owner_of_an_older_release_says_is_shown_as_it_is(template: str) -> None:
    """Its JSON lacks the fields that the page shows: no page then, and no 500 amid a rolling upgrade."""
    older = {"user_id": "u1", "money": {}, "counts": {"succeeded": 1}, "last_payment": None, "status": "x"}
    asked: Any = SimpleNamespace(headers={"Accept": BROWSER}, path="/")
    given = for_people(asked, respond(Reply(200, older)), template, **_rest(template))
    assert (200, "application/json") == (given.status, given.content_type)
    assert older == json.loads(given.body)  # type: ignore[arg-type]


def _rest(template: str) -> dict[str, Any]:
    return {name: value for name, value in PAGES[template].items() if name != "body"}


@pytest.mark.parametrize("accept", ["text/html;Q=0", "text/html; Q=0.1, application/json"])
def test_a_weight_is_a_weight_in_capitals_too(accept: str) -> None:
    """Names of parameters have no case (RFC 9110, 5.6.6)."""
    assert not prefers_html(SimpleNamespace(headers={"Accept": accept}))
