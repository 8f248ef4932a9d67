"""Resolving unknown outcomes: a nudge repeats the call with the same key, or asks by our reference."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import orjson

from faust_exactly_once import Event, Layer, Nudger, current_unit
from streamsocial_billing.domain.decision import gives_up, is_due, past_window, proven_absent
from streamsocial_billing.domain.events import BadInput, Nudge, gateway_key_of
from streamsocial_billing.domain.outcomes import (
    INTERNAL_ERROR,
    Verdict,
    account_forbids,
    question,
    verdict,
    verdict_of_answer,
)
from streamsocial_billing.domain.refund_rules import EXCEEDS_CHARGE
from streamsocial_billing.domain.times import now_ms
from streamsocial_billing.gateways.base import ChargeRequest, Gateway, Outcome, RefundRequest
from streamsocial_billing.payments.charge import RefundHandler, check_partition
from streamsocial_billing.payments.open_payments import Census
from streamsocial_billing.payments.record_outcome import Settlement
from streamsocial_billing.payments.retention import hint, sweep
from streamsocial_billing.payments.unit_writer import Books
from streamsocial_billing.settings import Settings
from tables.payments import PaymentEntry, is_full

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0
NUDGES_PER_LOOK = 500  # per task: a long outage must not flood the source topic
LOOKED_AT = 2_000  # open payments per task at one look
NUDGE_AGAIN_AFTER_MS = 5_000
GAVE_UP = Verdict("failed", "gave_up")

OnNudge = Callable[[str, str, int], Awaitable[None]]
"""What a nudge of another kind calls: user_id, payment_id, ms since the epoch."""


class Resolver:
    """Handles one nudge: acts only on what is due in the tables, so lost or doubled nudges do no harm.

    `kinds`: what handles nudges that are not about a payment, by their `kind`.
    """

    def __init__(
        self, settings: Settings, books: Books, gateways: Mapping[str, Gateway],
        partitions: Callable[[], int], settlement: Settlement, refunds: RefundHandler | None = None,
        kinds: Mapping[str, OnNudge] | None = None,
    ) -> None:  # fmt: skip
        self._settings = settings
        self._books = books
        self._gateways = gateways
        self._partitions = partitions
        self._settlement = settlement
        self._refunds = refunds
        self._kinds = kinds or {}
        self._call_s = settings.gateway_deadline_s / 2  # a nudge makes two calls at most

    async def resolve(self, event: Event) -> None:
        """One record of `payments-retry`."""
        self._books.handled(event)
        at_ms = now_ms()
        try:
            nudge = Nudge.from_bytes(event.value)
            if event.key != nudge.user_id.encode():
                raise BadInput("key_mismatch", "the record key is not the nudge's user_id")
            check_partition(event, self._partitions())
        except BadInput as bad:
            await self._books.bury(event, bad, at_ms)
            return
        if nudge.kind == "payment":
            await self._payment(nudge.user_id, nudge.payment_id, at_ms)
        elif nudge.kind in self._kinds:
            await self._kinds[nudge.kind](nudge.user_id, nudge.payment_id, at_ms)

    async def _payment(self, user_id: str, payment_id: str, at_ms: int) -> None:
        entry = self._books.entry(user_id, payment_id)
        if not is_full(entry) or not is_due(entry, at_ms):
            sweep(self._books, user_id, payment_id, entry, at_ms)
        elif entry["held_since"] is not None and self._refunds is not None:
            await self._refunds.release(user_id, payment_id, entry, at_ms)
        else:
            found, calls = await self._learn(user_id, payment_id, entry)
            self._settlement.settle(user_id, payment_id, entry, found, calls=calls, at_ms=now_ms())

    async def _learn(self, user_id: str, payment_id: str, entry: PaymentEntry) -> tuple[Verdict, int]:
        """What the payment is now, with the calls that it took.

        The route and the account are part of the payment: it goes nowhere else, it waits with an alarm.
        """
        gateway = self._gateways.get(entry["gateway"])
        if gateway is None:
            error = f"gateway {entry['gateway']} is not configured"
            return _told(payment_id, Verdict("unknown", "gateway_not_configured", error=error)), 0
        await gateway.start()  # some know their account only when they have asked for it
        forbidden = account_forbids(gateway, entry["gateway_account"])
        if forbidden is not None:
            return _told(payment_id, forbidden), 0
        entry["gateway_account"] = gateway.account  # if it was not known before
        give_up_after_ms = self._settings.give_up_after_s * 1000
        return await _Try(user_id, payment_id, entry, gateway, self._call_s).learn(give_up_after_ms)


def _told(payment_id: str, found: Verdict) -> Verdict:
    if not found.waits:
        logger.error("payment %s waits: %s", payment_id, found.error, extra={"payment_id": payment_id})
    return found


class _Try:
    """One try of an open payment: repeats, asks, or both, as its age and its history allow."""

    def __init__(
        self, user_id: str, payment_id: str, entry: PaymentEntry, gateway: Gateway, call_s: float
    ) -> None:
        self._user_id = user_id
        self._payment_id = payment_id
        self._entry = entry
        self._gateway = gateway
        self._call_s = call_s
        self._began_ms = now_ms()
        # an earlier delivery of this nudge may have called before a crash: of that nothing is stored
        self._doubt = not current_unit().surely_first

    async def learn(self, give_up_after_ms: int) -> tuple[Verdict, int]:
        """What the payment is now, with the calls (not the questions) that it took."""
        found, calls = await self._learn(give_up_after_ms)
        return found._replace(ambiguous=found.ambiguous or self._doubt), calls

    async def _learn(self, give_up_after_ms: int) -> tuple[Verdict, int]:
        entry = self._entry
        old = past_window(entry["window_from"], self._began_ms, self._gateway.traits)
        if not old and not entry["ask_only"]:
            found, calls = await self._repeat()
            if _proven_unsent(found) and self._gives_up(give_up_after_ms):
                found = await self._before_giving_up(found)
            return found, calls
        found = await self._ask()
        if not found.absent:
            return found, 0
        if not proven_absent(entry, self._began_ms, self._gateway.traits):
            return self._asked_again(found), 0
        if entry["action"] == "refund" and not entry["reserved_minor"]:  # it must not be called
            return Verdict("rejected", EXCEEDS_CHARGE), 0
        if not old:  # the gateway would only bring the error again that it keeps under our key
            return found, 0
        found, calls = await self._repeat()
        if found.waits:
            return found, 0
        if _proven_unsent(found) and self._gives_up(give_up_after_ms):
            return GAVE_UP, calls
        return found._replace(window_from=self._began_ms), calls

    def _gives_up(self, give_up_after_ms: int) -> bool:
        return not self._doubt and gives_up(self._entry, self._began_ms, give_up_after_ms)

    async def _before_giving_up(self, unsent: Verdict) -> Verdict:
        """Every try is proven unsent, but a worker that was frozen may have called unseen: ask, twice."""
        found = await self._ask()
        if not found.absent:
            return unsent if found.status == "unknown" else found
        if proven_absent(self._entry, self._began_ms, self._gateway.traits):
            return GAVE_UP
        return self._asked_again(unsent._replace(absent=True))

    def _asked_again(self, found: Verdict) -> Verdict:
        """Absent, but not for long enough: what was charged a moment ago may not be findable yet."""
        since_ms = self._began_ms - (self._entry["absent_at"] or self._began_ms)
        left_s = self._gateway.traits.consistency_delay_s - since_ms / 1000
        return found._replace(again_after_s=max(left_s, 0.0))

    async def _repeat(self) -> tuple[Verdict, int]:
        """The same call with the same key: inside the gateway's window it is the authority."""
        try:
            await self._gateway.start()
            found = verdict(await self._call())
        except Exception:
            logger.exception("gateway %s: internal error after the call had started", self._gateway.name)
            found = INTERNAL_ERROR
        if found.status == "failed" and self._entry["ever_ambiguous"]:
            # "invalid" speaks of this call alone; an earlier one may have charged: a person has to look
            found = Verdict("parked", "invalid_after_doubt", error=found.error)
        return found, 0 if found.waits else 1

    async def _call(self) -> Outcome:
        entry = self._entry
        key = gateway_key_of(self._user_id, entry["action"], self._payment_id)
        if entry["action"] == "charge":
            charge = ChargeRequest(
                key, self._user_id, self._payment_id, entry["fingerprint"], entry["amount_minor"],
                entry["currency"], entry["payment_method"],
            )  # fmt: skip
            return await self._gateway.charge(charge, timeout_s=self._call_s)
        if entry["charge_ref"] is None:
            raise LookupError("the entry of a called refund names its charge at the gateway")
        refund = RefundRequest(
            key, self._user_id, self._payment_id, entry["fingerprint"], entry["amount_minor"],
            entry["currency"], entry["charge_ref"],
        )  # fmt: skip
        return await self._gateway.refund(refund, timeout_s=self._call_s)

    async def _ask(self) -> Verdict:
        """What the gateway has under our reference."""
        entry, query = self._entry, question(self._user_id, self._payment_id, self._entry)
        try:
            await self._gateway.start()
            answer = await self._gateway.find(query, timeout_s=self._call_s)
            return verdict_of_answer(answer, query, entry["reason"])
        except Exception:
            logger.exception("gateway %s: internal error in a question", self._gateway.name)
            return Verdict("unknown", entry["reason"], error="internal_error")


