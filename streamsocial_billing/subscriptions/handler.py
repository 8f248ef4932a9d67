"""Subscriptions inside units: carries out orders, sends what is due, takes in what came of it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

from faust_exactly_once import Event, Topic
from streamsocial_billing.domain.decision import DEDUP_RETENTION_MS
from streamsocial_billing.domain.events import MAX_AHEAD_MS
from streamsocial_billing.domain.foreign_fields import BadInput
from streamsocial_billing.domain.money import format_minor
from streamsocial_billing.domain.payment_entry import to_be_ended
from streamsocial_billing.domain.results import requested_metric
from streamsocial_billing.domain.times import now_ms, utc
from streamsocial_billing.gateways.base import Gateway
from streamsocial_billing.operations.commands import Command
from streamsocial_billing.operations.handler import Done, OnCommand
from streamsocial_billing.payments.record_outcome import record_kept
from streamsocial_billing.payments.unit_writer import UnitWriter
from streamsocial_billing.subscriptions import renewal
from streamsocial_billing.subscriptions.terms import (
    Terms,
    changed_payment,
    checked_id,
    refuse_unknown,
    user_of,
)
from tables.payments import PaymentEntry, SmallEntry, is_full, is_observed
from tables.subscriptions import Subscription, subscription_key

logger = logging.getLogger(__name__)

CHANGED_AFTER: Final = "add a new one, under a new id"


class Subscriptions:
    """Everything that happens to subscriptions; each call is inside a unit of the subscription's user."""

    def __init__(
        self, writer: UnitWriter, table: Any, payments: Topic, gateways: Mapping[str, Gateway],
        dunning_days: tuple[int, ...],
    ) -> None:  # fmt: skip
        self._writer = writer
        self._gateways = gateways
        self._table = table
        self._payments = payments
        self._dunning_days = dunning_days

    def commands(self) -> dict[str, OnCommand]:
        """What carries out which command."""
        return {
            "subscribe": self._subscribe,
            "unsubscribe": self._unsubscribe,
            "change-plan": self._change_plan,
            "update-payment-method": self._update_payment_method,
        }

    # -- what is due

    async def triggered(self, user_id: str, subscription_id: str, at_ms: int) -> None:
        """Send the payment that is due, if one is; a lost or doubled trigger does no harm."""
        sub = self._get(user_id, subscription_id)
        if sub is not None and renewal.is_due(sub, at_ms):
            self._send(user_id, subscription_id, sub, at_ms)

    def _send(self, user_id: str, subscription_id: str, sub: Subscription, at_ms: int) -> Subscription:
        """The next payment, with its metric and the change of the subscription: one unit.

        Returns the subscription as stored.
        """
        if renewal.waits_for_customer(sub):
            return self._end_first(user_id, subscription_id, sub, at_ms)
        if sub["pending"] is not None:
            return self._send_again(user_id, subscription_id, sub, at_ms)
        if sub["gateway"] not in self._gateways:  # it would be refused without a trace: it waits here
            logger.error(
                "%s/%s waits: gateway %s is not configured", user_id, subscription_id, sub["gateway"]
            )
            return self._put(user_id, subscription_id, renewal.looked_at_again(sub, at_ms))
        changed = renewal.sent(user_id, subscription_id, sub, at_ms)
        self._emit(user_id, changed, at_ms)
        return self._put(user_id, subscription_id, changed)

    def _end_first(self, user_id: str, subscription_id: str, sub: Subscription, at_ms: int) -> Subscription:
        """The try before this one waits for its customer: only once its intent is canceled another goes out.

        That is asked for by the payment's own trigger; its outcome comes back to `learn`.
        """
        known = self._writer.look_up(user_id, _payment_id(sub) or "")
        entry = known.entry
        ended = to_be_ended(entry, at_ms) if is_full(entry) else None
        if ended is not None:
            self._writer.write(record_kept(known, ended, at_ms))
        elif entry is not None and not is_observed(entry):  # it has its end, which nothing told here
            return self._answered_unseen(user_id, subscription_id, sub, entry, at_ms)
        return self._put(user_id, subscription_id, renewal.looked_at_again(sub, at_ms))

    def _send_again(self, user_id: str, subscription_id: str, sub: Subscription, at_ms: int) -> Subscription:
        """What was sent an hour ago has no outcome: the same event once more, as long as that is safe."""
        pending = sub["pending"]
        if pending is None:
            raise ValueError("no payment is under way")
        entry = self._writer.entry(user_id, pending["payment_id"])
        if entry is not None and not is_observed(entry):
            return self._answered_unseen(user_id, subscription_id, sub, entry, at_ms)
        gateway = self._gateways.get(pending["gateway"])
        if gateway is not None and not renewal.may_send_again(sub, at_ms, gateway.traits):
            logger.error(
                "%s/%s: payment %s has no outcome. Unless one comes, see whether the gateway has it, then "
                "submit it by hand", user_id, subscription_id, pending["payment_id"],
            )  # fmt: skip
            return self._put(user_id, subscription_id, renewal.looked_at_again(sub, None))
        if gateway is not None:
            logger.warning("%s/%s: %s is sent again", user_id, subscription_id, pending["payment_id"])
            self._emit(user_id, sub, at_ms)
        return self._put(user_id, subscription_id, renewal.looked_at_again(sub, at_ms))

    def _emit(self, user_id: str, sub: Subscription, at_ms: int) -> None:
        payment = renewal.event_of(user_id, sub, at_ms)
        self._payments.put_into_unit(user_id.encode(), payment.to_bytes())
        self._writer.metrics.put_into_unit(payment.product.encode(), requested_metric(payment, at_ms))

    def _answered_unseen(
        self, user_id: str, subscription_id: str, sub: Subscription, entry: Any, at_ms: int
    ) -> Subscription:
        """What was sent has an outcome, but nothing told it here: see whose it is."""
        if entry["business_ref"] == renewal.business_ref_of(subscription_id, sub):
            # a worker of a release before subscriptions wrote it
            self.learn(user_id, _payment_id(sub) or "", entry, at_ms)
            return self._get(user_id, subscription_id) or sub
        logger.error("%s/%s: somebody else has used the id of its payment", user_id, subscription_id)
        return self._put(user_id, subscription_id, renewal.not_ours(sub, at_ms))

    # -- what came of it

    def learn(self, user_id: str, payment_id: str, entry: PaymentEntry | SmallEntry, at_ms: int) -> None:
        """Take in a stored outcome (following.OnOutcome): does it concern a subscription?"""
        subscription_id = renewal.subscription_of(entry["business_ref"])
        if subscription_id is None or entry["action"] != "charge":
            return
        sub = self._get(user_id, subscription_id)
        if sub is None:
            return
        other = entry["conflicts_with"]
        changed = renewal.after_outcome(
            subscription_id, sub, payment_id, entry, at_ms=at_ms, dunning_days=self._dunning_days,
            holder=None if other is None else self._writer.entry(user_id, other),
        )  # fmt: skip
        if changed is None:
            return
        self._put(user_id, subscription_id, changed)
        _tell(
            user_id=user_id, subscription_id=subscription_id, before=sub, after=changed,
            payment_id=payment_id, entry=entry,
        )  # fmt: skip

    # -- orders

    async def _subscribe(self, event: Event, command: Command) -> Done:
        at_ms, user_id = now_ms(), user_of(command)
        terms = Terms.of(command.details, user_id=user_id, now_ms=at_ms)
        known = self._get(user_id, terms.subscription_id)
        if known is not None:
            return _ordered_before(user_id, terms, known)
        if command.at > at_ms + MAX_AHEAD_MS:
            raise BadInput("requested_in_future", f"the order is of {command.at}, over 5 min after {at_ms}")
        if at_ms - command.at > DEDUP_RETENTION_MS:
            raise BadInput("expired", f"the order is of {command.at}, too long before {at_ms}")
        begun = terms.begun(command.at, at_ms)
        added = f"subscription {user_id}/{terms.subscription_id} added"
        if begun["next_at"] is not None and not renewal.is_due(begun, at_ms):
            added += f"; first charge at {utc(begun['next_at'])}"
        return self._keep_and_report(user_id, terms.subscription_id, begun, at_ms, added)

    async def _unsubscribe(self, event: Event, command: Command) -> Done:
        at_once = command.details.get("at_once", False)
        user_id, subscription_id, sub = self._ordered(command, {"at_once"})
        if type(at_once) is not bool:
            raise BadInput("wrong_type", "at_once is not a boolean")
        at_ms = now_ms()
        changed = renewal.cancelled(sub, at_once=at_once, at_ms=at_ms)
        self._put(user_id, subscription_id, changed)
        before = "was already " if changed == sub else ""
        said = f"subscription {user_id}/{subscription_id} {before}{changed['state']}"
        ends_at, pending = changed["ends_at"], changed["pending"]
        said += "" if ends_at is None else f"; {'ends' if ends_at > at_ms else 'ended'} at {utc(ends_at)}"
        if pending is not None:
            said += f"; payment {pending['payment_id']} is under way, its result is still taken in"
        return Done(said)

    async def _change_plan(self, event: Event, command: Command) -> Done:
        user_id, subscription_id, sub = self._ordered(command, {"amount_minor"}, alive=True)
        at_ms = now_ms()
        amount = changed_payment(sub, user_id, command.details, "amount_minor", at_ms).amount_minor
        self._put(user_id, subscription_id, renewal.with_amount(sub, amount, at_ms))
        price = format_minor(amount, sub["currency"])
        return Done(f"subscription {user_id}/{subscription_id} costs {price} from the next period on")

    async def _update_payment_method(self, event: Event, command: Command) -> Done:
        user_id, subscription_id, sub = self._ordered(command, {"payment_method", "gateway"}, alive=True)
        at_ms = now_ms()
        payment = changed_payment(sub, user_id, command.details, "payment_method", at_ms)
        changed = renewal.with_method(sub, payment.payment_method, payment.gateway, at_ms)
        said = f"payment method of subscription {user_id}/{subscription_id} changed"
        if renewal.waits_for_customer(changed):
            self._end_first(user_id, subscription_id, changed, at_ms)
            return Done(f"{said}; its payment waits for the customer: it is canceled, then tried anew")
        if sub["pending"] is not None:
            said += f"; payment {sub['pending']['payment_id']} is still tried with the old one"
            self._put(user_id, subscription_id, changed)
            return Done(said)
        return self._keep_and_report(user_id, subscription_id, changed, at_ms, said)

    def _ordered(
        self, command: Command, names: set[str], *, alive: bool = False
    ) -> tuple[str, str, Subscription]:
        """The subscription that a command is about; raises BadInput if there is none such."""
        user_id = user_of(command)
        refuse_unknown(command.details, names | {"subscription_id"})
        subscription_id = checked_id(command.details, user_id)
        sub = self._get(user_id, subscription_id)
        if sub is None:
            raise BadInput("unknown_subscription", f"{user_id} has no subscription {subscription_id}")
        if alive and sub["state"] in renewal.OVER:
            name = f"{user_id}/{subscription_id}"
            raise BadInput("subscription_over", f"subscription {name} is {sub['state']}; {CHANGED_AFTER}")
        return user_id, subscription_id, sub

    def _keep_and_report(
        self, user_id: str, subscription_id: str, sub: Subscription, at_ms: int, said: str
    ) -> Done:
        """Store it; what is due at once does not wait for the scheduler."""
        if not renewal.is_due(sub, at_ms):
            self._put(user_id, subscription_id, sub)
            return Done(said)
        payment_id = _payment_id(self._send(user_id, subscription_id, sub, at_ms))
        if payment_id is None:
            why = f"{said}; not charged yet: gateway {sub['gateway']} is not configured"
            return Done(why, code="gateway_not_configured")
        return Done(said, payment_id)

    def _get(self, user_id: str, subscription_id: str) -> Subscription | None:
        found: Subscription | None = self._table.get(subscription_key(user_id, subscription_id))
        return found

    def _put(self, user_id: str, subscription_id: str, sub: Subscription) -> Subscription:
        self._table[subscription_key(user_id, subscription_id)] = sub
        return sub


