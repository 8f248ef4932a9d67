"""Takes a gateway's webhook: signature, meaning, owner, append, in this order."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol, runtime_checkable

import orjson

from streamsocial_billing.domain.foreign_fields import BadInput
from streamsocial_billing.domain.gateway_calls import Absent, Ambiguous, NotSent, Owner
from streamsocial_billing.domain.gateway_events import GatewayEvent
from streamsocial_billing.gateways.paypal import webhook as paypal
from streamsocial_billing.gateways.provider_event import (
    PaymentIds,
    ProviderEvent,
    Subject,
    Unreadable,
    gateway_events,
    ids_by_charge,
    ids_of,
)
from streamsocial_billing.gateways.stripe import webhook as stripe
from streamsocial_billing.intake.http_replies import Reply, later, refusal
from streamsocial_billing.kafka.committed import KafkaProblem

logger = logging.getLogger(__name__)

MAX_BYTES: Final = 1_048_576
ASK_S: Final = 4.0
"""How long a gateway may take to answer a question about its own message."""
WAIT_S: Final = 4.0
"""How long the append may take."""
MAX_AT_ONCE: Final = 50
"""Messages of one gateway in hand: anybody may send one, and PayPal's cost a call each."""
OUTCOMES: Final = (
    "appended", "bad_signature", "foreign", "ignored", "too_large", "unavailable", "unreadable",
)  # fmt: skip
"""What came of a message; `ignored`: of a type that says nothing of a payment."""

Unanswered = NotSent | Ambiguous
Append = Callable[[GatewayEvent], "asyncio.Future[KafkaProblem | None]"]
Count = Callable[[str, str], None]
"""Told the gateway's name with one of OUTCOMES."""


class Busy(Exception):
    """Raised by who reads a message's body: others have to come first; it is sent again."""


class Source(Protocol):
    """A gateway that sends webhooks."""

    def may_be_signed(self, headers: Mapping[str, str]) -> bool:
        """False if these headers cannot be the gateway's: then no byte of the body is read."""

    async def signed(self, headers: Mapping[str, str], body: bytes) -> bool | Unanswered:
        """True if the gateway sent these bytes; `headers` find a name in any case."""

    def subject(self, message: Mapping[str, Any]) -> Subject | None:
        """What the message is about, None if it is of nothing that we map; raises Unreadable."""

    def read(self, message: Mapping[str, Any]) -> ProviderEvent | None:
        """What the message says, None if nothing that we map; raises Unreadable."""

    async def owner_of(self, charge_ref: str) -> Owner | Absent | Unanswered:
        """Our words on a charge, by asking the gateway."""


@runtime_checkable
class AsksOwner(Protocol):
    """The part of a gateway's client that tells whose a charge is."""

    async def owner_of(self, charge_ref: str, *, timeout_s: float) -> Owner | Absent | Unanswered: ...


@runtime_checkable
class Verifies(AsksOwner, Protocol):
    """A client that can also ask whether a message is the gateway's."""

    async def start(self) -> None: ...

    async def verify_webhook(
        self, webhook_id: str, question: Mapping[str, str], body: bytes, *, timeout_s: float
    ) -> bool | Unanswered: ...


class StripeSource:
    """Stripe's messages, signed with one of `secrets`."""

    def __init__(
        self, secrets: tuple[str, ...], client: AsksOwner, clock: Callable[[], float] = time.time
    ) -> None:
        self._secrets = secrets
        self._client = client
        self._clock = clock

    def may_be_signed(self, headers: Mapping[str, str]) -> bool:
        """By the header's shape and time."""
        return stripe.may_be_signed(headers.get(stripe.HEADER, ""), self._clock())

    async def signed(self, headers: Mapping[str, str], body: bytes) -> bool:
        """By our own look."""
        return stripe.signed(body, headers.get(stripe.HEADER, ""), self._secrets, self._clock())

    subject = staticmethod(stripe.subject)
    read = staticmethod(stripe.read)

    async def owner_of(self, charge_ref: str) -> Owner | Absent | Unanswered:
        """Asks Stripe."""
        return await self._client.owner_of(charge_ref, timeout_s=ASK_S)


class PayPalSource:
    """PayPal's messages to the webhook `webhook_id`."""

    def __init__(self, webhook_id: str, client: Verifies) -> None:
        self._webhook_id = webhook_id
        self._client = client

    def may_be_signed(self, headers: Mapping[str, str]) -> bool:
        """By the shape of each header, the host of the certificate."""
        return paypal.question(headers) is not None

    async def signed(self, headers: Mapping[str, str], body: bytes) -> bool | Unanswered:
        """By asking PayPal: the other way trusts a certificate at an address that the message names."""
        question = paypal.question(headers)
        if question is None or not isinstance(_json(body), dict):
            return False
        await self._client.start()
        return await self._client.verify_webhook(self._webhook_id, question, body, timeout_s=ASK_S)

    subject = staticmethod(paypal.subject)
    read = staticmethod(paypal.read)

    async def owner_of(self, charge_ref: str) -> Owner | Absent | Unanswered:
        """Asks PayPal."""
        return await self._client.owner_of(charge_ref, timeout_s=ASK_S)


