"""What a gateway's message says, and whose it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from streamsocial_billing.domain.foreign_text import code_in
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
class ProviderEvent:
    """One message of a provider, mapped; the fields mean what they mean in GatewayEvent.

    `words` as in Subject. `amount_minor` is None where it is no whole number of a currency that we know.
    `moved`: what a dispute moved in all so far, where that is known. `canceled`: an intent that nobody can
    confirm any more.
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
    intent: str | None = None
    intent_charge: str | None = None
    canceled: bool = False


@dataclass(frozen=True, slots=True)
class PaymentIds:
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


def ids_of(mapped: Subject | ProviderEvent) -> PaymentIds | None:
    """Whose it is by its own words; None if they do not say."""
    words, action = mapped.words, action_of(mapped.words)
    if words is None or action is None:
        return None
    if action == mapped.kind:
        return PaymentIds(words.user_id, words.payment_id, words.ref)
    return PaymentIds(words.user_id, charge_id=words.payment_id) if action == "charge" else None


def ids_by_charge(words: Owner) -> PaymentIds | None:
    """Whose a refund or dispute is by the words of its charge; None if that is not ours."""
    return PaymentIds(words.user_id, charge_id=words.payment_id) if action_of(words) == "charge" else None


def gateway_events(gateway: str, mapped: ProviderEvent, of: PaymentIds) -> list[GatewayEvent]:
    """The records, in the order in which they count: one, and of a dispute one more for what came back."""
    if mapped.moved is None:
        return [gateway_event(gateway, mapped, of)]
    _, withdrawn, returned, _ = mapped.moved
    if withdrawn == 0:  # an inquiry, whatever became of it
        return [gateway_event(gateway, replace(mapped, status="pending"), of)]
    taken = replace(mapped, status="succeeded", amount_minor=withdrawn)
    back = replace(
        mapped, event_id=f"{mapped.event_id}:returned", status="declined", amount_minor=returned
    )  # fmt: skip
    return [gateway_event(gateway, one, of) for one in ([taken, back] if returned else [taken])]


def gateway_event(gateway: str, mapped: ProviderEvent, of: PaymentIds) -> GatewayEvent:
    """A record, as a reader will read it (raises BadInput where it would not be one)."""
    event = GatewayEvent(
        event_id=mapped.event_id, gateway=gateway, account=mapped.account, kind=mapped.kind,
        status=mapped.status, reason=mapped.reason, soft=mapped.soft, gateway_ref=mapped.gateway_ref,
        charge_ref=mapped.charge_ref,
        ref=of.ref, user_id=of.user_id, payment_id=of.payment_id, charge_id=of.charge_id,
        amount_minor=mapped.amount_minor or 0, currency=mapped.currency, occurred_at=mapped.occurred_at,
        intent=mapped.intent, intent_charge=mapped.intent_charge, canceled=mapped.canceled,
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
    """A reason code in small letters; anything longer or stranger is none."""
    code = code_in(value)
    return otherwise if code is None else code.lower()
