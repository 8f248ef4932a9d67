"""One audit: looks at all sides until the workers are done, then says what differs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

from streamsocial_billing.audit.books import Books
from streamsocial_billing.audit.checks import SUMS, Problem, problems_of
from streamsocial_billing.audit.readers import KafkaSide, LedgerUnread, read_ledger
from streamsocial_billing.audit.report import AuditReport, report_of
from streamsocial_billing.audit.tally import adds_up
from streamsocial_billing.settings import Settings

ROUND_S: Final = 0.25
"""Pause between two looks at workers that are still at work."""
LOOKS: Final = 3
"""How often something must be found: one look may see half of a transaction, or the end of a log as told by a
broker that leads no more and does not know it yet."""


def run_audit(settings: Settings, *, wait_s: float = 30, gateway_page: int = 1000) -> AuditReport:
    """Compare all sides once the workers are done, or after `wait_s` seconds; raises AuditError.

    What is then still under way is open or waiting in the report, which is no problem.
    """
    deadline = time.monotonic() + wait_s
    look = Look(settings, gateway_page)
    while True:
        under_way = look.at_kafka()
        late = time.monotonic() >= deadline
        if late or not under_way:
            under_way = look.at_the_gateway()
            if late or not under_way:
                return report_of(look.books, look.confirmed(), look.kafka.behind, look.unread)
        time.sleep(ROUND_S)


class Look:
    """The books as they are filled, look by look."""

    def __init__(self, settings: Settings, gateway_page: int) -> None:
        self.books = Books()
        self.kafka = KafkaSide(settings, self.books)
        self.unread: str | None = None
        """Why the gateway could not be read."""
        self._url: str | None = settings.gateway_url
        self._page = gateway_page

    def at_kafka(self) -> bool:
        """Read what is new; True while something is under way."""
        return bool(self.kafka.read_on() or self.books.open_payments())

    def at_the_gateway(self) -> bool:
        """Read the ledger, then what is new in Kafka; True while something is under way."""
        books, known = self.books, len(self.books.sent)
        books.listed, books.ledger, books.refunds, self.unread = frozenset(), [], [], None
        if self._url:
            try:
                books.ledger, books.refunds = read_ledger(self._url, self._page)
                books.listed = frozenset({"simulated"})
            except LedgerUnread as error:
                self.unread = str(error)
        under_way = self.at_kafka()
        return under_way or len(books.sent) > known  # the ledger may lack a newer charge

    def problems(self) -> Iterator[Problem]:
        """What is wrong by what was read so far."""
        yield from problems_of(self.books)
        yield from adds_up(self.books)

    def confirmed(self) -> list[Problem]:
        """What is wrong in each of LOOKS looks; sums that move are wrong only where the figures stay."""
        found = list(self.problems())
        for _ in range(LOOKS - 1):
            if not found:
                break
            time.sleep(ROUND_S)
            self.at_the_gateway()
            before = {_name(problem) for problem in found}
            found = [problem for problem in self.problems() if _name(problem) in before]
        return found


def _name(problem: Problem) -> tuple[str, ...]:
    return problem if problem.kind in SUMS else problem[:2]
