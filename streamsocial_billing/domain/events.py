"""The records that ask for something: a payment, a look at one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final

from msgspec import DecodeError, Meta, Struct, ValidationError, convert
from msgspec.json import Decoder, Encoder

from streamsocial_billing.domain.card_numbers import (
    ANY_LEAD,
    holds_card,
    holds_card_in_id,
    holds_security_code,
)
from streamsocial_billing.domain.foreign_fields import (
    BadInput,
    id_in,
    json_type,
    object_of,
    optional_text_in,
    present_in,
    shown,
    text_in,
    word_in,
)
from streamsocial_billing.domain.money import CURRENCIES, MAX_AMOUNT_MINOR, is_amount
from streamsocial_billing.settings import GATEWAYS as ALL_GATEWAYS

ACTIONS: Final = frozenset({"charge", "refund"})
PRODUCTS: Final = frozenset({"subscription", "upgrade", "gift"})
GATEWAYS: Final = frozenset(ALL_GATEWAYS)
TRIGGERS: Final = frozenset({"payment", "subscription", "gateway_event"})
MAX_AHEAD_MS: Final = 300_000
"""How far `requested_at` may lie in the future."""

MAX_EVENT_BYTES: Final = 65_536
"""Of a record on `payments`, unknown fields included: known ones take less than one in fifty of it. What is
longer is not searched, and so not read."""

_ID: Final = "[A-Za-z0-9_-]{1,64}"
_REF: Final = "[A-Za-z0-9_:./-]{1,128}"
_VISIBLE: Final = "[!-~]{1,128}"
_BUSINESS_REF = re.compile(_REF)
_TOKEN = re.compile(_VISIBLE)


def one_of(words: frozenset[str]) -> Meta:
    """Says in a schema which words there are; whether a text is one of them is checked elsewhere."""
    return Meta(extra_json_schema={"enum": sorted(words)})


END: Final = r"(?![\s\S])"
"""The end of a text in a pattern; Python's `$` would let a line feed pass."""


def like(pattern: str) -> Meta:
    """Says in a schema how a text looks; whether it does is checked elsewhere, as with `one_of`."""
    return Meta(extra_json_schema={"type": "string", "pattern": f"^{pattern}{END}"})


Id = Annotated[str, like(_ID)]
BusinessRefText = Annotated[str, like(_REF)]
Token = Annotated[str, like(_VISIBLE)]
Amount = Annotated[int, Meta(ge=1, le=MAX_AMOUNT_MINOR)]
Action = Annotated[str, one_of(ACTIONS)]
Product = Annotated[str, one_of(PRODUCTS)]
GatewayName = Annotated[str, one_of(GATEWAYS)]
Currency = Annotated[str, one_of(frozenset(CURRENCIES))]
Ms = Annotated[int, Meta(ge=0, description="milliseconds since the epoch")]


class PaymentEvent(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False):
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
        event = _read_at_once(value, now_ms) or _checked(object_of(_bounded(value)), now_ms)
        if key != event.user_id.encode():
            raise BadInput("key_mismatch", f"record key {shown(key)} is not user_id {shown(event.user_id)}")
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
        return _converted(filled, now_ms) or _checked(filled, now_ms)

    def to_bytes(self) -> bytes:
        """The record's value on `payments`."""
        return ENCODER.encode(self)


ENCODER: Final = Encoder()
"""Writes every record of ours: fields in the order of their struct."""
_EVENTS: Final = Decoder(PaymentEvent)
_KNOWN: Final = frozenset(PaymentEvent.__struct_fields__)
_NO_LONG_NUMBER: Final = r"(?![^\n]*[0-9](?=[^A-Za-z\n]{11})(?:[^0-9A-Za-z\n]*[0-9]){11})"
_PLAIN: Final = re.compile(rf"{_ID}\n" * 3 + rf"{_NO_LONG_NUMBER}{_VISIBLE}\n{_REF}")
"""The texts of an event, a line each; no method with as many digits as a card. No text holds a line's end."""
_MAYBE_CARD: Final = re.compile(r"[2-68](?=[0-9_-]{10})(?<![0-9]{2})(?:[_-]*[0-9]){10}")
"""Found in any id that holds a card number of a brand."""


def _read_at_once(value: bytes | None, now_ms: int) -> PaymentEvent | None:
    """The event, if nothing is wrong with it; None: `_checked` finds out whether something is, and what.

    Takes a third of the time; takes nothing that `_checked` refuses.
    """
    try:
        event = _EVENTS.decode(value or b"")
    except DecodeError:  # no JSON, another type, an unknown field
        return None
    return event if _is_right(event, now_ms) else None


def _converted(data: dict[str, Any], now_ms: int) -> PaymentEvent | None:
    """The same of fields that were read already."""
    if type(data.get("amount_minor")) is not int or type(data.get("requested_at")) is not int:
        return None  # 5.0 is no amount, True none either
    try:
        event = convert(data, PaymentEvent)
    except ValidationError:
        return None
    return event if _is_right(event, now_ms) else None


