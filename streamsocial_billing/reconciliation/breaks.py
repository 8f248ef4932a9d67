"""What a break is: the classes, the name that a break keeps from run to run.

A break's id is a hash of its class with the names of its legs, never of a clock, of a place in a file or of
the order of the inputs: a repeated run finds the same ids.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field as kept
from typing import Annotated, Any, Final

import orjson
from msgspec import Struct, field, to_builtins

from streamsocial_billing.domain.events import Ms, one_of

ID_VERSION: Final = 1
DAY_MS: Final = 86_400_000
EXPONENT_RATIOS: Final = (100,)
"""One leg counted in major units, the other in minor ones."""

TIMING: Final = "timing"
MEANINGS: Final[dict[str, str]] = {
    "missing_internal": "The gateway moved money under our reference; our books have no outcome for it.",
    "missing_external": "Our books say that money moved; the gateway, asked twice, has nothing.",
    "status_mismatch": "Both sides know the payment; one says the money moved, the other that it did not.",
    "amount_mismatch": "Both sides know the payment, with another amount or currency.",
    "duplicate_external": "The gateway moved or settled the money of one payment more than once.",
    "duplicate_internal": "Our books count one movement of money more than once.",
    "fee_mismatch": "The fee in the settlement file is not the fee in the gateway's list.",
    "refund_mismatch": "A refund differs: made at the gateway alone, of another amount, of another charge.",
    "unsettled_aged": "Charged, but in no settlement file two business days later.",
    "payout_total": "A payout is not the sum of its lines.",
    "orphan_line": "A line of a settlement file that neither the gateway's list nor our books know.",
    "dispute_unbooked": "Money was taken back by a dispute; our books do not have it.",
    "unknown_aged": "An outcome that has been open for longer than a day.",
    "observed_aged": "The gateway reported a payment whose event never arrived.",
    TIMING: "In progress during the run: one side is only newer than the other. Not an open break.",
}
CLASSES: Final = tuple(MEANINGS)
OPEN_CLASSES: Final = frozenset(MEANINGS) - {TIMING}


class BreakRecord(Struct, frozen=True, kw_only=True):
    """A record of `reconciliation-breaks`, key = `id`; the fields as in Break, amounts in minor units."""

    id: str
    class_: Annotated[str, one_of(frozenset(CLASSES))] = field(name="class")
    open: bool
    gateway: str
    kind: str
    currency: str
    at_stake_minor: int
    ours_minor: int | None
    theirs_minor: int | None
    settled_minor: int | None
    user_id: str | None
    payment_id: str | None
    gateway_ref: str | None
    payout_id: str | None
    since: Ms
    age_days: int
    tags: list[str]
    detail: str
    action: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Break:
    """One thing on which the legs do not agree.

    class_      one of CLASSES
    legs        what names it, as texts; the id is made of these
    gateway     `simulated`, `stripe`, `paypal`
    kind        `charge`, `refund`, `dispute`, `payout`, `line`
    currency    of the amounts
    at_stake    minor units that are in question; never negative
    ours, theirs, settled
                minor units in our books, in the gateway's list, in the settlement file; None: not there
    since       ms since the epoch of its oldest leg: ageing counts from here
    tags        `exponent_suspect`, `tie`
    detail      what was found, for people
    action      what is to be done about it, or was
    event       the record for `gateway-events` that repairs it, None where no event can
    then        one more, behind it: of a dispute that took money and gave a part back
    """

    class_: str
    legs: tuple[str, ...]
    gateway: str
    kind: str
    currency: str
    at_stake: int
    since: int
    ours: int | None = None
    theirs: int | None = None
    settled: int | None = None
    user_id: str | None = None
    payment_id: str | None = None
    gateway_ref: str | None = None
    payout_id: str | None = None
    tags: tuple[str, ...] = ()
    detail: str = ""
    action: str = ""
    event: dict[str, Any] | None = kept(default=None, compare=False)
    then: dict[str, Any] | None = kept(default=None, compare=False)

    @property
    def id(self) -> str:
        """`brk_` + 28 hex; the same in every run that finds the same thing."""
        return break_id(self.class_, self.legs)

    @property
    def open(self) -> bool:
        """False for what is only under way."""
        return self.class_ != TIMING

    def age_days(self, as_of_ms: int) -> int:
        """Whole days from its oldest leg to `as_of_ms`."""
        return max(0, as_of_ms - self.since) // DAY_MS

    def as_json(self, as_of_ms: int) -> dict[str, Any]:
        """The record on `reconciliation-breaks`."""
        record = BreakRecord(
            id=self.id, class_=self.class_, open=self.open, gateway=self.gateway, kind=self.kind,
            currency=self.currency, at_stake_minor=self.at_stake, ours_minor=self.ours,
            theirs_minor=self.theirs, settled_minor=self.settled, user_id=self.user_id,
            payment_id=self.payment_id, gateway_ref=self.gateway_ref, payout_id=self.payout_id,
            since=self.since, age_days=self.age_days(as_of_ms), tags=list(self.tags), detail=self.detail,
            action=self.action,
        )  # fmt: skip
        fields: dict[str, Any] = to_builtins(record)
        return fields


def break_id(class_: str, legs: Sequence[str]) -> str:
    """Pinned by a test: the topic and people's notes hold it."""
    return "brk_" + hashlib.sha256(orjson.dumps([ID_VERSION, class_, *legs])).hexdigest()[:28]


def exponent_suspect(ours: int, theirs: int) -> bool:
    """True if one amount is the other one times 100: the point was set in the wrong place."""
    return any(ours == theirs * ratio or theirs == ours * ratio for ratio in EXPONENT_RATIOS)


def age_bucket(days: int) -> str:
    """The column of the ageing table."""
    for most, name in ((0, "under 1 day"), (2, "1-2 days"), (6, "3-6 days"), (29, "7-29 days")):
        if days <= most:
            return name
    return "30 days and more"


AGE_BUCKETS: Final = ("under 1 day", "1-2 days", "3-6 days", "7-29 days", "30 days and more")
