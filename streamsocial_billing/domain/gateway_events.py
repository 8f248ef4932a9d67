"""What a gateway told of a payment: the records on `gateway-events`, keyed by user_id.

Written by the webhook receiver after the signature was checked, and by reconciliation as a repair. Read by
one agent, in units: whoever wrote it, its effect is the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, cast

from msgspec import Struct

from streamsocial_billing.domain.card_numbers import mask_text
from streamsocial_billing.domain.events import (
    ENCODER,
    GATEWAYS,
    Amount,
    Currency,
    GatewayName,
    Id,
    Ms,
    one_of,
)
from streamsocial_billing.domain.foreign_fields import BadInput, json_object
from streamsocial_billing.domain.money import CURRENCIES, is_amount

KINDS: Final = frozenset({"charge", "refund", "dispute"})
STATUSES: Final = frozenset({"pending", "succeeded", "declined"})
_USER = re.compile(r"[A-Za-z0-9_-]{1,64}")
_TEXT = re.compile(r"[!-~]{1,255}")


class GatewayEvent(Struct, frozen=True, kw_only=True):
    """One thing that a gateway told.

    event_id      the gateway's id of the message (`evt_...`), of a repair `rec_` + the break's id; a second
                  record with the same gateway and event_id changes nothing
    gateway       `simulated`, `stripe` or `paypal`
    account       the account that it belongs to; empty where the message does not say
    kind          `charge`, `refund`, or `dispute` (money taken back by the card's holder)
    status        `succeeded`: money moved (a dispute: it was taken from us); `declined`: it did not, or (a
                  dispute) it came back to us; `pending`: not decided
    reason        code of a decline or dispute, else None
    soft          a decline that another payment may not meet
    gateway_ref   the gateway's id of the charge, refund or dispute
    charge_ref    refunds, disputes: the gateway's id of the charge
    ref           our reference (the idempotency key of our call), None where the gateway made it by itself
    user_id       whose: from our metadata, of a refund or dispute without it from its charge's
    payment_id    the payment: of a charge or refund of ours its own id, else None
    charge_id     refunds, disputes: the payment_id of the charge, where known
    amount_minor  minor units of `currency`; of a dispute what moved in all so far, by its balance
                  transactions (gateways/moved.py): `succeeded` what was withdrawn, `declined` what came back
    returned_minor of a dispute that `succeeded`: what of `amount_minor` came back so far; where it is 0 the
                  record does not have it, so that an older release reads the record, too
    occurred_at   ms since the epoch, the gateway's clock
    via           `webhook` or `reconciliation`
    intent        of a charge that an intent made: the intent's id, as `gateway_ref`; else left out
    intent_charge its own id there; left out where it is not known
    canceled      a decline after which nobody can confirm the intent any more; else left out
    newer         fields of a newer release, where there are any: kept where the record is written again
    """

    event_id: str
    gateway: GatewayName
    account: str = ""
    kind: Annotated[str, one_of(KINDS)]
    status: Annotated[str, one_of(STATUSES)]
    reason: str | None = None
    soft: bool = False
    gateway_ref: str
    charge_ref: str | None = None
    ref: str | None = None
    user_id: Id
    payment_id: str | None = None
    charge_id: str | None = None
    amount_minor: Amount
    currency: Currency
    occurred_at: Ms
    via: str = "webhook"
    returned_minor: int = 0
    intent: str | None = None
    intent_charge: str | None = None
    canceled: bool = False
    newer: dict[str, Any] | None = None

    def to_bytes(self) -> bytes:
        """The record's value on `gateway-events`."""
        return ENCODER.encode(self.as_json())

    def as_json(self) -> dict[str, Any]:
        """The fields as the record has them."""
        said = {name: getattr(self, name) for name in _FIELDS}
        for name in _LEFT_OUT:
            if not said[name]:
                del said[name]
        return said | (self.newer or {})

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> GatewayEvent:
        """What `as_json` gave, of this release or of a newer one."""
        newer = {name: value for name, value in said.items() if name not in _FIELDS}
        known = {name: value for name, value in said.items() if name in _FIELDS}
        return cls(**known, newer=newer or None)

    @classmethod
    def from_bytes(cls, value: bytes | None, *, key: bytes | None) -> GatewayEvent:
        """Read a record of `gateway-events`; raises BadInput, never anything else."""
        data = json_object(value or b"")
        event = _read(data)
        if key != event.user_id.encode():
            raise BadInput("key_mismatch", "the record key is not the event's user_id")
        return event


_FIELDS: Final = GatewayEvent.__struct_fields__[:-1]
"""Those of the record."""
_LEFT_OUT: Final = ("returned_minor", "intent", "intent_charge", "canceled")
"""Those that a record does not have where they say nothing: an older release reads it, too."""


def _read(data: dict[str, Any]) -> GatewayEvent:
    for name, pattern, needed in _TEXTS:
        text = data.get(name)
        if text is None and not needed:
            continue
        if not isinstance(text, str) or not pattern.fullmatch(text):
            raise BadInput("bad_id", f"{name} is not as it should be")
    for name, allowed in _CHOICES:
        if data.get(name) not in allowed:
            raise BadInput("wrong_type", f"{name} must be one of {', '.join(sorted(allowed))}")
    if not is_amount(data.get("amount_minor")):
        raise BadInput("bad_amount", "amount_minor is not a number of minor units")
    if type(data.get("occurred_at")) is not int or data.get("via") not in ("webhook", "reconciliation"):
        raise BadInput("wrong_type", "occurred_at is ms since the epoch, via webhook or reconciliation")
    returned = data.get("returned_minor", 0)
    if type(returned) is not int or not 0 <= returned <= data["amount_minor"]:
        raise BadInput("bad_amount", "returned_minor is not a part of amount_minor")
    reason, account = data.get("reason"), data.get("account") or ""
    if not isinstance(reason, str | None) or not isinstance(account, str):
        raise BadInput("wrong_type", "reason and account are texts")
    known = {name: data.get(name) for name in _FIELDS} | {
        "reason": None if reason is None else mask_text(reason[:100]),
        "account": account[:255],
        "soft": data.get("soft") is True,
        "returned_minor": returned,
        "canceled": data.get("canceled") is True,
    }
    newer = {name: value for name, value in data.items() if name not in _FIELDS}
    return GatewayEvent(**cast("dict[str, Any]", known), newer=newer or None)


_TEXTS: Final = (
    ("event_id", _TEXT, True), ("gateway_ref", _TEXT, True), ("charge_ref", _TEXT, False),
    ("ref", _TEXT, False), ("user_id", _USER, True), ("payment_id", _USER, False),
    ("charge_id", _USER, False), ("intent", _TEXT, False), ("intent_charge", _TEXT, False),
)  # fmt: skip
_CHOICES: Final = (("gateway", GATEWAYS), ("kind", KINDS), ("status", STATUSES), ("currency", CURRENCIES))
