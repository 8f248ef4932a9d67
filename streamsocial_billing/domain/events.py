"""The records on the topics."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final

import orjson
from msgspec import DecodeError, Meta, Struct
from msgspec.json import Decoder, Encoder

from streamsocial_billing.domain.card_numbers import ANY_LEAD, holds_card, is_card, mask_text
from streamsocial_billing.domain.card_numbers import mask_card_numbers as mask_card_numbers
from streamsocial_billing.domain.money import CURRENCIES, MAX_AMOUNT_MINOR, is_amount
from streamsocial_billing.domain.statuses import STATUSES
from streamsocial_billing.settings import GATEWAYS as ALL_GATEWAYS
from tables.payments import Source

ACTIONS: Final = frozenset({"charge", "refund"})
PRODUCTS: Final = frozenset({"subscription", "upgrade", "gift"})
GATEWAYS: Final = frozenset(ALL_GATEWAYS)
NUDGES: Final = frozenset({"payment", "subscription", "gateway_event"})
FINGERPRINT_VERSION: Final = 1
KEY_VERSION: Final = 1
MAX_AHEAD_MS: Final = 300_000
"""How far `requested_at` may lie in the future."""

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_BUSINESS_REF = re.compile(r"[A-Za-z0-9_:./-]{1,128}")
_TOKEN = re.compile(r"[!-~]{1,128}")


class BadInput(ValueError):
    """Raised when a record can never be processed: its bytes belong into the dead letters.

    `reason` is a code for machines, `detail` a text for people that never holds a card number.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def one_of(words: frozenset[str]) -> Meta:
    """Says in a schema which words there are; whether a text is one of them is checked elsewhere."""
    return Meta(extra_json_schema={"enum": sorted(words)})


END: Final = r"(?![\s\S])"
"""The end of a text in a pattern; Python's `$` would let a line feed pass."""
Id = Annotated[str, Meta(pattern=rf"^[A-Za-z0-9_-]{{1,64}}{END}")]
BusinessRefText = Annotated[str, Meta(pattern=rf"^[A-Za-z0-9_:./-]{{1,128}}{END}")]
Token = Annotated[str, Meta(pattern=rf"^[!-~]{{1,128}}{END}")]
Amount = Annotated[int, Meta(ge=1, le=MAX_AMOUNT_MINOR)]
Action = Annotated[str, one_of(ACTIONS)]
Product = Annotated[str, one_of(PRODUCTS)]
GatewayName = Annotated[str, one_of(GATEWAYS)]
Currency = Annotated[str, one_of(frozenset(CURRENCIES))]
Ms = Annotated[int, Meta(ge=0, description="milliseconds since the epoch")]


