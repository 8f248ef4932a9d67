"""The verdict of `make run`: what is missing because it is open, what is wrong."""

from __future__ import annotations

import pytest
from support.audit_books import good_books, result

from showcase.run import OPEN, Check, only_open
from streamsocial_billing.audit.books import Sent
from streamsocial_billing.audit.report import AuditReport, report_of


def report(open_payments: int) -> AuditReport:
    """Good books with so many open payments."""
    books = good_books()
    for offset in range(5, 5 + open_payments):
        books.sent[0, offset] = Sent(f"u1/o{offset}", 500, "USD")
        books.results.append(result(f"u1/o{offset}", offset, "unknown"))
    return report_of(books, [])


@pytest.mark.parametrize(
    ("missing", "open_payments", "only"),
    [(0, 1, True), (1, 1, True), (2, 1, False), (-1, 1, False), (1, 0, False), (3, 3, True)],
)
def test_open_payments_excuse_only_what_they_may_be_missing_from(
    missing: int, open_payments: int, only: bool
) -> None:
    """More is missing than is open, or there is more than there should be: that is wrong."""
    checks = [Check("charges", 10, 10 - missing)] * bool(missing)
    checks += [Check(OPEN, 0, open_payments)] * bool(open_payments)
    assert only == only_open(checks, report(open_payments))


@pytest.mark.parametrize(
    ("check", "mark"),
    [(Check("a", 2, 2), "ok"), (Check("a", 2, 1), "open"), (Check("a", 2, 0), "WRONG"),
     (Check("a", 2, 3), "WRONG"), (Check(OPEN, 0, 1), "open"), (Check(OPEN, 0, 0), "ok")],
)  # fmt: skip
def test_a_line_of_the_verdict_is_marked_by_what_is_missing(check: Check, mark: str) -> None:
    """With one open payment."""
    assert mark == check.mark(1).plain
