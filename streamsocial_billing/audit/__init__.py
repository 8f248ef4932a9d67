"""Audits the books: Kafka's results = the gateway's ledger = the tables."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

from streamsocial_billing.audit.books import Books
from streamsocial_billing.audit.checks import Problem, problems_of
from streamsocial_billing.audit.readers import AuditError, KafkaSide, read_ledger
from streamsocial_billing.audit.report import AuditReport, render, report_of, report_to
from streamsocial_billing.settings import Settings

__all__ = ["AuditError", "AuditReport", "Problem", "render", "report_to", "run_audit"]

ROUND_S: Final = 0.25
"""Pause between two looks at workers that are still at work."""


def run_audit(settings: Settings, *, wait_s: float = 30, gateway_page: int = 1000) -> AuditReport:
    """Compare all sides once the workers are done, or after `wait_s` seconds; raises AuditError.

    What is then still under way is a problem of the report, as are events that go on arriving.
    """
    deadline = time.monotonic() + wait_s
    books = Books()
    kafka = KafkaSide(settings, books)
    while True:
        behind = kafka.read_on()
        late = time.monotonic() >= deadline
        if late or not (behind or books.open_payments()):
            known = len(books.sent)
            books.ledger, books.refunds = read_ledger(settings.gateway_url, gateway_page)
            behind = kafka.read_on() + len(books.sent) - known  # the ledger may lack a newer charge
            if late or not (behind or books.open_payments()):
                return report_of(books, _problems(books, behind, wait_s))
        time.sleep(ROUND_S)


def _problems(books: Books, behind: int, wait_s: float) -> Iterator[Problem]:
    if behind:
        detail = f"{behind} offsets are not handled after {wait_s:g} s: is a worker running?"
        yield Problem("workers are behind", "payments, payments-retry, gateway-events", detail)
    yield from problems_of(books)
