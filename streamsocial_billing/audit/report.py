"""The report of an audit as data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Final

from streamsocial_billing.audit.books import Books
from streamsocial_billing.audit.checks import Problem
from streamsocial_billing.audit.money import money_per_currency, moved_ahead, not_compared
from streamsocial_billing.audit.tally import OpenGroup, open_groups, tally

MAX_PROBLEMS: Final = 50
"""Problems that a report lists; all are counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditReport:
    """What was found.

    events         events on `payments` that are on the log now
    payments       different payments among them
    outcomes       what became of the events, by name (audit/tally.py): numbers that add up to `sent`
    open_payments  what the open ones wait for
    behind         by source topic, offsets that workers had not handled; markers of transactions among them
    results        by status: first, replayed, resolving
    gateway        charges at the gateway by status
    refunds        refunds at the gateway by status
    money          minor units by currency: results, gateway, tables
    refunded       the same of what was given back
    ahead          by action, currency: minor units moved at the gateway for payments that are open or wait
    not_compared   by action, currency: minor units moved at gateways that were not read
    listed         the gateways that were read
    unread         why the simulated gateway could not be read; None: it was, or takes no part
    problems       the first MAX_PROBLEMS of `problem_total`: what differs
    """

    events: int
    payments: int
    resent: int
    unreadable_events: int
    outcomes: dict[str, int]
    open_payments: tuple[OpenGroup, ...]
    behind: dict[str, int]
    results: dict[str, tuple[int, int, int]]
    gateway: dict[str, int]
    refunds: dict[str, int]
    money: dict[str, tuple[int, int, int]]
    refunded: dict[str, tuple[int, int, int]]
    ahead: dict[str, dict[str, int]]
    not_compared: dict[str, dict[str, int]]
    listed: tuple[str, ...]
    unread: str | None
    metrics: int
    requested: int
    dead_letters: int
    dead_letters_elsewhere: int
    open: int
    problems: tuple[Problem, ...]
    problem_total: int

    @property
    def ok(self) -> bool:
        """True if nothing differs, and everything that should be read was."""
        return self.problem_total == 0 and self.unread is None

    @property
    def settled(self) -> bool:
        """True if every event has its final answer: nothing is open, nothing waits for a worker."""
        return self.open == 0 and self.outcomes["waiting"] == 0


def report_of(
    books: Books, problems: Iterable[Problem], behind: Mapping[str, int] | None = None,
    unread: str | None = None,
) -> AuditReport:  # fmt: skip
    """Count the books; takes every problem, keeps MAX_PROBLEMS."""
    found = iter(problems)
    kept = tuple(islice(found, MAX_PROBLEMS))
    payments = {sent.payment for sent in books.sent.values() if sent.payment is not None}
    unreadable = sum(sent.payment is None for sent in books.sent.values())
    outcomes = tally(books)
    return AuditReport(
        events=len(books.sent),
        payments=len(payments),
        resent=len(books.sent) - len(payments) - unreadable,
        unreadable_events=unreadable,
        outcomes=outcomes,
        open_payments=tuple(open_groups(books)),
        behind={topic: count for topic, count in (behind or {}).items() if count},
        results=_by_status(books),
        gateway=dict(Counter(charge.status for charge in books.ledger)),
        refunds=dict(Counter(refund.status for refund in books.refunds)),
        money=money_per_currency(books),
        refunded=money_per_currency(books, "refund"),
        ahead={action: dict(moved_ahead(books, action)) for action in ("charge", "refund")},
        not_compared={action: dict(not_compared(books, action)) for action in ("charge", "refund")},
        listed=tuple(sorted(books.listed)),
        unread=unread,
        metrics=sum(books.metrics.values()),
        requested=books.requested,
        dead_letters=outcomes["dead_letters"],
        dead_letters_elsewhere=outcomes["dead_letters_elsewhere"],
        open=outcomes["open"],
        problems=kept,
        problem_total=len(kept) + sum(1 for _ in found),
    )


def _by_status(books: Books) -> dict[str, tuple[int, int, int]]:
    kinds = Counter((one.status, 2 if one.resolves else int(one.replayed)) for one in books.results)
    return {
        status: (kinds[status, 0], kinds[status, 1], kinds[status, 2])
        for status in sorted({status for status, _ in kinds})
    }
