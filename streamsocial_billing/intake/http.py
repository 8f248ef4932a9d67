"""Payments that come in over HTTP: answered from what is known, else appended once."""

from __future__ import annotations

import asyncio
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from msgspec.structs import asdict

from streamsocial_billing.deadlines import Patience
from streamsocial_billing.domain.decision import Decision, Open, Reject, Replay
from streamsocial_billing.domain.events import PaymentEvent
from streamsocial_billing.domain.foreign_fields import BadInput, json_object
from streamsocial_billing.domain.payment_identity import fingerprint
from streamsocial_billing.gateways.routing import with_gateway
from streamsocial_billing.intake.http_replies import RETRY_AFTER_S, Reply, later, refusal
from streamsocial_billing.intake.producer import IntakeOutcomeUnknown
from streamsocial_billing.intake.public_fields import answered_payment, differing, not_comparable
from streamsocial_billing.kafka.committed import KafkaProblem
from streamsocial_billing.settings import Settings

WAIT_S: Final = 4.0
"""How long a request waits for its transaction; below the time-out of a hop between workers."""
ASKED_WAIT_S: Final = 0.2
"""How long an owner that is asked waits for its own append of that payment; below the time-out of the ask."""
REMEMBER_S: Final = 60.0
"""How long an appended payment whose entry does not show up keeps its repeats from being appended."""
REMEMBER: Final = 20_000
CROWDED: Final = "too_many_of_user"
"""Why a payment is refused while many of its user wait: these are handled one by one, and what others sent
after them to the partition is committed after them."""
REFUSALS: Final = {"idempotency_mismatch": 422, "expired": 410, "duplicate_business_ref": 409}
"""Status by reason of the decision; any other: 400."""
_QUOTED = re.compile(r'"([^"\\]*)"')
AGAIN = "it is not known whether it was appended: send it again with the same key"


Stored = Mapping[str, Any]


class Rules(Protocol):
    """`Billing`: the agent's own rules over committed state."""

    def decide(self, payment: PaymentEvent, *, at_ms: int, appended_ms: int) -> Decision:
        """Raises LookupError if this worker does not hold the user's partition now."""

    def decide_new(self, payment: PaymentEvent, *, at_ms: int) -> Decision:
        """The same as if nothing were known of the payment; needs no partition."""

    def entry(self, user_id: str, payment_id: str) -> Stored | None:
        """The committed entry; raises LookupError as `decide` does."""


Append = Callable[[PaymentEvent], "asyncio.Future[KafkaProblem | None]"]
Queued = Callable[[str, int], int]
"""How many events of a user run or wait here, at most so many; raises LookupError where they are not."""


def nothing_queued(_: str, __: int) -> int:
    """Where nobody looks."""
    return 0


@dataclass(frozen=True, slots=True)
class _Appended:
    """A payment on its way to its entry."""

    payment: PaymentEvent
    outcome: asyncio.Future[KafkaProblem | None]
    forget_at: float

    def has_failed(self) -> bool:
        """True if its transaction has, after its request was answered."""
        return self.outcome.done() and self.outcome.result() is not None


def read_payment(key: str | None, body: bytes, now_ms: int, settings: Settings) -> PaymentEvent:
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
    return PaymentEvent.from_mapping(with_gateway(data, settings), now_ms=now_ms)


