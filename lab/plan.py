"""What is sent and what goes wrong: a pure function of the seed.

1. the same seed and number of payments give the same payments, in the same order, and the same faults
2. every twentieth payment is sent twice, the second time some way behind the first
3. each named point that a program passes gets one SIGKILL; their order and times are the seed's
4. gateway replies are dropped for a while, a third worker joins and leaves, at times of the seed's
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from lab.guarantees import ANSWERED, CHARGED, COMMITTED

PRODUCTS: Final = {"subscription": 899, "upgrade": 1799, "gift": 2300}
"""Cents by product."""
CURRENCY: Final = "EUR"
USERS: Final = 200
RESENT_OF: Final = 20
DECLINED_OF: Final = 25
KILL_POINTS: Final = (CHARGED, ANSWERED, COMMITTED)
STORM_SHARE: Final = 0.6
"""Of the payments that come while faults come; the rest comes at once, afterwards, without any."""
DROP_RATE: Final = 0.25
"""Of the charges, while replies are dropped."""


@dataclass(frozen=True, slots=True)
class Payment:
    """One payment; amount in cents."""

    payment_id: str
    user_id: str
    product: str
    amount_minor: int
    payment_method: str

    @property
    def is_due(self) -> bool:
        """True if the card pays."""
        return self.payment_method == "pm_card_visa"


@dataclass(frozen=True, slots=True)
class Kill:
    """SIGKILL of a worker at a named point, from the moment when this share of the storm is sent."""

    point: str
    worker: int
    share: float


@dataclass(frozen=True, slots=True)
class Plan:
    """All of a run.

    events     the payments in the order in which they are sent, some of them twice
    storm      how many of the events come during the faults
    kills      in the order of their time
    dropping   from which to which share of the storm replies of the gateway are dropped
    joining    from which to which share of the storm a third worker is in the group
    """

    seed: int
    payments: Sequence[Payment]
    events: Sequence[Payment]
    storm: int
    kills: Sequence[Kill]
    dropping: tuple[float, float]
    joining: tuple[float, float]


def plan(seed: int, payments: int) -> Plan:
    """The plan of a seed for so many different payments."""
    dice = random.Random(seed)  # noqa: S311 - a repeatable plan, not a secret
    made = [_payment(dice, number) for number in range(payments)]
    order = [(float(number), one) for number, one in enumerate(made)]
    order += [
        (number + dice.uniform(1, max(2, payments / 10)), one)
        for number, one in enumerate(made) if number % RESENT_OF == RESENT_OF - 1
    ]  # fmt: skip
    events = [one for _, one in sorted(order, key=lambda each: each[0])]
    points = dice.sample(KILL_POINTS, len(KILL_POINTS))
    kills = [
        Kill(point, dice.randrange(2), 0.08 + 0.3 * number + dice.uniform(0, 0.06))
        for number, point in enumerate(points)
    ]
    drop_from, join_from = 0.2 + dice.uniform(0, 0.04), 0.5 + dice.uniform(0, 0.04)
    return Plan(
        seed=seed, payments=made, events=events, storm=int(len(events) * STORM_SHARE), kills=kills,
        dropping=(drop_from, drop_from + 0.12), joining=(join_from, join_from + 0.12),
    )  # fmt: skip


def _payment(dice: random.Random, number: int) -> Payment:
    product = dice.choices(list(PRODUCTS), weights=(8, 1, 1))[0]
    declined = number % DECLINED_OF == DECLINED_OF - 1
    return Payment(
        f"lab-{number + 1:05}", f"user-{dice.randrange(USERS):03}", product, PRODUCTS[product],
        "pm_card_declined" if declined else "pm_card_visa",
    )  # fmt: skip
