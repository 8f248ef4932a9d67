"""The report: ids that stay, ages, nothing from outside that becomes a formula or markup."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from typing import Any

import pytest
from support.planted_books import AS_OF, DAY

from streamsocial_billing.reconciliation.breaks import (
    CLASSES,
    Break,
    age_bucket,
    break_id,
    exponent_suspect,
)
from streamsocial_billing.reconciliation.bridge import BESIDE, STEPS, Bridge
from streamsocial_billing.reconciliation.command import moment
from streamsocial_billing.reconciliation.page import LIST_MOST, write_page
from streamsocial_billing.reconciliation.report import Found, Summary, count_breaks, write_csv
from streamsocial_billing.reconciliation.rules import Rules
from streamsocial_billing.reconciliation.run import keep_breaks
from streamsocial_billing.reconciliation.store import in_memory
from streamsocial_billing.web.reconciliation import metrics_of

RULES = Rules(as_of=AS_OF, told_by=lambda _: AS_OF)


def broken(**changed: Any) -> Break:
    """A break."""
    told: dict[str, Any] = {
        "class_": "missing_internal", "legs": ("simulated", "ch_1"), "gateway": "simulated", "kind": "charge",
        "currency": "EUR", "at_stake": 1234, "since": AS_OF - 3 * DAY, "theirs": 1234, "user_id": "ann",
        "payment_id": "pay-1", "gateway_ref": "ch_1",
    } | changed  # fmt: skip
    return Break(**told)


def summary(found: dict[str, Found], bridges: list[Bridge] | None = None) -> Summary:
    """A summary with these breaks."""
    legs = dict.fromkeys(("results", "movements", "lines", "unhandled"), 1)
    return Summary({"as_of": AS_OF, "since": 0, "files": [], "cut": {}}, legs, found, bridges or [])


def page(told: Summary, breaks: list[dict[str, Any]]) -> str:
    """The HTML."""
    file = io.StringIO()
    write_page(told, breaks, "http://127.0.0.1:6066/", file)
    return file.getvalue()


def test_a_break_keeps_its_id() -> None:
    """Pinned: the topic holds it, people note it, a repair's event id is made of it."""
    assert "brk_060791bd0777347882e854bcbb23" == break_id("missing_internal", ("simulated", "ch_1"))
    assert broken().id == broken(detail="other words", since=AS_OF, at_stake=1).id
    assert broken().id != broken(class_="missing_external").id


def test_age_counts_from_the_oldest_leg_to_the_stated_moment() -> None:
    """Whole days; a moment before the break is no age."""
    assert [3, 0] == [broken().age_days(AS_OF), broken(since=AS_OF + 3 * DAY).age_days(AS_OF)]
    buckets = [age_bucket(days) for days in (0, 1, 2, 3, 6, 7, 29, 30)]
    between = [*["1-2 days"] * 2, *["3-6 days"] * 2, *["7-29 days"] * 2]
    assert ["under 1 day", *between, "30 days and more"] == buckets


def test_a_hundredfold_amount_is_suspect() -> None:
    """Major units taken for minor ones."""
    pairs = [(100, 10_000), (10_000, 100), (100, 101), (100, 1000)]
    assert [True, True, False, False] == [exponent_suspect(*pair) for pair in pairs]


def test_a_text_from_outside_is_no_formula() -> None:
    """A spreadsheet would run it."""
    db = in_memory()
    keep_breaks(db, RULES, [broken(gateway_ref="=HYPERLINK(1)", detail="@x", theirs=-5)])
    file = io.StringIO()
    write_csv(db, file)
    row = next(csv.DictReader(io.StringIO(file.getvalue())))
    assert ("'=HYPERLINK(1)", "'@x", "-0.05") == (row["gateway_ref"], row["detail"], row["theirs"])


def test_a_text_from_outside_is_no_markup() -> None:
    """Also where it is part of a link."""
    body = broken(gateway_ref="<script>", payment_id="a'b", detail="<b>").as_json(AS_OF)
    text = page(summary({"missing_internal": Found(1, {"EUR": 1234}, {"3-6 days": 1}, AS_OF)}), [body])
    assert "<script" not in text
    assert "<b>" not in text
    assert "http://127.0.0.1:6066/payments/ann/a%27b" in text


