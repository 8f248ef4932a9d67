"""A gateway in memory that charges by intents, as Stripe does.

The payment method says how an intent begins: `pm_auth` wants its customer, `pm_processing`, `pm_declined`,
else it succeeds. The first answer is kept under the key for good, whatever becomes of the intent; questions
and cancellations tell what it is now. `mood`: `ok`, `lost` (done, the reply is lost), `unsent`.
"""

from __future__ import annotations

from dataclasses import dataclass

from support.asked_gateway import TRAITS
from support.scripted_gateway import ScriptedGateway

from streamsocial_billing.domain.gateway_calls import (
    AUTHENTICATION_REQUIRED,
    CANCELED,
    PENDING,
    Absent,
    Ambiguous,
    Answer,
    Cancellation,
    ChargeRequest,
    Declined,
    Found,
    NotSent,
    Outcome,
    Query,
    Succeeded,
    Waiting,
)


@dataclass
class Intent:
    """`status`: succeeded, declined, pending (with its `reason`) or canceled."""

    ref: str
    request: ChargeRequest
    status: str
    reason: str | None

    @property
    def charge(self) -> str:
        """The id of its charge."""
        return self.ref.replace("pi_", "ch_")

    def found(self) -> Found:
        """As an answer."""
        canceled = self.status == "canceled"
        return Found(
            gateway_ref=self.ref, status="declined" if canceled else self.status,
            reason=CANCELED if canceled else self.reason, amount_minor=self.request.amount_minor,
            currency=self.request.currency, user_id=self.request.user_id, payment_id=self.request.payment_id,
            intent=self.ref, intent_charge=self.charge, canceled=canceled,
        )  # fmt: skip

    def outcome(self) -> Outcome:
        """As the answer to a call."""
        if self.status == "succeeded":
            return Succeeded(self.ref, self.ref, self.charge)
        if self.status == "pending":
            return Waiting(str(self.reason), self.ref, self.charge)
        return Declined(str(self.reason), self.ref, False, self.ref, self.charge)


BEGINS: dict[str, tuple[str, str | None]] = {
    "pm_auth": ("pending", AUTHENTICATION_REQUIRED), "pm_processing": ("pending", PENDING),
    "pm_declined": ("declined", "lost_card"),
}  # fmt: skip


class IntentBank(ScriptedGateway):
    """`intents` in the order in which they were made; `asked`, `ended`: ids of questions, cancellations."""

    def __init__(self) -> None:
        super().__init__(traits=TRAITS)
        self.mood = "ok"
        self.intents: list[Intent] = []
        self.asked: list[str | None] = []
        self.ended: list[str | None] = []
        self._first: dict[str, Outcome] = {}

    async def charge(self, request: ChargeRequest, *, timeout_s: float) -> Outcome:
        """The first answer of the key, whatever became of the intent."""
        if self.mood == "unsent":
            return NotSent("unreachable")
        key = request.idempotency_key
        self.calls.append((key, timeout_s))
        if key not in self._first:
            made = Intent(
                f"pi_{len(self.intents) + 1}", request,
                *BEGINS.get(request.payment_method, ("succeeded", None)),
            )  # fmt: skip
            self.intents.append(made)
            self._first[key] = made.outcome()
        return Ambiguous("reset", ask_only=True) if self.mood == "lost" else self._first[key]

    async def find(self, query: Query, *, timeout_s: float) -> Answer:
        """What it is now."""
        if query.action == "refund":
            return await super().find(query, timeout_s=timeout_s)
        self.asked.append(query.intent)
        if self.mood == "unsent":
            return NotSent("unreachable")
        intent = self._of(query)
        return Absent() if intent is None else intent.found()

    async def cancel(self, request: Cancellation, *, timeout_s: float) -> Answer:
        """Canceled, unless it was decided before, or is at work."""
        self.ended.append(request.query.intent)
        if self.mood == "unsent":
            return NotSent("unreachable")
        intent = self._of(request.query)
        if intent is None:
            return Absent()
        if intent.reason != PENDING and intent.status != "succeeded":
            intent.status = "canceled"
        return Ambiguous("reset") if self.mood == "lost" else intent.found()

    def confirm(self, number: int = 0) -> None:
        """The customer comes back, with the client secret: it succeeds, unless it was canceled before."""
        if self.intents[number].status not in ("canceled", "succeeded"):
            self.intents[number].status, self.intents[number].reason = "succeeded", None

    def paid(self) -> dict[str, int]:
        """Minor units that it took, by payment_id."""
        taken: dict[str, int] = {}
        for one in self.intents:
            if one.status == "succeeded":
                before = taken.get(one.request.payment_id, 0)
                taken[one.request.payment_id] = before + one.request.amount_minor
        return taken

    def _of(self, query: Query) -> Intent | None:
        for one in self.intents:
            if query.intent in (None, one.ref) and one.request.idempotency_key == query.idempotency_key:
                return one
        return None
