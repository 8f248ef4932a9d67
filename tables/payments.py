"""The dedup record of each payment."""

from __future__ import annotations

from operator import itemgetter
from typing import Any, Final, NotRequired, TypedDict, TypeGuard, cast, final

import faust
from msgspec import UNSET, Struct, UnsetType

from tables.rows import InvalidRow, checked, decoded, kind_of_rows


class Source(TypedDict):
    """Where the first event of a payment stands on `payments`."""

    topic: str
    partition: int
    offset: int


class SettledBy(TypedDict):
    """Who settled a payment by hand."""

    actor: str
    reason: str
    at: int
    """Milliseconds since the epoch."""


class Authentication(TypedDict):
    """An intent that waits for its customer, or did; milliseconds since the epoch."""

    since: int
    """When we learnt that it does."""
    look_at: int
    """When it is asked for next."""
    until: NotRequired[int]
    """When it is to be canceled, where that is sooner than BILLING_AUTHENTICATION_DAYS after `since`."""


@final
class PaymentEntry(TypedDict):
    """What is known of one payment: the value under `user_id/payment_id`.

    Written in the unit of the event (first outcome; a replay of an open one moves `next_try_at`), of the
    trigger that tries it again, of the webhook or the command that settles it. Kept 35 days after it became
    final, then a SmallEntry takes its place; the changelog is compacted, never deleted by time. Times are ms
    since the epoch, amounts minor units. Read it through `read_entry`: what says nothing is not written.
    """

    fingerprint: str
    """Hex SHA-256 of what a re-sent event must have in common with the first."""
    fingerprint_version: int
    """Format of `fingerprint`; `payment_identity.FINGERPRINT_VERSION` when the entry was made."""
    key_version: int
    """Format of the gateway's idempotency key; `payment_identity.KEY_VERSION` when the entry was made."""
    action: str
    """`charge` or `refund`."""
    product: str
    """`subscription`, `upgrade` or `gift`."""
    status: str
    """Final: `succeeded`, `declined`, `failed`, `rejected`. Open: `unknown`, `parked`."""
    reason: str | None
    """Code that explains `status`; None for succeeded."""
    gateway: str
    """The gateway that the event names: calls for this payment go nowhere else."""
    gateway_account: str
    """Account at the gateway under which the first call was made; idempotency keys hold per account."""
    gateway_ref: str | None
    """The gateway's own id of the charge or refund, once known."""
    amount_minor: int
    """The amount of the event."""
    currency: str
    """ISO 4217, upper-case."""
    refunded_minor: int
    """How much of a charge went back, disputes with it; of a refund made at the gateway: its part of that."""
    reserved_minor: int
    """How much of a succeeded charge open refunds hold; of an open refund: what it holds of its charge."""
    payment_method: str
    """The gateway's token: a later try sends the same parameters."""
    business_ref: str | None
    """What was paid for, as the event says."""
    refund_of: str | None
    """Refunds: payment_id of the charge."""
    charge_ref: str | None
    """Refunds: the gateway's id of the charge."""
    conflicts_with: str | None
    """Rejected as duplicate_business_ref: payment_id of the charge that holds the business_ref."""
    origin: str
    """`event`, or `external`: made at the gateway, not by us."""
    soft: bool
    """Declined for a reason that another try may not meet (insufficient funds)."""
    attempts: int
    """Gateway calls made so far, in all units."""
    ever_ambiguous: bool
    """True if any call may have reached the gateway unseen: such a payment never fails by a timer."""
    ask_only: bool
    """True if the gateway keeps an error under our key: repeating brings it again, only asking helps."""
    requested_at: int
    """The event's own time."""
    first_seen_at: int
    """The broker's append time of the payment's first record: the age that counts for gateway keys."""
    window_from: int
    """Start of the window in which the gateway knows our key: `first_seen_at`, later after proven absence."""
    absent_at: int | None
    """When the gateway first said that it has nothing under our reference; None again after a call."""
    processed_at: int
    """When `status` was last decided."""
    step: int
    """Which pause of `payment_entry.SCHEDULE_S` runs before the next try; only for unknown."""
    due_at: int | None
    """When that pause ends. Re-sent events bring `next_try_at` forward, not this."""
    not_before: int | None
    """The gateway's own wish (Retry-After): no try before."""
    next_try_at: int | None
    """Open and not parked: when a trigger is due. Else None."""
    held_since: int | None
    """Refunds that wait for their charge: since when."""
    settled_by: SettledBy | None
    """Who settled it by hand; None: nobody had to."""
    source: Source | None
    """The first event; a settling result carries it. None: made at the gateway, there was no event."""
    last_error: str | None
    """Text of the last call that gave no answer, for people."""
    returned_by: NotRequired[str]
    """Refunds that failed after they had succeeded: payment_id of the result that brought the money back."""
    intent: NotRequired[str]
    """Charges by an intent: the gateway's id of that, once known; `gateway_ref` is the same."""
    intent_charge: NotRequired[str]
    """The gateway's id of the intent's last charge, once known: settlement files name that one alone."""
    authentication: NotRequired[Authentication]
    """Open, and its intent ever wanted its customer: no schedule; a success or a cancellation is its end."""


@final
class SmallEntry(TypedDict):
    """What is left of a final payment after 35 days, for 13 months: replays and late refunds need no more.

    The fields mean what they mean in PaymentEntry.
    """

    small: bool
    fingerprint: str
    fingerprint_version: int
    action: str
    product: str
    status: str
    reason: str | None
    gateway: str
    gateway_account: str
    gateway_ref: str | None
    amount_minor: int
    currency: str
    refunded_minor: int
    reserved_minor: int
    business_ref: str | None
    conflicts_with: str | None
    attempts: int
    processed_at: int
    refund_of: NotRequired[str]
    """Refunds only, and not in entries that an earlier release made small."""
    returned_by: NotRequired[str]
    intent: NotRequired[str]
    intent_charge: NotRequired[str]


