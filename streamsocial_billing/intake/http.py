"""Payments that come in over HTTP: answered from what is known, else appended once."""

from __future__ import annotations

import asyncio
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from streamsocial_billing.committed import KafkaProblem
from streamsocial_billing.decision import Decision, Open, Reject, Replay
from streamsocial_billing.events import BadInput, PaymentEvent, fingerprint, json_object
from streamsocial_billing.intake.producer import IntakeOutcomeUnknown
from streamsocial_billing.replies import Reply, later, refusal

WAIT_S: Final = 4.0
"""How long a request waits for its transaction; below the time-out of a hop between workers."""
REMEMBER_S: Final = 60.0
"""How long an appended payment whose entry does not show up keeps its repeats from being appended."""
REMEMBER: Final = 20_000
DEFAULT_GATEWAY: Final = "simulated"  # as `submit` has it
REFUSALS: Final = {"idempotency_mismatch": 422, "expired": 410, "duplicate_business_ref": 409}
"""Status by reason of the decision; any other: 400."""
_QUOTED = re.compile(r'"([^"\\]*)"')
AGAIN = "not known whether it was appended: send it again with the same key"


class Decide(Protocol):
    """`Billing.decide`."""

    def __call__(self, payment: PaymentEvent, *, at_ms: int, appended_ms: int) -> Decision: ...


Append = Callable[[PaymentEvent], "asyncio.Future[KafkaProblem | None]"]


@dataclass(frozen=True, slots=True)
class _Appended:
    """A payment on its way to its entry."""

    fingerprint: str
    outcome: asyncio.Future[KafkaProblem | None]
    forget_at: float

    def has_failed(self) -> bool:
        """True if its transaction has, after its request was answered."""
        return self.outcome.done() and self.outcome.result() is not None


def read_payment(key: str | None, body: bytes, now_ms: int) -> PaymentEvent:
    """The payment of a request; raises BadInput. `key` is the Idempotency-Key, in quotes or without.

    The header's draft (draft-ietf-httpapi-idempotency-key-header) wants quotes, nobody's client sends them.
    """
    if key is None:
        raise BadInput("missing_key", "the header Idempotency-Key is missing: it is the payment_id")
    quoted = _QUOTED.fullmatch(key)
    payment_id = quoted[1] if quoted else key
    data = json_object(body)
    if data.get("payment_id") not in (None, payment_id):
        raise BadInput("key_mismatch", "payment_id in the body is not the Idempotency-Key")
    data["payment_id"] = payment_id
    return PaymentEvent.from_mapping(data, now_ms=now_ms, default_gateway=DEFAULT_GATEWAY)


class HttpIntake:
    """Decides by the agent's own rules from committed state; only what is not known yet is appended.

    What it answers is no promise: between this look and the agent's another event may come.
    """

    def __init__(self, decide: Decide, append: Append, clock: Callable[[], float] = time.monotonic) -> None:
        self._decide = decide
        self._append = append
        self._clock = clock
        self._appended: OrderedDict[tuple[str, str], _Appended] = OrderedDict()

    async def take(self, payment: PaymentEvent, now_ms: int) -> Reply:
        """The answer; raises LookupError if this worker does not hold the user's partition now."""
        decision = self._decide(payment, at_ms=now_ms, appended_ms=now_ms)
        if isinstance(decision, Replay | Open | Reject):
            self._appended.pop((payment.user_id, payment.payment_id), None)
            return _known(payment, decision)
        return await self._accept(payment)

    async def _accept(self, payment: PaymentEvent) -> Reply:
        """Append it, unless a repeat of it is on its way already."""
        name, meant = (payment.user_id, payment.payment_id), fingerprint(payment)
        self._forget()
        known = self._appended.get(name)
        if known is None or known.has_failed():
            known = _Appended(meant, self._append(payment), self._clock() + REMEMBER_S)
            self._appended[name] = known
            self._appended.move_to_end(name)
        elif known.fingerprint != meant:
            return refusal(422, "idempotency_mismatch", "another payment came under this key")
        await asyncio.wait([known.outcome], timeout=WAIT_S)
        if not known.outcome.done():
            return later("outcome_unknown", AGAIN)
        problem = known.outcome.result()
        if problem is None:
            return _told(202, payment, "accepted")
        if self._appended.get(name) is known:
            del self._appended[name]
        if isinstance(problem, IntakeOutcomeUnknown):
            return later("outcome_unknown", AGAIN)
        return later("not_appended", "Kafka does not take it now: send it again with the same key")

    def _forget(self) -> None:
        """Drop what is too old, the oldest ones if there are too many; their repeats are replayed."""
        now = self._clock()
        while self._appended:
            oldest = next(iter(self._appended.values()))
            if oldest.forget_at > now and len(self._appended) < REMEMBER:
                return
            self._appended.popitem(last=False)


def _known(payment: PaymentEvent, decision: Replay | Open | Reject) -> Reply:
    """What needs no new event."""
    match decision:
        case Replay(status, reason, gateway_ref, attempts, conflicts_with):
            outcome = {"reason": reason, "gateway_ref": gateway_ref, "attempt": attempts}
            told = _told(200, payment, status, replayed=True, **outcome, conflicts_with=conflicts_with)
            return Reply(told.status, told.body, {"Idempotent-Replayed": "true"})
        case Open(status, reason, gateway_ref, attempts):
            outcome = {"reason": reason, "gateway_ref": gateway_ref, "attempt": attempts}
            return _told(202, payment, status, replayed=True, **outcome)
        case Reject(reason, _, _, conflicts_with):
            more = {} if conflicts_with is None else {"conflicts_with": conflicts_with}
            return refusal(REFUSALS.get(reason, 400), reason, "refused; this request charged nothing", **more)


def _told(http: int, payment: PaymentEvent, status: str, **outcome: Any) -> Reply:
    """What is told of a payment, in the words of a ChargeResult."""
    about = {
        "payment_id": payment.payment_id, "user_id": payment.user_id, "action": payment.action,
        "product": payment.product, "amount_minor": payment.amount_minor, "currency": payment.currency,
        "gateway": payment.gateway, "business_ref": payment.business_ref, "refund_of": payment.refund_of,
    }  # fmt: skip
    return Reply(http, {**about, "status": status, **outcome})
