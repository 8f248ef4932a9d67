"""What an outcome means, in words: the worst first, in money."""

from __future__ import annotations

from lab.books import Harm
from lab.plan import CURRENCY
from lab.run import Outcome
from streamsocial_billing.domain.english import counted
from streamsocial_billing.domain.money import shown_amount


def euros(minor: int) -> str:
    """Cents as people write them: "EUR 1,234.50"."""
    sign = "-" if minor < 0 else ""
    return f"{sign}{CURRENCY} {shown_amount(abs(minor), CURRENCY)}"


def said(harm: Harm, verb: str) -> str:
    """ "3 payments lost (EUR 26.97)"."""
    return f"{counted(harm.payments, 'payment')} {verb} ({euros(harm.minor)})"


def harms(outcome: Outcome) -> list[str]:
    """Each harm that was done, the worst for the customer first; empty: none."""
    books = outcome.books
    if books is None:
        return ["no result"]
    kinds = (
        *([] if outcome.stood_still else [(books.lost, "lost")]),
        (books.twice_by_handling, "charged again by the consumer"),
        (books.denied, "charged, and no result says so"),
        (books.twice_by_sending, "charged twice because they were sent twice"),
        (books.reported_twice, "reported more than once"),
    )
    found = [said(harm, verb) for harm, verb in kinds if harm.payments]
    if outcome.crashes:
        times = "once" if outcome.crashes == 1 else f"{outcome.crashes} times"
        found.append(f"a worker ended by itself {times}")
    if outcome.stood_still:
        found.insert(0, f"it stood still: {said(books.unanswered, 'unanswered')}")
    if books.misreported:
        more = "more" if books.misreported > 0 else "less"
        amount = euros(abs(books.misreported))
        found.append(f"the results report {amount} {more} than the gateway took")
    if not outcome.stood_still and books.unanswered.payments and not books.lost.payments:
        found.append(said(books.unanswered, "unanswered"))
    return found


def verdict(outcome: Outcome) -> str:
    """One line."""
    found = harms(outcome)
    if found:
        return "; ".join(found)
    due = euros(outcome.books.due) if outcome.books else ""
    return f"no harm: {due} due, taken and reported, each payment once"


def read_uncommitted_harm(outcome: Outcome) -> str:
    """What a reader of uncommitted records would have reported beside a reader of committed ones."""
    more = outcome.uncommitted_revenue - outcome.committed_revenue
    if more == 0:
        return "Both readers report the same."
    return (
        f"A read_uncommitted reader reports {euros(abs(more))} {'more' if more > 0 else 'less'}: "
        "records of transactions that were aborted."
    )
