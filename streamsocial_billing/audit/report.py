"""The report of an audit, as data or as tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, fields
from itertools import islice
from typing import Final, TextIO

import orjson
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from streamsocial_billing.audit.books import Books
from streamsocial_billing.audit.checks import Problem, money_per_currency
from streamsocial_billing.money import EXPONENTS

MAX_PROBLEMS: Final = 50
"""Problems that a report lists; all are counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditReport:
    """What was found.

    results     by status: first, replayed, resolving
    gateway     charges at the gateway by status
    refunds     refunds at the gateway by status
    money       minor units by currency: results, gateway, tables
    refunded    the same of what was given back
    problems    the first MAX_PROBLEMS of `problem_total`
    """

    events: int
    payments: int
    resent: int
    unreadable_events: int
    results: dict[str, tuple[int, int, int]]
    gateway: dict[str, int]
    refunds: dict[str, int]
    money: dict[str, tuple[int, int, int]]
    refunded: dict[str, tuple[int, int, int]]
    metrics: int
    requested: int
    dead_letters: int
    open: int
    problems: tuple[Problem, ...]
    problem_total: int

    @property
    def ok(self) -> bool:
        """True if nothing was found: every payment charged exactly once."""
        return self.problem_total == 0


def report_of(books: Books, problems: Iterable[Problem]) -> AuditReport:
    """Count the books; takes every problem, keeps MAX_PROBLEMS."""
    found = iter(problems)
    kept = tuple(islice(found, MAX_PROBLEMS))
    payments = {sent.payment for sent in books.sent.values() if sent.payment is not None}
    unreadable = sum(sent.payment is None for sent in books.sent.values())
    return AuditReport(
        events=len(books.sent),
        payments=len(payments),
        resent=len(books.sent) - len(payments) - unreadable,
        unreadable_events=unreadable,
        results=_by_status(books),
        gateway=dict(Counter(charge.status for charge in books.ledger)),
        refunds=dict(Counter(refund.status for refund in books.refunds)),
        money=money_per_currency(books),
        refunded=money_per_currency(books, "refund"),
        metrics=sum(books.metrics.values()),
        requested=books.requested,
        dead_letters=sum(books.dead.values()) + books.dead_elsewhere,
        open=len(books.open_payments()),
        problems=kept,
        problem_total=len(kept) + sum(1 for _ in found),
    )


def _by_status(books: Books) -> dict[str, tuple[int, int, int]]:
    kinds = Counter((one.status, 2 if one.resolves else int(one.replayed)) for one in books.results)
    return {
        status: (kinds[status, 0], kinds[status, 1], kinds[status, 2])
        for status in sorted({status for status, _ in kinds})
    }


def render(report: AuditReport) -> Group:
    """The books for a terminal: counts, results, money, the verdict."""
    money = [_money("money charged", report.money)]
    if report.refunded:
        money.append(_money("money given back", report.refunded))
    return Group(_counts(report), _results(report), *money, _verdict(report))


def report_to(report: AuditReport, out: TextIO, *, as_json: bool) -> None:
    """Write the report: for people, or as one line of JSON with `ok` beside the fields."""
    if as_json:
        shown = {one.name: getattr(report, one.name) for one in fields(report)} | {
            "ok": report.ok,
            "problems": [problem._asdict() for problem in report.problems],
        }
        out.write(orjson.dumps(shown).decode() + "\n")
    else:
        Console(file=out, soft_wrap=True).print(render(report))


def _counts(report: AuditReport) -> Table:
    table = Table(title="the books", show_header=False, title_style="bold")
    rows = {
        "events sent": report.events,
        "  payments": report.payments,
        "  re-sent": report.resent,
        "  unreadable": report.unreadable_events,
        "results": sum(sum(kinds) for kinds in report.results.values()),
        "metrics": report.metrics,
        "requested (intake)": report.requested,
        "dead letters": report.dead_letters,
        "still open": report.open,
    }
    for kind, counts in (("charges", report.gateway), ("refunds", report.refunds)):
        rows |= {f"gateway {kind}, {status}": count for status, count in sorted(counts.items())}
    table.add_column()
    table.add_column(justify="right")
    for name, count in rows.items():
        table.add_row(name, f"{count:,}")
    return table


def _results(report: AuditReport) -> Table:
    table = Table("result", title="results by status")
    for heading in ("first", "replayed", "resolving"):
        table.add_column(heading, justify="right")
    for status, kinds in report.results.items():
        table.add_row(status, *(f"{count:,}" for count in kinds))
    return table


def _money(title: str, money: dict[str, tuple[int, int, int]]) -> Table:
    table = Table("currency", title=title)
    for heading in ("results", "gateway", "tables", ""):
        table.add_column(heading, justify="right")
    for currency, sides in money.items():
        mark = Text("=", "green") if len(set(sides)) == 1 else Text("differs", "bold red")
        table.add_row(currency, *(f"{shown_amount(side, currency)}" for side in sides), mark)
    return table


def shown_amount(amount_minor: int, currency: str) -> str:
    """Minor units as people write them: 1234 USD is 12.34, 1234 JPY is 1,234."""
    exponent = EXPONENTS.get(currency, 0)
    whole, rest = divmod(abs(amount_minor), 10**exponent)
    sign = "-" if amount_minor < 0 else ""
    return f"{sign}{whole:,}.{rest:0{exponent}}" if exponent else f"{sign}{whole:,}"


def _verdict(report: AuditReport) -> Text:
    if report.ok:
        return Text("every payment charged exactly once", "bold green")
    lines = [f"{report.problem_total} problems:", *(f"  {problem}" for problem in report.problems)]
    if report.problem_total > len(report.problems):
        lines.append(f"  ... {report.problem_total - len(report.problems)} more")
    return Text("\n".join(lines), "bold red")