class HttpIntake:
    """Decides by the agent's own rules from committed state; only what is not known yet is appended.

    What it answers is no promise: between this look and the agent's another event may come.
    """

    def __init__(
        self, rules: Rules, append: Append, clock: Callable[[], float] = time.monotonic,
        *, queued: Queued = nothing_queued, most_of_user: int = 50,
    ) -> None:  # fmt: skip
        self._rules = rules
        self._append = append
        self._clock = clock
        self._queued = queued
        self._most_of_user = most_of_user
        self._patience = Patience()
        self._appended: OrderedDict[tuple[str, str], _Appended] = OrderedDict()
        self._of_user: dict[str, set[str]] = {}

    def known(self, payment: PaymentEvent, now_ms: int) -> Reply | None:
        """The answer by what is committed here, None if that takes an event.

        Raises LookupError if this worker does not hold the user's partition now.
        """
        decision = self._rules.decide(payment, at_ms=now_ms, appended_ms=now_ms)
        if not isinstance(decision, Replay | Open | Reject):
            return None
        self.forget(payment)
        return _known(payment, decision, self._rules.entry(payment.user_id, payment.payment_id))

    async def known_or_on_its_way(self, payment: PaymentEvent, now_ms: int) -> Reply | None:
        """The answer for another worker, which appends the payment itself where there is none here.

        Nothing is appended on its behalf: it could not know whether that came about. What this worker is
        appending for a request of its own is waited for. Raises LookupError as `known` does.
        """
        reply = self.known(payment, now_ms)
        if reply is not None:
            return reply
        self._forget_old()
        own = self._appended.get((payment.user_id, payment.payment_id))
        if own is None or own.has_failed():
            return self._crowded(payment)
        if fingerprint(own.payment) != fingerprint(payment):
            return _mismatch(payment, asdict(own.payment))
        appended = await self._patience.wait(own.outcome, ASKED_WAIT_S) and own.outcome.result() is None
        return _reply(202, payment, "accepted", None) if appended else None

    async def take(self, payment: PaymentEvent, now_ms: int) -> Reply:
        """The owner's answer: what is known, else the payment is appended; raises LookupError as `known`.

        429 where too many payments of this user wait already: a repeat of one of them is no new one.
        """
        reply = self.known(payment, now_ms)
        if reply is None and (payment.user_id, payment.payment_id) not in self._appended:
            reply = self._crowded(payment)
        return reply or await self.append(payment)

    async def append_unchecked(self, payment: PaymentEvent, now_ms: int) -> Reply:
        """Append a payment of which nobody can be asked, unless its own fields are reason to refuse it."""
        decision = self._rules.decide_new(payment, at_ms=now_ms)
        if isinstance(decision, Reject) and decision.reason not in REFUSALS:
            return _known(payment, decision, None)
        return await self.append(payment, checked=False)

    def forget(self, payment: PaymentEvent) -> None:
        """It is known where it belongs: its repeats are answered from there."""
        self._drop((payment.user_id, payment.payment_id))

    async def append(self, payment: PaymentEvent, *, checked: bool | None = None) -> Reply:
        """Append it, unless a repeat of it is on its way already.

        `checked` is told to the sender: whether its owner was asked; None: by the owner itself.
        """
        name = payment.user_id, payment.payment_id
        self._forget_old()
        known = self._appended.get(name)
        if known is None or known.has_failed():
            known = _Appended(payment, self._append(payment), self._clock() + REMEMBER_S)
            self._appended[name] = known
            self._appended.move_to_end(name)
            self._of_user.setdefault(payment.user_id, set()).add(payment.payment_id)
        elif fingerprint(known.payment) != fingerprint(payment):
            return _mismatch(payment, asdict(known.payment))
        if not await self._patience.wait(known.outcome, WAIT_S):
            return later("outcome_unknown", AGAIN)
        problem = known.outcome.result()
        if problem is None:
            reply = _reply(202, payment, "accepted", None)
            return reply if checked is None else replace(reply, body={**reply.body, "checked": checked})
        if self._appended.get(name) is known:
            self._drop(name)
        if isinstance(problem, IntakeOutcomeUnknown):
            return later("outcome_unknown", AGAIN)
        return later("not_appended", "Kafka does not accept it now: send it again with the same key")

    def _forget_old(self) -> None:
        """Drop what is too old, the oldest ones if there are too many; their repeats are replayed."""
        now = self._clock()
        while self._appended:
            name, oldest = next(iter(self._appended.items()))
            if oldest.forget_at > now and len(self._appended) < REMEMBER:
                return
            self._drop(name)

    def _drop(self, name: tuple[str, str]) -> None:
        if self._appended.pop(name, None) is not None:
            theirs = self._of_user[name[0]]
            theirs.discard(name[1])
            if not theirs:
                del self._of_user[name[0]]

    def _crowded(self, payment: PaymentEvent) -> Reply | None:
        """429 if so many payments of this user wait for their outcome here that no other one is taken now."""
        user, most = payment.user_id, self._most_of_user
        if self._queued(user, most) < most and self._on_their_way(user) < most:
            return None
        why = f"{most} payments of this user wait for their outcome: send it again, with the same key"
        return refusal(429, CROWDED, why, {"Retry-After": str(RETRY_AFTER_S)})

    def _on_their_way(self, user: str) -> int:
        """How many that were appended here have no entry yet; looked at only where there may be too many."""
        theirs = self._of_user.get(user, ())
        if len(theirs) >= self._most_of_user:
            for payment_id in [one for one in theirs if self._rules.entry(user, one) is not None]:
                self._drop((user, payment_id))
        return len(self._of_user.get(user, ()))


def _known(payment: PaymentEvent, decision: Replay | Open | Reject, entry: Stored | None) -> Reply:
    """What needs no new event."""
    match decision:
        case Replay(status):
            return _reply(200, payment, status, entry, **{"Idempotent-Replayed": "true"})
        case Open(status):
            return _reply(202, payment, status, entry)
        case Reject("idempotency_mismatch"):
            return _mismatch(payment, entry or {})
        case Reject(reason, _, _, str(holder)):
            why = f"payment {holder} holds this business_ref"
            return _refused(reason, why, reason=why, conflicts_with=holder)
        case Reject(reason):
            return _refused(reason, "refused")


def _mismatch(payment: PaymentEvent, first: Stored) -> Reply:
    """422 that names the fields, not what is in them."""
    names = differing(payment, first)
    said = " and ".join(names) or " or ".join(not_comparable(payment, first))
    verb = "differ" if len(names) > 1 else "differs"
    why = f"{said} {verb} from the first payment under this key"
    return _refused("idempotency_mismatch", why, reason=why, differs=names)


def _refused(error: str, why: str, **more: Any) -> Reply:
    return refusal(REFUSALS.get(error, 400), error, f"{why}; this request charged nothing", **more)


def _reply(http: int, payment: PaymentEvent, status: str, entry: Stored | None, **headers: str) -> Reply:
    """What is told of a payment, in the words of a ChargeResult, and where it can be read."""
    where = {"Location": f"/payments/{payment.user_id}/{payment.payment_id}"}
    return Reply(http, answered_payment(payment, status, entry), where | headers)
