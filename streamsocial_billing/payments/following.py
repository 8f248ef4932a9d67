"""What follows from a change, in one order, all of it in the unit of the change."""

from __future__ import annotations

import logging
from collections.abc import Callable

from streamsocial_billing.domain.payment_entry import PATIENCE_MS, authenticating_until
from streamsocial_billing.domain.results import AuthenticationRequest
from streamsocial_billing.domain.statuses import FINAL
from streamsocial_billing.payments.charge_balance import went_back
from streamsocial_billing.payments.record_outcome import Change, Row, changed_row
from streamsocial_billing.payments.reported_by_gateway import book_external
from streamsocial_billing.payments.unit_writer import UnitWriter
from streamsocial_billing.payments.waiting import (
    awaited_row,
    reports_of,
    without_money,
    without_refund,
)
from streamsocial_billing.payments.waiting_refunds import charge_of, look_again
from tables.awaited_charges import AwaitedCharge
from tables.payments import PaymentEntry, SmallEntry, is_full

logger = logging.getLogger(__name__)

Follow = Callable[[Change], None]
"""Does what follows from a change that was written, inside its unit."""
OnOutcome = Callable[[str, str, PaymentEntry | SmallEntry, int], None]
"""Takes in an outcome: user_id, payment_id, the entry after it, ms since the epoch."""


class Following:
    """Follows a change that was written. `subscriptions` takes in each outcome, after everything else."""

    def __init__(
        self, writer: UnitWriter, subscriptions: OnOutcome, patience_ms: int = PATIENCE_MS
    ) -> None:  # fmt: skip
        self._writer = writer
        self._subscriptions = subscriptions
        self._patience_ms = patience_ms

    def follow(self, change: Change) -> None:
        """Alarm, then refunds (those that wait for the charge; what one held), then the subscription.

        Only keys of the change's own user are touched.
        """
        user_id, payment_id, at_ms, entry = change.user_id, change.payment_id, change.at_ms, change.outcome
        if change.warning is not None:
            _warn(change, *change.warning)
        if entry is None:
            return
        if entry["status"] == "parked":
            _alarm(change, entry)
        elif change.asks:
            self._ask_customer(change, entry)
        if entry["action"] == "charge":
            if change.waiting is not None:  # hardly ever
                self._charge_known(user_id, payment_id, change.waiting, at_ms)
        elif entry["status"] in FINAL:
            self._refund_ended(change, entry)
        if entry["business_ref"] is not None:  # a subscription's payment has one
            self._subscriptions(user_id, payment_id, entry, at_ms)

    def _ask_customer(self, change: Change, entry: PaymentEntry) -> None:
        """The platform brings the customer back; until then the payment waits."""
        intent, until = entry.get("intent"), authenticating_until(entry, self._patience_ms)
        if intent is None or until is None:
            return
        self._writer.ask_customer(AuthenticationRequest(
            payment_id=change.payment_id, user_id=change.user_id, product=entry["product"],
            amount_minor=entry["amount_minor"], currency=entry["currency"], gateway=entry["gateway"],
            gateway_account=entry["gateway_account"], gateway_ref=intent, business_ref=entry["business_ref"],
            until=until, at=change.at_ms,
        ))  # fmt: skip

    # ---- a charge has an outcome: what waits for it goes on

    def _charge_known(self, user_id: str, charge_id: str, waiting: AwaitedCharge, at_ms: int) -> None:
        self._book_what_went_back(user_id, charge_id, waiting, at_ms)
        for report in reports_of(waiting):
            charge = self._writer.entry(user_id, charge_id)
            if is_full(charge):
                book_external(self._writer, report, charge_id, charge, at_ms)
        for refund_id in waiting["refunds"]:
            self.look_again(user_id, refund_id, at_ms)

    def _book_what_went_back(
        self, user_id: str, charge_id: str, waiting: AwaitedCharge, at_ms: int
    ) -> None:
        """Before the charge was known; from now on it is listed no longer, nor is what was reported of it."""
        refunded = waiting["refunded_minor"]
        if not refunded and not waiting["told"]:
            return
        left = without_money(waiting)
        rows = [awaited_row(user_id, charge_id, left)]
        if refunded:
            charge = self._writer.entry(user_id, charge_id)
            rows.append(went_back(self._writer, user_id, charge_id, charge, left, back_minor=refunded))
        self._writer.write(Change(user_id, charge_id, at_ms, tuple(rows)))

    def look_again(self, user_id: str, refund_id: str, at_ms: int) -> None:
        """Look at a refund that waits for its charge, if it still does."""
        known = self._writer.look_up(user_id, refund_id)
        refund = known.entry
        if not is_full(refund) or refund["status"] != "unknown" or refund["held_since"] is None:
            return
        charge_id = charge_of(refund["refund_of"])
        charge, waiting = self._writer.entry(user_id, charge_id), self._writer.awaited(user_id, charge_id)
        change = look_again(known, refund, charge, waiting, at_ms)
        self._writer.write(change)
        self.follow(change)

    # ---- a refund has ended: so has its reservation

    def _refund_ended(self, change: Change, entry: PaymentEntry) -> None:
        user_id, charge_id, freed = change.user_id, charge_of(entry["refund_of"]), entry["reserved_minor"]
        refunded = entry["amount_minor"] if entry["status"] == "succeeded" else 0
        left, rows = None, list[Row]()
        if entry["held_since"] is not None:
            left = without_refund(self._writer.awaited(user_id, charge_id), change.payment_id)
            if left is not None:
                rows.append(awaited_row(user_id, charge_id, left))
        if refunded or freed:
            charge = change.charge or self._writer.entry(user_id, charge_id)
            rows.append(went_back(
                self._writer, user_id, charge_id, charge, left, back_minor=refunded, held_minor=-freed,
            ))  # fmt: skip
        if freed:
            ended = entry.copy()
            ended["reserved_minor"] = 0
            rows.append(changed_row(user_id, change.payment_id, ended))
        if rows:
            self._writer.write(Change(user_id, change.payment_id, change.at_ms, tuple(rows)))


def _alarm(change: Change, entry: PaymentEntry) -> None:
    logger.error(
        "%s/%s is parked and waits for a person (`resolve`): %s: %s",
        change.user_id, change.payment_id, entry["reason"], entry["last_error"],
        extra={"payment_id": change.payment_id, "reason": entry["reason"]},
    )  # fmt: skip


def _warn(change: Change, reason: str, detail: str) -> None:
    logger.warning(
        "%s %s/%s: %s", reason, change.user_id, change.payment_id, detail,
        extra={"payment_id": change.payment_id, "reason": reason},
    )  # fmt: skip