class PaymentEvent(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One wish to move money: a record on `payments`, key = the raw bytes of `user_id`.

    payment_id      1-64 of A-Z a-z 0-9 _ - ; the caller's idempotency key, unique per user
    user_id         same alphabet
    action          `charge` or `refund`
    product         `subscription`, `upgrade` or `gift`
    amount_minor    minor units of `currency`, 1 to 10**12
    currency        ISO 4217, upper-case
    payment_method  a gateway's token, 1-128 visible ASCII, never a card number
    gateway         `simulated`, `stripe` or `paypal`
    business_ref    what is paid for, 1-128 of A-Z a-z 0-9 _ : . / -
    refund_of       refunds only: the payment_id of the charge
    requested_at    milliseconds since the epoch
    """

    payment_id: Id
    user_id: Id
    action: Action = "charge"
    product: Product
    amount_minor: Amount
    currency: Currency
    payment_method: Token
    gateway: GatewayName
    business_ref: BusinessRefText | None = None
    refund_of: Id | None = None
    requested_at: Ms

    @classmethod
    def from_bytes(cls, value: bytes | None, *, key: bytes | None, now_ms: int) -> PaymentEvent:
        """Read a record of `payments`; raises BadInput, never anything else."""
        event = _read_at_once(value, now_ms) or _checked(_object(value), now_ms)
        if key != event.user_id.encode():
            raise BadInput("key_mismatch", f"record key {_shown(key)} is not user_id {_shown(event.user_id)}")
        return event

    @classmethod
    def from_mapping(
        cls, data: Mapping[str, Any], *, now_ms: int, default_gateway: str | None = None
    ) -> PaymentEvent:
        """Make an event of what a caller sent; raises BadInput.

        What the caller left out or set to null is filled: `action` charge, `gateway` with `default_gateway`,
        `requested_at` with `now_ms`.
        """
        filled = dict(data)
        for name, default in (("gateway", default_gateway), ("requested_at", now_ms)):
            if filled.get(name) is None and default is not None:
                filled[name] = default
        return _checked(filled, now_ms)

    def to_bytes(self) -> bytes:
        """The record's value on `payments`."""
        return ENCODER.encode(self)


ENCODER: Final = Encoder()
"""Writes every record of ours: fields in the order of their struct."""
_EVENTS: Final = Decoder(PaymentEvent)
_KNOWN: Final = frozenset(PaymentEvent.__struct_fields__)


def _read_at_once(value: bytes | None, now_ms: int) -> PaymentEvent | None:
    """The event, if nothing is wrong with it; None: `_checked` finds out whether something is, and what.

    Takes a third of the time; takes nothing that `_checked` refuses.
    """
    try:
        event = _EVENTS.decode(value or b"")
    except DecodeError:  # no JSON, another type, another alphabet, an unknown field
        return None
    ref = event.business_ref
    right = (
        event.action in ACTIONS
        and event.product in PRODUCTS
        and event.currency in CURRENCIES
        and event.gateway in GATEWAYS
        and (event.refund_of is None) == (event.action == "charge")
        and event.requested_at <= now_ms + MAX_AHEAD_MS
    )
    cards = right and (
        holds_card(event.payment_method, ANY_LEAD)
        or (ref is not None and holds_card(ref))
        or is_card(event.payment_id)
        or is_card(event.user_id)
        or (event.refund_of is not None and is_card(event.refund_of))
    )
    return event if right and not cards else None


class Nudge(Struct, frozen=True, omit_defaults=True):
    """A hint on `payments-retry`: look at this entry now. May be lost or doubled.

    `kind` says in which table: `payment`, or `subscription` (then `payment_id` is the subscription's id), or
    `gateway_event` (then it is `gateway:event_id`).
    """

    user_id: Id
    payment_id: str
    kind: Annotated[str, one_of(NUDGES)] = "payment"

    @classmethod
    def from_bytes(cls, value: bytes | None) -> Nudge:
        """Read a record of `payments-retry`; raises BadInput, never anything else."""
        data = _object(value)
        kind = "payment" if data.get("kind") is None else _one_of(data, "kind", NUDGES, "unknown_kind")
        read_id = _string if kind == "gateway_event" else _id  # a gateway's id is only looked up
        return cls(_id(data, "user_id"), read_id(data, "payment_id"), kind)

    def to_bytes(self) -> bytes:
        """The record's value on `payments-retry`."""
        return ENCODER.encode(self)


# ---- checks


def json_object(value: bytes) -> dict[str, Any]:
    """The object that these bytes hold as JSON; raises BadInput, never anything else."""
    data = _parsed(value)
    if not isinstance(data, dict):
        raise BadInput("not_an_object", "a JSON object is needed")
    return data


def _parsed(value: bytes) -> Any:
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError as error:  # also NaN, bad UTF-8, lone surrogates, nesting beyond 1024
        raise BadInput("not_json", f"this is not valid JSON, from character {error.pos} on") from None


def _object(value: bytes | None) -> dict[str, Any]:
    if not value:
        raise BadInput("empty", "the record has no value")
    data = _parsed(value)
    if type(data) is not dict:
        raise BadInput("not_an_object", f"a JSON object is needed, not {_json_type(data)}")
    return data


def _checked(data: dict[str, Any], now_ms: int) -> PaymentEvent:
    """Every check of an event that needs its value alone; card numbers first."""
    payment_method = _string(data, "payment_method")
    business_ref = _optional_string(data, "business_ref")
    _refuse_card_numbers(data, payment_method, business_ref)
    if not _TOKEN.fullmatch(payment_method):
        raise BadInput("bad_id", "payment_method needs 1 to 128 visible ASCII characters without blanks")
    if business_ref is not None and not _BUSINESS_REF.fullmatch(business_ref):
        shown = _shown(business_ref)
        raise BadInput("bad_business_ref", f"business_ref is {shown}, not 1-128 of A-Za-z0-9_:./-")
    action = "charge" if data.get("action") is None else _one_of(data, "action", ACTIONS, "unknown_action")
    return PaymentEvent(
        payment_id=_id(data, "payment_id"),
        user_id=_id(data, "user_id"),
        action=action,
        product=_one_of(data, "product", PRODUCTS, "unknown_product"),
        amount_minor=_amount(data),
        currency=_one_of(data, "currency", CURRENCIES, "unknown_currency"),
        payment_method=payment_method,
        gateway=_one_of(data, "gateway", GATEWAYS, "unknown_gateway"),
        business_ref=business_ref,
        refund_of=_refund_of(data, action),
        requested_at=_requested_at(data, now_ms),
    )


def _refuse_card_numbers(data: dict[str, Any], payment_method: str, business_ref: str | None) -> None:
    if holds_card(payment_method, ANY_LEAD):
        raise BadInput("card_number", "payment_method holds a card number")
    if business_ref is not None and holds_card(business_ref):
        raise BadInput("card_number", "business_ref holds a card number")
    if not data.keys() <= _KNOWN:
        for name in data.keys() - _KNOWN:
            if any(holds_card(text) for text in _strings({name: data[name]})):
                raise BadInput("card_number", f"the unknown field {_shown(name)} holds a card number")


def _strings(value: object) -> Iterator[str]:
    """Every string inside `value`, names too; by a stack, as JSON nests deeper than Python may recurse."""
    stack = [value]
    while stack:
        one = stack.pop()
        if type(one) is str:
            yield one
        elif type(one) is list:
            stack.extend(one)
        elif type(one) is dict:
            stack.extend(one)
            stack.extend(one.values())


def _string(data: dict[str, Any], name: str) -> str:
    value = data.get(name)
    if type(value) is str:
        return value
    if name not in data:
        raise BadInput("missing_field", f"{name} is missing")
    raise BadInput("wrong_type", f"{name} is {_json_type(value)}, not a string")


def _optional_string(data: dict[str, Any], name: str) -> str | None:
    return None if data.get(name) is None else _string(data, name)


def _one_of(data: dict[str, Any], name: str, allowed: frozenset[str], reason: str) -> str:
    value = _string(data, name)
    if value not in allowed:
        raise BadInput(reason, f"{name} is {_shown(value)}")
    return value


def _id(data: dict[str, Any], name: str, reason: str = "bad_id") -> str:
    value = _string(data, name)
    if not _ID.fullmatch(value):
        raise BadInput(reason, f"{name} is {_shown(value)}: 1 to 64 characters of A-Z a-z 0-9 _ - are needed")
    if is_card(value):
        raise BadInput("card_number", f"{name} is a card number")
    return value


def is_id(text: str) -> bool:
    """True for what a user_id or a payment_id may be."""
    return _ID.fullmatch(text) is not None


def _present(data: dict[str, Any], name: str) -> Any:
    if name not in data:
        raise BadInput("missing_field", f"{name} is missing")
    return data[name]


def _amount(data: dict[str, Any]) -> int:
    value = _present(data, "amount_minor")
    if is_amount(value):
        return value
    if type(value) is not int and type(value) is not float:  # orjson reads integers beyond 64 bit as floats
        raise BadInput("wrong_type", f"amount_minor is {_json_type(value)}, not a whole number")
    raise BadInput("bad_amount", f"amount_minor is {_shown(value)}, not whole or not 1 to {MAX_AMOUNT_MINOR}")


def _requested_at(data: dict[str, Any], now_ms: int) -> int:
    value = _present(data, "requested_at")
    if type(value) is not int or value < 0:
        raise BadInput("wrong_type", f"requested_at is {_shown(value)}, not milliseconds since the epoch")
    if value > now_ms + MAX_AHEAD_MS:
        raise BadInput("requested_in_future", f"requested_at {_shown(value)} is over 5 min after {now_ms}")
    return value


def _refund_of(data: dict[str, Any], action: str) -> str | None:
    absent = _optional_string(data, "refund_of") is None
    if absent != (action == "charge"):
        raise BadInput("bad_refund_of", f"refund_of is {'not set' if absent else 'set'} on a {action}")
    return None if absent else _id(data, "refund_of", "bad_refund_of")


_JSON_TYPES: Final[dict[type, str]] = {
    type(None): "null",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    str: "a string",
    list: "a list",
}


def _json_type(value: object) -> str:
    return _JSON_TYPES.get(type(value), "an object")


def _shown(value: object) -> str:
    """A foreign value for a message: masked before it is cut, so that no cut hides half a card number."""
    if isinstance(value, bytes):
        value = value.decode("ascii", "backslashreplace")
    if isinstance(value, str):
        text = ascii(value[:256])
    elif isinstance(value, (int, float)) and abs(value) < 1e30:
        text = str(value)
    else:
        text = _json_type(value)
    masked = mask_text(text)
    return masked if len(masked) <= 80 else masked[:77] + "..."


# ---- identity


def fingerprint(event: PaymentEvent, version: int = FINGERPRINT_VERSION) -> str:
    """Hex SHA-256 of what a re-sent event must have in common with the first.

    The rule: payments.md, "Decision before the gateway". Pinned by tests: stored entries
    hold it. A version that this code does not know raises ValueError: a worker that was set back stops, and
    does not take each known payment for another one.
    """
    if version != FINGERPRINT_VERSION:
        raise ValueError(f"fingerprint version {version} was written by a newer release, this one knows 1")
    canonical = orjson.dumps(
        {
            "action": event.action,
            "amount_minor": event.amount_minor,
            "business_ref": event.business_ref,
            "currency": event.currency,
            "gateway": event.gateway,
            "payment_method": event.payment_method,
            "product": event.product,
            "refund_of": event.refund_of,
            "user_id": event.user_id,
        },
        option=orjson.OPT_SORT_KEYS,
    )
    return hashlib.sha256(b"fingerprint:1:" + canonical).hexdigest()


def gateway_key(event: PaymentEvent) -> str:
    """The idempotency key of the event's call: see gateway_key_of."""
    return gateway_key_of(event.user_id, event.action, event.payment_id)


def gateway_key_of(user_id: str, action: str, payment_id: str) -> str:
    """`ss1_` + 56 hex of SHA-256: a pure function of what names a payment, joined as a JSON list.

    Pinned by tests: another key for the same payment is a second charge.
    """
    joined = orjson.dumps([KEY_VERSION, user_id, action, payment_id])
    return "ss1_" + hashlib.sha256(joined).hexdigest()[:56]


# ---- what we write


Status = Annotated[str, one_of(frozenset(STATUSES))]


class ChargeResult(Struct, frozen=True, kw_only=True):
    """A record of `charge-results`; docs/payments.md says what the fields mean.

    reason       code, or null
    attempt      gateway calls made (0: none)
    source       of the event on `payments`; null where the gateway made it
    resolves     true on the final record that settles an earlier `unknown` or `parked`
    origin       `event` or `external`
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


class PaymentMetric(Struct, frozen=True, kw_only=True):
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


def charge_result(**fields: Any) -> bytes:
    """The record of a ChargeResult with these fields."""
    return ENCODER.encode(ChargeResult(**fields))


def payment_metric(**fields: Any) -> bytes:
    """The record of a PaymentMetric with these fields."""
    return ENCODER.encode(PaymentMetric(**fields))


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
