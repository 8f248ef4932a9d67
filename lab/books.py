"""What a run has done to the money: what was due, what the gateway took, what the results say.

Pure. All amounts are cents of one currency.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from lab.plan import Payment
from streamsocial_billing.audit.books import LedgerCharge
from streamsocial_billing.domain.statuses import FINAL


class Harm(NamedTuple):
    """How many payments, how much money."""

    payments: int
    minor: int


@dataclass(frozen=True, slots=True)
class Books:
    """The comparison; each Harm names payments by count and by what it cost, in cents.

    due                   what customers owe: each payment with a card that pays, once
    taken                 what the gateway took
    reported              what the results on the topic add up to, read_committed
    lost                  due, but never charged
    twice_by_handling     charged more often than the payment was sent: the consumer handled it again
    twice_by_sending      charged more than once because the sender had sent it twice
    denied                charged, but no result says so: the customer pays for nothing
    reported_twice        more than one result says `succeeded`
    unanswered            sent, no final result
    """

    due: int
    taken: int
    reported: int
    lost: Harm
    twice_by_handling: Harm
    twice_by_sending: Harm
    denied: Harm
    reported_twice: Harm
    unanswered: Harm

    @property
    def charged_twice(self) -> Harm:
        """Both kinds together."""
        return Harm(
            self.twice_by_handling.payments + self.twice_by_sending.payments,
            self.twice_by_handling.minor + self.twice_by_sending.minor,
        )

    @property
    def misreported(self) -> int:
        """By how much the reported revenue differs from what the gateway took."""
        return self.reported - self.taken

    @property
    def is_clean(self) -> bool:
        """True if nothing is lost, doubled, denied or misreported."""
        harms = (self.lost, self.charged_twice, self.denied, self.reported_twice, self.unanswered)
        return not any(harm.payments for harm in harms) and self.due == self.taken == self.reported


def compare(
    payments: Sequence[Payment], events: Sequence[Payment], charges: Iterable[LedgerCharge],
    results: Iterable[Mapping[str, Any]],
) -> Books:  # fmt: skip
    """Compare what was sent with the gateway's list and with the committed results.

    A result counts as revenue as any reader of the topic would count it: `succeeded`, not a replay.
    """
    sent = Counter(one.payment_id for one in events)
    # user_id/payment_id, as the ledger has it: the lab's payment_ids are unique by themselves
    taken = Counter(one.payment.partition("/")[2] for one in charges if one.status == "succeeded")
    statuses: defaultdict[str, list[str]] = defaultdict(list)
    for result in results:
        if not result.get("replayed", False):
            statuses[result["payment_id"]].append(result["status"])
    counts = {
        one.payment_id: _Counts(taken[one.payment_id], sent[one.payment_id], statuses[one.payment_id])
        for one in payments
    }

    def harm(excess: Mapping[str, int]) -> Harm:
        hit = [(one, excess.get(one.payment_id, 0)) for one in payments]
        return Harm(sum(times > 0 for _, times in hit), sum(one.amount_minor * times for one, times in hit))

    due = [one for one in payments if one.is_due]
    by_handling = {key: max(0, one.taken - max(1, one.sent)) for key, one in counts.items()}
    return Books(
        due=sum(one.amount_minor for one in due),
        taken=sum(one.amount_minor * counts[one.payment_id].taken for one in payments),
        reported=sum(one.amount_minor * counts[one.payment_id].succeeded for one in payments),
        lost=harm({one.payment_id: 1 for one in due if not counts[one.payment_id].taken}),
        twice_by_handling=harm(by_handling),
        twice_by_sending=harm({
            key: max(0, one.taken - 1) - by_handling[key] for key, one in counts.items()
        }),
        denied=harm({key: int(one.taken > 0 and not one.succeeded) for key, one in counts.items()}),
        reported_twice=harm({key: max(0, one.succeeded - 1) for key, one in counts.items()}),
        unanswered=harm({key: int(not one.answered) for key, one in counts.items()}),
    )  # fmt: skip


class _Counts(NamedTuple):
    taken: int
    sent: int
    statuses: list[str]

    @property
    def succeeded(self) -> int:
        return self.statuses.count("succeeded")

    @property
    def answered(self) -> bool:
        return any(status in FINAL for status in self.statuses)