def _proven_unsent(found: Verdict) -> bool:
    """True if a call was tried and surely not executed; one that was held back here is no try."""
    return found.status == "unknown" and not found.ambiguous and not found.waits


class DueTimer:
    """Looks every second at the open payments of the tasks here; nudges those that are due.

    `takes` says how many calls a gateway takes now: nobody is nudged towards one that takes none, so a long
    outage costs nothing, and what has become due meanwhile is nudged as soon as it is back. `census` counts
    what the timer walks past.
    """

    def __init__(
        self, layer: Layer, nudger: Nudger, takes: Callable[[str], float] = lambda gateway: math.inf,
        census: Census | None = None,
    ) -> None:  # fmt: skip
        self._layer = layer
        self._nudger = nudger
        self._takes = takes
        self._census = census or Census()
        self._nudged_at: dict[str, int] = {}
        self._looked_to: dict[int, str] = {}

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            await self.run_once(now_ms())

    async def run_once(self, at_ms: int) -> int:
        """Nudge what is due.

        Returns:
            how many nudges were appended.
        """
        self._nudged_at = {k: at for k, at in self._nudged_at.items() if at_ms - at < NUDGE_AGAIN_AFTER_MS}
        sent = 0
        room: dict[str, float] = {}
        for partition in self._layer.running_partitions():
            await asyncio.sleep(0)  # payments go on between one task and the next
            due = self._due(self._next_items(partition), at_ms, room)
            if due:
                await self._nudger.append(partition, map(hint, due))
                self._nudged_at.update(dict.fromkeys(due, at_ms))
                sent += len(due)
        return sent

    def _next_items(self, partition: int) -> list[tuple[str, Mapping[str, Any]]]:
        """The next open payments of a task, round and round: some that stay open must not hide others."""
        after = self._looked_to.get(partition, "")
        items = self._layer.committed_items(partition, "open_payments", LOOKED_AT, after)
        self._looked_to[partition] = items[-1][0] if len(items) == LOOKED_AT else ""
        rows = [(key, orjson.loads(value)) for key, value in items]
        self._census.saw(partition, (listed for _, listed in rows), whole=len(items) < LOOKED_AT)
        return rows

    def _due(
        self, rows: list[tuple[str, Mapping[str, Any]]], at_ms: int, room: dict[str, float]
    ) -> list[str]:
        """Who is nudged: what is due and was not nudged a moment ago, up to the `room` at its gateway."""
        due: list[str] = []
        for key, listed in rows:
            if not _is_due(listed, at_ms) or key in self._nudged_at:
                continue
            gateway = listed.get("gateway", "")  # earlier releases did not write it
            left = room[gateway] if gateway in room else self._takes(gateway)
            if left > 0 and len(due) < NUDGES_PER_LOOK:
                due.append(key)
                left -= 1
            room[gateway] = left
        return due


def _is_due(listed: Mapping[str, Any], at_ms: int) -> bool:
    due_at = listed["next_try_at"]
    return due_at is not None and due_at <= at_ms
