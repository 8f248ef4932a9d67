"""What a gateway's message says, and whose it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from streamsocial_billing.domain.card_numbers import mask_text
from streamsocial_billing.domain.gateway_calls import Owner
from streamsocial_billing.domain.gateway_events import GatewayEvent
from streamsocial_billing.domain.references import kind_of_reference
from streamsocial_billing.gateways.moved import Moved


class Unreadable(ValueError):
    """Raised when a signed message of a type that we map does not have the fields that we know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What a message of a type that we map is about: as much as tells whose it is, and cannot be unreadable.

    `words` are ours as the object carries them, None where it carries none (made at the gateway itself).
    """

    kind: str
    charge_ref: str | None = None
    words: Owner | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One message, mapped; the fields mean what they mean in GatewayEvent.

    `words` as in Subject. `amount_minor` is None where it is no whole number of a currency that we know.
    `moved`: what a dispute moved in all so far, where that is known.
    """

    event_id: str
    account: str = ""
    kind: str
    status: str
    reason: str | None = None
    soft: bool = False
    gateway_ref: str
    charge_ref: str | None = None
    amount_minor: int | None
    currency: str
    occurred_at: int
    words: Owner | None
    moved: Moved | None = None


@dataclass(frozen=True, slots=True)
class Whose:
    """The ids of a GatewayEvent: `payment_id` with `ref` of what we ordered, `charge_id` of its charge."""

    user_id: str
    payment_id: str | None = None
    ref: str | None = None
    charge_id: str | None = None


def action_of(words: Owner | None) -> str | None:
    """`charge` or `refund`: the call of ours that these words were given to; None if they are not ours.

    Our reference is a function of the other two, so foreign words that look alike do not pass, and a refund
    made at the gateway that echoes its charge's words is not taken for one that we ordered.
    """
    return None if words is None else kind_of_reference(words.ref, words.user_id, words.payment_id)


def whose(told: Subject | Told) -> Whose | None:
    """Whose it is by its own words; None if they do not say."""
    words, action = told.words, action_of(told.words)
    if words is None or action is None:
        return None
    if action == told.kind:
        return Whose(words.user_id, words.payment_id, words.ref)
    return Whose(words.user_id, charge_id=words.payment_id) if action == "charge" else None


def whose_by_charge(words: Owner) -> Whose | None:
    """Whose a refund or dispute is by the words of its charge; None if that is not ours."""
    return Whose(words.user_id, charge_id=words.payment_id) if action_of(words) == "charge" else None


def gateway_events(gateway: str, told: Told, of: Whose) -> list[GatewayEvent]:
    """The records, in the order in which they count: one, and of a dispute one more for what came back."""
    if told.moved is None:
        return [gateway_event(gateway, told, of)]
    _, withdrawn, returned, _ = told.moved
    if withdrawn == 0:  # an inquiry, whatever became of it
        return [gateway_event(gateway, replace(told, status="pending"), of)]
    taken = replace(told, status="succeeded", amount_minor=withdrawn)
    back = replace(
        told, event_id=f"{told.event_id}:returned", status="declined", amount_minor=returned
    )  # fmt: skip
    return [gateway_event(gateway, one, of) for one in ([taken, back] if returned else [taken])]


def gateway_event(gateway: str, told: Told, of: Whose) -> GatewayEvent:
    """A record, as a reader will read it (raises BadInput where it would not be one)."""
    event = GatewayEvent(
        event_id=told.event_id, gateway=gateway, account=told.account, kind=told.kind, status=told.status,
        reason=told.reason, soft=told.soft, gateway_ref=told.gateway_ref, charge_ref=told.charge_ref,
        ref=of.ref, user_id=of.user_id, payment_id=of.payment_id, charge_id=of.charge_id,
        amount_minor=told.amount_minor or 0, currency=told.currency, occurred_at=told.occurred_at,
    )  # fmt: skip
    return GatewayEvent.from_bytes(event.to_bytes(), key=of.user_id.encode())


def text_of(of: Mapping[str, Any], name: str) -> str:
    """A text that a message of this type always has; raises Unreadable."""
    value = of.get(name)
    if not isinstance(value, str) or not value:
        raise Unreadable(f"{name} is not a text")
    return value


def part_of(of: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """An object that a message of this type always has; raises Unreadable."""
    value = of.get(name)
    if not isinstance(value, dict):
        raise Unreadable(f"{name} is not an object")
    return value


def code_of(value: object, otherwise: str) -> str:
    """A reason code; anything longer or stranger is none."""
    if isinstance(value, str) and 0 < len(value) <= 100 and value.isascii():
        return mask_text(value).lower()
    return otherwise
