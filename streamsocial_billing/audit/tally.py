"""What became of each event on `payments`, by its records: numbers that must add up.

    sent = charged + refunded + declined + failed + rejected + open + repeats + dead_letters + waiting

The live audit counts the same under the same names (audit/outcomes.py): what is handled is sent - waiting.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final, NamedTuple

from streamsocial_billing.audit.books import Books, Entry, Result
from streamsocial_billing.audit.checks import Problem
from streamsocial_billing.domain.gateway_calls import NOT_CALLED
from streamsocial_billing.domain.statuses import FINAL

PARTS: Final = (
    "charged", "refunded", "declined", "failed", "rejected", "open", "repeats", "dead_letters", "waiting",
)  # fmt: skip
"""What an event on `payments` can have become; together they are `sent`."""


class OpenGroup(NamedTuple):
    """Open payments of one gateway that wait for the same thing.

    why       the reason of their status, with the gateway's state where it is not called: `stopped` say
    since     when the first event of the oldest was appended, ms since the epoch
    """

    gateway: str
    status: str
    why: str
    payments: int
    since: int | None


def tally(books: Books) -> dict[str, int]:
    """`sent` and its parts; then what is no part of it: `unknown` and `parked` (together `open`), others."""
    events = [one for one in books.results if one.source is not None]
    ended = Counter(_outcome(one) for one in events if one.status in FINAL and not one.replayed)
    open_now = books.open_payments()
    parked = sum(_entry(books, payment).status == "parked" for payment in open_now)
    return {
        "sent": len(books.sent) + _gone(books),
        **{name: ended[name] for name in ("charged", "refunded", "declined", "failed", "rejected")},
        "open": len(open_now),
        "repeats": sum(one.replayed for one in events),
        "dead_letters": books.dead.total(),
        "waiting": len(books.waiting()),
        "unknown": len(open_now) - parked,
        "parked": parked,
        "dead_letters_elsewhere": books.dead_elsewhere,
        "external": sum(one.external for one in books.results),
    }


def adds_up(books: Books) -> Iterator[Problem]:
    """A problem unless each event is in one part."""
    found = tally(books)
    parts = sum(found[name] for name in PARTS)
    if parts != found["sent"]:
        detail = f"{found['sent']} events sent, {parts} in the parts"
        yield Problem("figures do not add up", "payments", detail)


def open_groups(books: Books) -> list[OpenGroup]:
    """The open payments by what they wait for, the most first."""
    counts: Counter[tuple[str, str, str]] = Counter()
    since: dict[tuple[str, str, str], int] = {}
    for payment in books.open_payments():
        entry = _entry(books, payment)
        group = entry.gateway, entry.status, _why(entry)
        counts[group] += 1
        if entry.since is not None:
            since[group] = min(since.get(group, entry.since), entry.since)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [OpenGroup(*group, count, since.get(group)) for group, count in ordered]


def _why(entry: Entry) -> str:
    reason = entry.reason or "no reason given"
    return f"{reason}: {entry.last_error}" if entry.last_error in NOT_CALLED else reason


def _entry(books: Books, payment: str) -> Entry:
    return books.entries.get(payment) or Entry("unknown", 0, "", None, reason="no entry")


def _outcome(one: Result) -> str:
    if one.status != "succeeded":
        return one.status
    return "refunded" if one.action == "refund" else "charged"


def _gone(books: Books) -> int:
    """Events that were answered, and are no longer on the log."""
    answered = {one.source for one in books.results if one.source is not None and not one.resolves}
    return sum(source[1] < books.log_start.get(source[0], 0) for source in answered | books.dead.keys())
