"""Settles a parked payment by a person's word: what `resolve` does."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from msgspec.structs import replace

from faust_exactly_once import Event
from streamsocial_billing.domain.card_numbers import mask_text
from streamsocial_billing.domain.foreign_fields import BadInput
from streamsocial_billing.domain.gateway_calls import Absent, Found, Query
from streamsocial_billing.domain.gateway_calls import Answer as GatewayAnswer
from streamsocial_billing.domain.outcomes import Called, Verdict, account_forbids, question
from streamsocial_billing.domain.statuses import BY_HAND, OPEN
from streamsocial_billing.domain.times import now_ms
from streamsocial_billing.gateways.base import Gateway
from streamsocial_billing.operations.commands import Command
from streamsocial_billing.operations.handler import Done, Refused
from streamsocial_billing.payments.calling import Asked, ask, cancel
from streamsocial_billing.payments.following import Follow
from streamsocial_billing.payments.record_outcome import record_again
from streamsocial_billing.payments.unit_writer import UnitWriter
from tables.payments import Entry, PaymentEntry, SettledBy, is_full

logger = logging.getLogger(__name__)

RESOLVE: Final = "resolve"
_REF = re.compile(r"[!-~]{1,255}")


@dataclass(frozen=True, slots=True)
class ResolveDetails:
    """What `details` of the command must hold; `gateway_ref` is the gateway's id of the charge or refund."""

    payment_id: str
    status: str
    gateway_ref: str | None

    @classmethod
    def of(cls, details: Mapping[str, Any]) -> ResolveDetails:
        """Read them; raises BadInput."""
        payment_id, status, ref = (details.get(name) for name in ("payment_id", "status", "gateway_ref"))
        if not isinstance(payment_id, str) or not isinstance(ref, str | None):
            raise BadInput("wrong_type", "payment_id and gateway_ref are texts")
        if ref is not None and (not _REF.fullmatch(ref) or mask_text(ref) != ref):
            raise BadInput("bad_id", "gateway_ref is not a gateway's id")
        if status not in BY_HAND:
            raise BadInput("wrong_type", f"status must be one of {', '.join(BY_HAND)}")
        return cls(payment_id, str(status), ref)


class Resolving:
    """Handles `resolve`. `gateways` are asked even while they are stopped: it is a person who asks."""

    def __init__(
        self, writer: UnitWriter, gateways: Mapping[str, Gateway], follow: Follow, ask_s: float
    ) -> None:
        self._writer = writer
        self._gateways = gateways
        self._follow = follow
        self._ask_s = ask_s

    async def resolve(self, event: Event, command: Command) -> Done:
        """Settle the payment, or leave it; the answer says which, and why."""
        if command.user_id is None:
            raise BadInput("wrong_type", "resolve is about a user")
        details = ResolveDetails.of(command.details)
        name = f"{command.user_id}/{details.payment_id}"
        known = self._writer.look_up(command.user_id, details.payment_id)
        entry = self._open(known.entry)
        asked = await self._ask(command.user_id, details, entry)
        if details.status != "succeeded" and isinstance(asked.said, Found) and _lives(asked.said):
            asked = await self._end(command.user_id, details, entry, asked.said.intent)
        found = _settled_as(details, asked.said, needs_word="authentication" in entry)
        called = Called(found, asked.account)
        by: SettledBy = {"actor": command.actor, "reason": command.reason, "at": command.at}
        change = record_again(known, entry, called, now_ms(), by)
        self._writer.write(change)
        self._follow(change)
        logger.warning("%s is settled as %s by %s: %s", name, details.status, command.actor, command.reason)
        return Done(f"{name} is settled as {details.status}")

    def _open(self, entry: Entry | None) -> PaymentEntry:
        """The entry of a payment that waits for a person; raises Refused for any other.

        One that no try can settle here, its gateway or account being gone, need not be parked first.
        """
        if entry is None:
            raise Refused("there is no such payment")
        if not is_full(entry) or entry["status"] not in OPEN:
            raise Refused(f"it is {entry['status']}: only a parked payment can be settled by hand")
        gateway = self._gateways.get(entry["gateway"])
        forbidden = None if gateway is None else account_forbids(gateway, entry["gateway_account"])
        tried = gateway is not None and (forbidden is None or forbidden.waits)
        tried = tried and "authentication" not in entry  # that one waits for its customer, or for a person
        if entry["status"] == "unknown" and tried:
            raise Refused("it is unknown, and tried on its own until it is known or parked")
        return entry

    async def _ask(self, user_id: str, details: ResolveDetails, entry: PaymentEntry) -> _Said:
        """What the gateway has of this very payment."""
        gateway, account = self._gateways.get(entry["gateway"]), entry["gateway_account"]
        if gateway is None:
            return _Said(f"gateway {entry['gateway']} is not configured here, so it cannot be asked", account)
        query = question(user_id, details.payment_id, entry)
        return self._said(await ask(gateway, query, account, self._ask_s), query)

    async def _end(
        self, user_id: str, details: ResolveDetails, entry: PaymentEntry, intent: str | None
    ) -> _Said:  # fmt: skip
        """What the intent is after it was canceled: else its customer could still pay what is settled."""
        gateway = self._gateways[entry["gateway"]]
        query = replace(question(user_id, details.payment_id, entry), intent=intent)
        return self._said(await cancel(gateway, query, entry["gateway_account"], self._ask_s), query)

    @staticmethod
    def _said(asked: Asked, query: Query) -> _Said:
        if asked.forbidden is not None:
            return _Said(str(asked.forbidden.error), asked.account)
        if asked.answer is None:
            lost = "the gateway could not be asked because of an internal error: see the worker's log"
            return _Said(lost, asked.account)
        return _Said(_judged(asked.answer, query), asked.account)


class _Said(NamedTuple):
    """What the gateway has of the payment, a text where it has, or says, nothing; the account asked."""

    said: Found | str
    account: str


def _lives(said: Found) -> bool:
    """True for an intent that can still be confirmed, were it declined."""
    return said.intent is not None and said.status != "succeeded" and not said.canceled


def _settled_as(details: ResolveDetails, said: Found | str, *, needs_word: bool = False) -> Verdict:
    """The verdict to store; raises Refused where the gateway's word is needed, or is another.

    `needs_word`: it is, whatever was ordered.
    """
    if details.status != "succeeded":
        if isinstance(said, Found) and (said.status != "declined" or _lives(said)):
            raise Refused(f"the gateway has it as {said.status}: {said.gateway_ref}")
        if needs_word and not isinstance(said, Found):
            raise Refused(said)  # its customer may be confirming it
        return Verdict(details.status, "resolved", details.gateway_ref)
    if details.gateway_ref is None:
        raise Refused("succeeded needs --gateway-ref, the gateway's id of it")
    if isinstance(said, Found):
        if said.status != "succeeded":
            raise Refused(f"the gateway has it as {said.status}: {said.gateway_ref}")
        if details.gateway_ref not in (said.gateway_ref, said.intent_charge):
            raise Refused(f"under our reference the gateway has {said.gateway_ref}")
        return Verdict(
            "succeeded", None, said.gateway_ref, intent=said.intent, intent_charge=said.intent_charge
        )  # fmt: skip
    raise Refused(said)


def _judged(answer: GatewayAnswer, query: Query) -> Found | str:
    match answer:
        case Found() if answer.agrees(query):
            return answer
        case Found(gateway_ref):
            return f"the gateway has {gateway_ref} under our reference, with other user, amount or currency"
        case Absent():
            return "the gateway has nothing under our reference"
        case _:
            return f"the gateway gave no answer: {answer.reason}"
