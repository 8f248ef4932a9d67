"""The one way in which a payment's outcome is stored."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from faust_exactly_once import Event
from streamsocial_billing.domain.decision import (
    FINAL,
    Adopt,
    Open,
    Reject,
    Replay,
    after_outcome,
    after_retry,
)
from streamsocial_billing.domain.events import PaymentEvent
from streamsocial_billing.domain.outcomes import Verdict
from streamsocial_billing.payments.unit_writer import Books, source_of
from tables.payments import PaymentEntry, SettledBy

logger = logging.getLogger(__name__)

Hook = Callable[[str, str, PaymentEntry, int], None]
"""Told of each stored outcome, inside its unit: user_id, payment_id, the entry after it, ms since epoch."""


class Settlement:
    """Stores what was learnt of a payment; who learnt it (a call, a nudge, a webhook, a person) is all one.

    `hooks` may be added to until the worker starts; each is called inside the unit, so what it writes
    commits with the outcome. A hook may touch keys of the same user only.
    """

    def __init__(self, books: Books, hooks: Sequence[Hook] = ()) -> None:
        self._books = books
        self.hooks: list[Hook] = list(hooks)

    def first_outcome(
        self, event: Event, payment: PaymentEvent, found: Verdict, *,
        account: str, at_ms: int, calls: int = 0, gateway_ms: int | None = None, doubt: bool = False,
        charge_ref: str | None = None, fingerprint: str | None = None, reserved_minor: int = 0,
    ) -> PaymentEntry:  # fmt: skip
        """Store the outcome of a payment that had no entry (or an observed one); emit it.

        `account` is the one called, or to be called; `doubt`: an earlier delivery of this event may have
        called the gateway, though nothing of that is stored; `reserved_minor`: what a refund holds of its
        charge. Returns the stored entry.
        """
        entry = after_outcome(
            payment, status=found.status, reason=found.reason, gateway_account=account,
            gateway_ref=found.gateway_ref, attempts=calls, ever_ambiguous=found.ambiguous or doubt,
            last_error=found.error, source=source_of(event), appended_ms=event.timestamp, now_ms=at_ms,
            retry_after_s=found.retry_after_s, ask_only=found.ask_only, soft=found.soft,
            charge_ref=charge_ref, conflicts_with=found.conflicts_with,
            known_fingerprint=fingerprint, reserved_minor=reserved_minor,
        )  # fmt: skip
        self._books.keep_first(payment.user_id, payment.payment_id, entry)
        self._books.answer(
            event, payment, found, replayed=False, attempt=calls, gateway_ms=gateway_ms, at_ms=at_ms
        )
        if found.status == "parked":
            _alarm(payment.user_id, payment.payment_id, entry)
        self.tell(payment.user_id, payment.payment_id, entry, at_ms)
        return entry

    def answer_known(
        self, event: Event, payment: PaymentEvent, decision: Replay | Open | Adopt | Reject, *,
        account: str, at_ms: int,
    ) -> None:  # fmt: skip
        """Carry out a decision that calls nobody; `account`: the one that is charged at."""
        match decision:
            case Adopt(found, seen_account):
                self.first_outcome(event, payment, found, account=seen_account, at_ms=at_ms)
            case Reject(reason, stored, detail, conflicts_with):
                found = Verdict("rejected", reason, conflicts_with=conflicts_with)
                if detail:
                    logger.warning(
                        "%s %s/%s: %s", reason, payment.user_id, payment.payment_id, detail,
                        extra={"payment_id": payment.payment_id, "reason": reason},
                    )  # fmt: skip
                if stored:
                    self.first_outcome(event, payment, found, account=account, at_ms=at_ms)
                else:
                    self._books.answer(event, payment, found, replayed=False, attempt=0, at_ms=at_ms)
            case Replay(status, reason, gateway_ref, attempts, conflicts_with):
                found = Verdict(status, reason, gateway_ref, conflicts_with=conflicts_with)
                self._books.answer(event, payment, found, replayed=True, attempt=attempts, at_ms=at_ms)
            case Open(status, reason, gateway_ref, attempts, entry):
                self._books.keep(payment.user_id, payment.payment_id, entry)
                found = Verdict(status, reason, gateway_ref)
                self._books.answer(event, payment, found, replayed=True, attempt=attempts, at_ms=at_ms)

    def settle(
        self, user_id: str, payment_id: str, entry: PaymentEntry, found: Verdict, *,
        calls: int, at_ms: int, by: SettledBy | None = None,
    ) -> PaymentEntry:  # fmt: skip
        """Store the entry as it is after `calls` more gateway calls, or after a person settled it (`by`).

        A final status writes the result that resolves the payment. From unknown to parked nothing is
        written but the tables, the log. Returns the stored entry; raises ValueError for a final payment,
        whose outcome never changes again.
        """
        changed = after_retry(entry, found, calls=calls, now_ms=at_ms, by=by)
        self._books.keep(user_id, payment_id, changed)
        if changed["status"] in FINAL:
            final = Verdict(changed["status"], changed["reason"], changed["gateway_ref"])
            self._books.write(
                changed, user_id, payment_id, final, replayed=False, resolves=True,
                attempt=changed["attempts"], gateway_ms=None, source=changed["source"], at_ms=at_ms,
            )  # fmt: skip
        elif changed["status"] == "parked" and entry["status"] != "parked":
            _alarm(user_id, payment_id, changed)
        self.tell(user_id, payment_id, changed, at_ms)
        return changed

    def tell(self, user_id: str, payment_id: str, entry: PaymentEntry, at_ms: int) -> None:
        """Call each hook."""
        for hook in self.hooks:
            hook(user_id, payment_id, entry, at_ms)


def _alarm(user_id: str, payment_id: str, entry: PaymentEntry) -> None:
    logger.error(
        "%s/%s is parked and waits for a person (`resolve`): %s: %s",
        user_id, payment_id, entry["reason"], entry["last_error"],
        extra={"payment_id": payment_id, "reason": entry["reason"]},
    )  # fmt: skip
