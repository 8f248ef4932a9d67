"""What the books say, in lines for people: revenue by minute, and what another reader would have reported."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from lab.analytics.books import RevenueBooks
from lab.analytics.movements import METRICS, RESULTS
from streamsocial_billing.domain.money import format_minor

_ROW = "{:<17} {:<13} {:>8} {:>16} {:>16} {:>16}"
_TOTAL = "{:<16} {:>16} {:>16} {:>16}"


def report(books: RevenueBooks) -> Iterator[str]:
    """Revenue by minute, product, currency; then whether both topics say the same."""
    yield _ROW.format("minute (UTC)", "product", "currency", "charged", "refunded", "revenue")
    lines = books.lines(RESULTS)
    for minute, product, currency, charged, refunded in lines:
        at = datetime.fromtimestamp(minute / 1000, UTC).strftime("%Y-%m-%d %H:%M")
        amounts = [_amount(one, currency) for one in (charged, refunded, charged - refunded)]
        yield _ROW.format(at, product, currency, *amounts)
    same = lines == books.lines(METRICS)
    yield f"{METRICS}: " + ("the same" if same else "another sum (so it is while records are on their way)")


def compare(committed: RevenueBooks, uncommitted: RevenueBooks) -> Iterator[str]:
    """By currency the revenue that each of two readers reports, and by how much the second one is wrong."""
    yield _TOTAL.format("revenue", "read_committed", "read_uncommitted", "too much")
    truth, other = (books.revenue(RESULTS) for books in (committed, uncommitted))
    for currency in sorted(truth | other):
        right, said = truth.get(currency, 0), other.get(currency, 0)
        yield _TOTAL.format(currency, *(_amount(one, currency) for one in (right, said, said - right)))


def _amount(minor: int, currency: str) -> str:
    return format_minor(minor, currency)