@final
class ObservedEntry(TypedDict):
    """A payment that the gateway told of before its event was handled: no fingerprint, no result yet.

    Written in the unit of a webhook or of a repair by reconciliation; its event adopts it.
    """

    status: str
    """Always `observed`."""
    seen: str
    """What the gateway said: `succeeded`, `declined` or `pending`."""
    reason: str | None
    action: str
    gateway: str
    gateway_account: str
    gateway_ref: str
    amount_minor: int
    currency: str
    soft: bool
    observed_at: int
    intent: NotRequired[str]
    intent_charge: NotRequired[str]


Entry = PaymentEntry | SmallEntry | ObservedEntry


def written(entry: Entry) -> dict[str, Any]:
    """An entry as the table holds it: of a full one fields of _ADDED that say nothing new are left out.

    Most payments end at once; without this each record on the changelog was a quarter larger.
    """
    value: dict[str, Any] = dict(entry)
    if "small" in entry or "fingerprint" not in entry:
        return value
    if _added_of(entry) == _DEFAULTS:  # the quick way of nearly every payment
        for name in _ADDED:
            del value[name]
    else:
        for name, default in _ADDED.items():
            if value[name] == default:
                del value[name]
    if value["window_from"] == value["first_seen_at"]:
        del value["window_from"]
    if value["due_at"] == value["next_try_at"]:
        del value["due_at"]
    return value


class SettledRow(Struct, frozen=True, gc=False):
    """The row of a charge that ended at once: what `written` says of its entry, fields in the same order.

    Made by position and written by msgspec, it takes a third of the time of a dict.
    """

    fingerprint: str
    fingerprint_version: int
    key_version: int
    action: str
    product: str
    status: str
    reason: str | None
    gateway: str
    gateway_account: str
    gateway_ref: str | None
    amount_minor: int
    currency: str
    refunded_minor: int
    payment_method: str
    business_ref: str | None
    refund_of: str | None
    attempts: int
    ever_ambiguous: bool
    requested_at: int
    first_seen_at: int
    processed_at: int
    next_try_at: int | None
    source: Source | None
    last_error: str | None
    intent: str | UnsetType = UNSET
    intent_charge: str | UnsetType = UNSET


def read_entry(value: Any) -> Entry | None:
    """A value of the table with all of its fields; those that `written` left out are filled in."""
    if value is None:
        return None
    if "small" in value:
        return cast(SmallEntry, checked("an archived payment", value, _SMALL))
    if value.get("status") == "observed":
        return cast(ObservedEntry, checked("a payment that its gateway reported", value, _OBSERVED))
    return filled(checked("a payment", value, _FULL))


def filled(value: dict[str, Any]) -> PaymentEntry:
    """The row of a full entry with what `written` left out."""
    entry = dict(value)  # what is there keeps its place, so that an unchanged row is written as it was
    entry.setdefault("window_from", value["first_seen_at"])
    entry.setdefault("due_at", value["next_try_at"])
    if value.keys().isdisjoint(_ADDED):  # the quick way of nearly every payment
        entry.update(_ADDED)
    else:
        for name, default in _ADDED.items():
            entry.setdefault(name, default)
    return cast(PaymentEntry, entry)


def entry_of(value: bytes) -> Entry:
    """The entry that a row's bytes hold, on a disk or a changelog; raises InvalidRow."""
    entry = read_entry(decoded("a payment", value))
    if entry is None:
        raise InvalidRow("a payment cannot be read: it is null")
    return entry


_ADDED: Final = {
    "reserved_minor": 0,
    "charge_ref": None,
    "conflicts_with": None,
    "origin": "event",
    "soft": False,
    "ask_only": False,
    "absent_at": None,
    "step": 0,
    "not_before": None,
    "held_since": None,
    "settled_by": None,
}
LEFT_OUT: Final = frozenset({*_ADDED, "window_from", "due_at"})
"""Fields that `written` may leave out."""
_FULL: Final = kind_of_rows(PaymentEntry, LEFT_OUT)
_SMALL: Final = kind_of_rows(SmallEntry)
_OBSERVED: Final = kind_of_rows(ObservedEntry)
_added_of: Final = itemgetter(*_ADDED)
_DEFAULTS: Final = tuple(_ADDED.values())


def is_full(entry: Entry | None) -> TypeGuard[PaymentEntry]:
    """True for an entry with everything in it; False for None, a small or an observed one."""
    return entry is not None and "fingerprint" in entry and "small" not in entry


def is_small(entry: Entry | None) -> TypeGuard[SmallEntry]:
    """True for what is left of a payment after its retention."""
    return entry is not None and "small" in entry


def is_observed(entry: Entry | None) -> TypeGuard[ObservedEntry]:
    """True for a payment that only the gateway told of."""
    return entry is not None and "seen" in entry


def payment_key(user_id: str, payment_id: str) -> str:
    """The key of a payment; neither id can hold a slash."""
    return f"{user_id}/{payment_id}"


def declare_payments(app: faust.App, **options: Any) -> Any:
    """Declare the table `payments`: `user_id/payment_id` -> Entry, partitioned by user_id."""
    return app.Table(
        "payments",
        help="what is known of each payment, by user_id/payment_id",
        key_type=str,
        value_type=dict,
        **options,
    )