class Receiver:
    """Answers 2xx only once the record is confirmed, or there is nothing to append.

    Any worker takes any message. Answered 503, a message is sent again; its record may then be there twice,
    and the reader knows it by its `event_id`.
    """

    def __init__(self, sources: Mapping[str, Source], append: Append, count: Count) -> None:
        self._sources = sources
        self._append = append
        self._count = count
        self._in_hand: Counter[str] = Counter()

    def knows(self, gateway: str) -> bool:
        """True if this gateway's webhooks are set up."""
        return gateway in self._sources

    async def receive(self, gateway: str, headers: Mapping[str, str], body: bytes | None) -> Reply:
        """The answer to one message of a gateway that it `knows`; `body` None: more than MAX_BYTES."""
        if body is None:
            return self._done(gateway, "too_large", refusal(413, "too_large", f"over {MAX_BYTES} bytes"))
        if self._in_hand[gateway] >= MAX_AT_ONCE:
            return self._busy(gateway)
        self._in_hand[gateway] += 1
        try:
            return await self._checked(gateway, headers, body)
        finally:
            self._in_hand[gateway] -= 1

    async def read_and_receive(
        self, gateway: str, headers: Mapping[str, str], read: Callable[[], Awaitable[bytes | None]]
    ) -> Reply:
        """The same, of a message whose body has yet to come: without the headers of one it is not read."""
        if not self._sources[gateway].may_be_signed(headers):
            return self._not_signed(gateway)
        try:
            body = await read()
        except Busy:
            return self._busy(gateway)
        return await self.receive(gateway, headers, body)

    def _busy(self, gateway: str) -> Reply:
        return self._done(gateway, "unavailable", later("busy", "too many messages at once"))

    async def _checked(self, gateway: str, headers: Mapping[str, str], body: bytes) -> Reply:
        source = self._sources[gateway]
        signed = await source.signed(headers, body)
        if isinstance(signed, NotSent | Ambiguous):
            return self._unanswered(gateway, "whether the signature is right", signed)
        if not signed:
            return self._not_signed(gateway)
        try:
            message = _json(body)
            if not isinstance(message, dict):
                raise Unreadable("no JSON object")
            return await self._owned(gateway, source, message)
        except (Unreadable, BadInput) as error:
            # not 2xx: the gateway shows it, and sends it again for days, while somebody mends the table
            logger.error("webhook of %s is signed, but cannot be read: %s", gateway, error)
            return self._done(gateway, "unreadable", refusal(422, "unreadable", str(error)))

    async def _owned(self, gateway: str, source: Source, message: Mapping[str, Any]) -> Reply:
        """Whose it is comes first: what is not ours need not be readable."""
        about = source.subject(message)
        if about is None:
            return self._taken(gateway, "ignored")
        of = ids_of(about)
        if of is None and about.kind != "charge" and about.charge_ref is not None:
            words = await source.owner_of(about.charge_ref)
            if isinstance(words, NotSent | Ambiguous):
                return self._unanswered(gateway, f"whose {about.charge_ref} is", words)
            of = ids_by_charge(words) if isinstance(words, Owner) else None
        if of is None:
            return self._taken(gateway, "foreign")
        mapped = source.read(message)
        if mapped is None:
            return self._taken(gateway, "ignored")
        return await self._appended(gateway, mapped, of)

    async def _appended(self, gateway: str, mapped: ProviderEvent, of: PaymentIds) -> Reply:
        for event in gateway_events(gateway, mapped, of):  # one after the other: their order counts
            future = self._append(event)
            await asyncio.wait([future], timeout=WAIT_S)
            problem = future.result() if future.done() else KafkaProblem(f"no answer in {WAIT_S:g} s")
            if problem is not None:
                logger.warning("webhook of %s is not appended: %s", gateway, problem)
                return self._done(gateway, "unavailable", later("not_appended", "Kafka refuses it now"))
        return self._taken(gateway, "appended")

    def _not_signed(self, gateway: str) -> Reply:
        # no warning: anybody can send one, as often as they like; it is counted
        logger.info("webhook of %s refused: its signature is not right", gateway)
        why = "the signature is not right; nothing was accepted"
        return self._done(gateway, "bad_signature", refusal(400, "bad_signature", why))

    def _unanswered(self, gateway: str, what: str, why: Unanswered) -> Reply:
        logger.warning(
            "webhook of %s: %s is not known (%s); the gateway will send it again", gateway, what, why.reason
        )
        return self._done(gateway, "unavailable", later("gateway_unavailable", f"not known: {what}"))

    def _taken(self, gateway: str, outcome: str) -> Reply:
        return self._done(gateway, outcome, Reply(200, {"outcome": outcome}))

    def _done(self, gateway: str, outcome: str, reply: Reply) -> Reply:
        self._count(gateway, outcome)
        return reply


def _json(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