def _ordered_before(user_id: str, terms: Terms, known: Subscription) -> Done:
    """The answer to an order under an id that is known; raises BadInput unless it says the same again."""
    name = f"{user_id}/{terms.subscription_id}"
    if known["terms"] != terms.digest():
        raise BadInput("subscription_differs", f"subscription {name} exists with other terms")
    if known["state"] in renewal.OVER:
        raise BadInput("subscription_over", f"subscription {name} is {known['state']}; {CHANGED_AFTER}")
    return Done(f"subscription {name} exists with these terms; it is {known['state'].replace('_', ' ')}")


def _tell(
    user_id: str, subscription_id: str, before: Subscription, after: Subscription, payment_id: str,
    entry: PaymentEntry | SmallEntry,
) -> None:  # fmt: skip
    """The log lines that somebody may look for."""
    if entry["reason"] == "duplicate_business_ref":
        logger.warning(
            "%s/%s: period %d has another payment, %s", user_id, subscription_id, before["period"],
            entry["conflicts_with"],
        )  # fmt: skip
    if before["state"] == "cancelled" and entry["status"] == "succeeded" and not before["until_paid_end"]:
        logger.error(
            "%s/%s: %s was charged after it was cancelled: refund it", user_id, subscription_id, payment_id
        )
    if before["state"] != after["state"]:
        logger.info(
            "%s/%s is %s (%s)", user_id, subscription_id, after["state"], after["reason"] or "-"
        )  # fmt: skip


def _payment_id(sub: Subscription) -> str | None:
    """Of the payment under way."""
    return None if sub["pending"] is None else sub["pending"]["payment_id"]