def test_the_page_lists_a_bounded_number() -> None:
    """The rest is in the CSV, and the page says so."""
    found = {"missing_internal": Found(LIST_MOST + 1, {"EUR": 1}, {}, AS_OF)}
    text = page(summary(found), [broken().as_json(AS_OF)] * (LIST_MOST + 1))
    assert LIST_MOST == text.count("<tr id=")
    assert "breaks.csv" in text


def test_the_tables_of_the_page_say_what_they_are() -> None:
    """A caption for each, a scope for each header cell."""
    text = page(summary({"missing_internal": Found(1, {"EUR": 1234}, {}, AS_OF)}), [broken().as_json(AS_OF)])
    assert text.count("<table") == text.count("<caption>") > 2
    assert text.count("<th ") == text.count("<th scope=")
    assert "<th>" not in text


def test_a_page_without_a_break_says_clean() -> None:
    """And shows no bridge of nothing."""
    text = page(summary({}), [])
    assert "Clean" in text
    assert "No money has moved yet" in text


def test_a_bridge_without_files_ends_at_the_list() -> None:
    """What no file tells is blank, not zero."""
    amounts = dict.fromkeys([*(step.name for step in STEPS), "unknown", "parked", "held", "observed",
                             "our_refunds", "gateway_refunds", "gateway_disputes", "foreign"], 0)  # fmt: skip
    one = Bridge("simulated", "EUR", amounts | {"our_gross": 500, "gateway_gross": 500})
    assert [] == one.problems()
    text = page(summary({}, [one]), [])
    assert "<td>Charged, by the gateway's list</td><td class='n'>5.00</td>".replace("'s", "&#39;s") in text
    assert "<td>Paid out</td><td class='n'></td>" in text
    assert ["simulated EUR: Charged, by the gateway's list: 500, the steps give 400"] == Bridge(
        "simulated", "EUR", amounts | {"our_gross": 400, "gateway_gross": 500}
    ).problems()


@pytest.mark.parametrize("currency", ["ANG", "QQQ", "<b>"])
def test_row_c_a_report_shows_any_currency_of_others(currency: str) -> None:
    """The bridge and the table of what is not ours: no KeyError while the report is written, no markup."""
    amounts = dict.fromkeys([*(step.name for step in STEPS), *(step.name for step in BESIDE)], 0)
    told = summary({}, [Bridge("stripe", currency, amounts | {"foreign": 3000})])
    row = {"leg": "list", "gateway": "stripe", "currency": currency, "kind": "charge", "count": 1,
           "amount_minor": 3000}  # fmt: skip
    text = page(replace(told, not_ours=[row]), [])
    assert "Not ours" in text and "3,000" in text
    assert "<b>" not in text
    assert [row] == replace(told, not_ours=[row]).as_json()["not_ours"]


def test_counts_are_by_class_currency_age() -> None:
    """In the order of the classes."""
    db = in_memory()
    other, young = broken(legs=("x",), currency="JPY"), broken(class_="timing", legs=("y",))
    keep_breaks(db, RULES, [broken(), other, young])
    found = count_breaks(db, AS_OF)
    assert ["missing_internal", "timing"] == list(found)
    assert Found(2, {"EUR": 1234, "JPY": 1234}, {"3-6 days": 2}, AS_OF - 3 * DAY) == found["missing_internal"]
    told = summary(found)
    assert (2, False) == (told.open, told.clean)


def test_metrics_have_each_class_from_the_first_run_on() -> None:
    """An alarm needs the 0 before the 1; before a run there is nothing to tell."""
    assert [] == list(metrics_of(None))
    run = summary({"orphan_line": Found(2, {"EUR": 7}, {}, 5000)}).as_record()
    counts, money, oldest, as_of = metrics_of(run)
    assert len(CLASSES) - 1 == len(counts.samples)
    assert {"orphan_line": 2} == {one.labels["class"]: one.value for one in counts.samples if one.value}
    assert [({"class": "orphan_line", "currency": "EUR"}, 7)] == [(s.labels, s.value) for s in money.samples]
    assert (5, AS_OF / 1000) == (oldest.samples[0].value, as_of.samples[0].value)


def test_moments_are_dates_or_now() -> None:
    """UTC where nothing is said."""
    assert AS_OF == moment("2026-03-06 12:00:00") == moment("2026-03-06T13:00:00+01:00")
    assert moment("now") > AS_OF
    with pytest.raises(ValueError, match="not YYYY-MM-DD"):
        moment("yesterday")
