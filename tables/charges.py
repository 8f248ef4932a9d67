"""The charge state of each user."""

from __future__ import annotations

from typing import Any, Final, NotRequired, TypedDict

import faust
from msgspec import UNSET, Struct, UnsetType
from msgspec.json import Decoder

from tables.rows import reader_of


class Money(TypedDict):
    """What moved for one user in one currency; minor units."""

    charged_minor: int
    """Sum of succeeded charges, each counted once."""
    refunded_minor: int
    """Sum of succeeded refunds, each counted once."""


class LastPayment(TypedDict):
    """The latest payment whose outcome was new, so no replay."""

    payment_id: str
    status: str
    at: int
    """When the outcome was decided: milliseconds since the epoch."""


class RefundsApart(TypedDict):
    """Which results were refunds."""

    refund_counts: NotRequired[dict[str, int]]
    """Those of `counts` that are refunds. Absent: an older release wrote the row."""
    older_counts: NotRequired[dict[str, int]]
    """What `counts` was when refunds were first counted apart: charges or refunds, the row cannot say."""


class ChargeState(RefundsApart):
    """What one user was charged: the value under `user_id`, a fold of the user's records on `charge-results`.

    Written by the billing agent only, in the unit of each result. Kept for ever; the changelog is compacted.
    """

    user_id: str
    """The key again, so that a value explains itself."""
    money: dict[str, Money]
    """By currency, ISO 4217 upper-case; only currencies in which money moved."""
    counts: dict[str, int]
    """Results so far by status; a replay counts as `replayed` only. A payment that was unknown first counts
    under `unknown`, then once more under its final status. Charges and refunds together."""
    last_payment: LastPayment | None
    """None while there were only replays."""


read_charge_state: Final = reader_of("a charge state", ChargeState)


class KnownMoney(Struct, forbid_unknown_fields=True, gc=False):
    """Money, as KnownState holds it."""

    charged_minor: int
    refunded_minor: int


class KnownPayment(Struct, forbid_unknown_fields=True, gc=False):
    """LastPayment, as KnownState holds it."""

    payment_id: str
    status: str
    at: int


class KnownState(Struct, forbid_unknown_fields=True, kw_only=True):
    """A ChargeState in whose row stands what this release writes, no more, no less: nearly every one.

    Read from its bytes, and written, in a third of the time. Not to be changed: what is made of it shares its
    parts.
    """

    user_id: str
    money: dict[str, KnownMoney]
    counts: dict[str, int]
    refund_counts: dict[str, int]
    older_counts: dict[str, int] | UnsetType = UNSET
    last_payment: KnownPayment | None


AnyState = KnownState | ChargeState
read_known_state: Final = Decoder(KnownState).decode
"""Reads such a row; raises msgspec.DecodeError for any other."""


def declare_charges(app: faust.App, **options: Any) -> Any:
    """Declare the table `charges`: user_id -> ChargeState."""
    return app.Table(
        "charges",
        help="what each user was charged, by user_id",
        key_type=str,
        value_type=dict,
        **options,
    )