def _is_right(event: PaymentEvent, now_ms: int) -> bool:
    """False where `_checked` may find something, or does not."""
    method, ref = event.payment_method, event.business_ref
    texts = f"{event.payment_id}\n{event.user_id}\n{event.refund_of}\n{method}\n{ref}"
    return bool(
        event.action in ACTIONS
        and event.product in PRODUCTS
        and event.currency in CURRENCIES
        and event.gateway in GATEWAYS
        and (event.refund_of is None) == (event.action == "charge")
        and event.requested_at <= now_ms + MAX_AHEAD_MS
        and _PLAIN.fullmatch(texts)
        and not (_MAYBE_CARD.search(texts) and any(map(holds_card_in_id, texts.split("\n")[:3])))
        and not (ref is not None and holds_card(ref))
    )


class RetryTrigger(Struct, frozen=True, omit_defaults=True):
    """A hint on `payments-retry`: look at this entry now. May be lost or doubled.

    `kind` says in which table: `payment`, or `subscription` (then `payment_id` is the subscription's id), or
    `gateway_event` (then it is `gateway:event_id`).
    """

    user_id: Id
    payment_id: str
    kind: Annotated[str, one_of(TRIGGERS)] = "payment"

    @classmethod
    def from_bytes(cls, value: bytes | None) -> RetryTrigger:
        """Read a record of `payments-retry`; raises BadInput, never anything else."""
        data = object_of(value)
        kind = "payment" if data.get("kind") is None else word_in(data, "kind", TRIGGERS, "unknown_kind")
        read_id = text_in if kind == "gateway_event" else id_in  # a gateway's id is only looked up
        return cls(id_in(data, "user_id"), read_id(data, "payment_id"), kind)

    def to_bytes(self) -> bytes:
        """The record's value on `payments-retry`."""
        return ENCODER.encode(self)


# ---- checks


def _bounded(value: bytes | None) -> bytes | None:
    """What is searched for card numbers is not longer than that; raises BadInput."""
    if value is not None and len(value) > MAX_EVENT_BYTES:
        raise BadInput("too_large", f"a payment has at most {MAX_EVENT_BYTES} bytes, this has {len(value)}")
    return value


def _checked(data: dict[str, Any], now_ms: int) -> PaymentEvent:
    """Every check of an event that needs its value alone; card numbers first."""
    payment_method = text_in(data, "payment_method")
    business_ref = optional_text_in(data, "business_ref")
    _refuse_card_numbers(data, payment_method, business_ref)
    if not _TOKEN.fullmatch(payment_method):
        raise BadInput("bad_id", "payment_method needs 1 to 128 visible ASCII characters without blanks")
    if business_ref is not None and not _BUSINESS_REF.fullmatch(business_ref):
        said = shown(business_ref)
        raise BadInput("bad_business_ref", f"business_ref is {said}, not 1-128 of A-Za-z0-9_:./-")
    action = "charge" if data.get("action") is None else word_in(data, "action", ACTIONS, "unknown_action")
    return PaymentEvent(
        payment_id=id_in(data, "payment_id"),
        user_id=id_in(data, "user_id"),
        action=action,
        product=word_in(data, "product", PRODUCTS, "unknown_product"),
        amount_minor=_amount(data),
        currency=word_in(data, "currency", CURRENCIES, "unknown_currency"),
        payment_method=payment_method,
        gateway=word_in(data, "gateway", GATEWAYS, "unknown_gateway"),
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
            if any(holds_card(text) or holds_security_code(text) for text in _strings({name: data[name]})):
                raise BadInput("card_number", f"the unknown field {shown(name)} holds a card number")


def _strings(value: object) -> Iterator[str]:
    """Every string inside `value`, names too; by a stack, as JSON nests deeper than Python may recurse.

    A short value comes with its name once more, which says what it is.
    """
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
            for name, inner in one.items():
                if type(inner) in (str, int) and len(str(inner)) < 5 and len(name) < 33:
                    yield f"{name}: {inner}"


def _amount(data: dict[str, Any]) -> int:
    value = present_in(data, "amount_minor")
    if is_amount(value):
        return value
    if type(value) is not int and type(value) is not float:  # orjson reads integers beyond 64 bit as floats
        raise BadInput("wrong_type", f"amount_minor is {json_type(value)}, not a whole number")
    raise BadInput("bad_amount", f"amount_minor is {shown(value)}, not whole or not 1 to {MAX_AMOUNT_MINOR}")


def _requested_at(data: dict[str, Any], now_ms: int) -> int:
    value = present_in(data, "requested_at")
    if type(value) is not int or value < 0:
        raise BadInput("wrong_type", f"requested_at is {shown(value)}, not milliseconds since the epoch")
    if value > now_ms + MAX_AHEAD_MS:
        raise BadInput("requested_in_future", f"requested_at {shown(value)} is over 5 min after {now_ms}")
    return value


def _refund_of(data: dict[str, Any], action: str) -> str | None:
    absent = optional_text_in(data, "refund_of") is None
    if absent != (action == "charge"):
        raise BadInput("bad_refund_of", f"refund_of is {'not set' if absent else 'set'} on a {action}")
    return None if absent else id_in(data, "refund_of", "bad_refund_of")
