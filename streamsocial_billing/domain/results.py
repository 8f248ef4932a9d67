"""The records in which an outcome is told."""

from __future__ import annotations

from typing import Annotated, Any, Final, TypeVar

from msgspec import UNSET, DecodeError, Struct, UnsetType
from msgspec.json import Decoder

from streamsocial_billing.domain.events import ENCODER, Action, PaymentEvent, Product, one_of
from streamsocial_billing.domain.statuses import STATUSES
from tables.payments import Source

Status = Annotated[str, one_of(frozenset(STATUSES))]


class NotARecord(ValueError):
    """Raised when bytes are not the record that their topic holds: somebody else wrote them."""


class ChargeResult(Struct, frozen=True):
    """A record of `charge-results`; docs/payments.md says what the fields mean.

    reason       code, or null
    attempt      gateway calls made (0: none)
    source       of the event on `payments`; null where the gateway made it
    resolves     true on the final record that settles an earlier `unknown` or `parked`
    origin       `event` or `external`
    intent_charge  charges by an intent (`gateway_ref`): the gateway's id of its charge; else left out
    Times are milliseconds since the epoch, amounts minor units.
    """

    payment_id: str
    user_id: str
    action: Action
    product: Product
    status: Status
    reason: str | None
    replayed: bool
    amount_minor: int
    currency: str
    gateway: str
    gateway_ref: str | None
    attempt: int
    requested_at: int
    processed_at: int
    source: Source | None
    resolves: bool = False
    business_ref: str | None = None
    refund_of: str | None = None
    conflicts_with: str | None = None
    origin: Annotated[str, one_of(frozenset({"event", "external"}))] = "event"
    intent_charge: str | UnsetType = UNSET

    @classmethod
    def from_bytes(cls, value: bytes | None) -> ChargeResult:
        """Read a record of `charge-results`, of a newer release too; raises NotARecord."""
        return _read(_RESULTS, value)


class PaymentMetric(Struct, frozen=True, gc=False):
    """A record of `payment-metrics` (key = product): one for each ChargeResult, in its transaction.

    status      of the result; `requested`: appended by our own intake, in the transaction of an event
    gateway_ms  milliseconds spent at the gateway, null if not called
    at          milliseconds since the epoch
    """

    payment_id: str
    product: Product
    action: Action
    status: Annotated[str, one_of(frozenset({*STATUSES, "requested"}))]
    replayed: bool
    amount_minor: int
    currency: str
    gateway: str
    gateway_ms: int | None
    at: int

    @classmethod
    def from_bytes(cls, value: bytes | None) -> PaymentMetric:
        """Read a record of `payment-metrics`, of a newer release too; raises NotARecord."""
        return _read(_METRICS, value)


_RESULTS: Final = Decoder(ChargeResult)
_METRICS: Final = Decoder(PaymentMetric)
Record = TypeVar("Record")


def _read(decoder: Decoder[Record], value: bytes | None) -> Record:
    try:
        return decoder.decode(value or b"")
    except DecodeError as error:
        raise NotARecord(str(error)) from None


def charge_result(**fields: Any) -> bytes:
    """The record of a ChargeResult with these fields."""
    return ENCODER.encode(ChargeResult(**fields))


def payment_metric(**fields: Any) -> bytes:
    """The record of a PaymentMetric with these fields."""
    return ENCODER.encode(PaymentMetric(**fields))


class AuthenticationRequest(Struct, frozen=True, kw_only=True):
    """A record of `authentication-requests` (key = user_id): an intent wants its customer, who is not there.

    Once for each such payment, in the transaction in which it begins to wait. How it ends is told by its
    ChargeResult with `resolves: true`.

    gateway_ref  the gateway's id of the intent: with it the platform fetches the client secret, which is
                 in no record
    until        when it is canceled, unless something else ends it before; ms since the epoch
    at           ms since the epoch
    """

    payment_id: str
    user_id: str
    product: Product
    amount_minor: int
    currency: str
    gateway: str
    gateway_account: str
    gateway_ref: str
    business_ref: str | None
    until: int
    at: int


def requested_metric(event: PaymentEvent, at_ms: int) -> bytes:
    """The metric that our own intake appends in the transaction of an event; never part of the books."""
    return payment_metric(
        payment_id=event.payment_id,
        product=event.product,
        action=event.action,
        status="requested",
        replayed=False,
        amount_minor=event.amount_minor,
        currency=event.currency,
        gateway=event.gateway,
        gateway_ms=None,
        at=at_ms,
    )
