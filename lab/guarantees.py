"""The five guarantees that the lab compares, each with its worker program and what it is said to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

STANDS_STILL_S: Final = 15.0
"""Above every session time-out of a run."""


@dataclass(frozen=True, slots=True)
class Guarantee:
    """One way to consume payments.

    key       its name on the command line and in topic names
    title     its name on the page
    module    the worker program, run with `python -m`
    order     what the program does with one batch, in this order
    promise   what its documentation says, in one sentence
    points    the named points that the program passes -> what has just happened there
    is_faust  it is a Faust app: `--datadir DIR worker ...`
    may_lose  what it has lost it never answers: that is no standstill
    first_alone  before anything else it is killed alone with its result written: later it may not handle a
              payment any more, and its repeat (docs/defects.md, 1) is to be seen in each run
    patience_s  without a new result for so many seconds nothing more is to come
    """

    key: str
    title: str
    module: str
    order: tuple[str, ...]
    promise: str
    points: Mapping[str, str]
    is_faust: bool = False
    may_lose: bool = False
    first_alone: bool = False
    patience_s: float = STANDS_STILL_S


CHARGED: Final = "charged"
ANSWERED: Final = "answered"
COMMITTED: Final = "committed"
_POINTS: Final = {
    CHARGED: "the gateway has charged the card, nothing is written about it",
    ANSWERED: "the result is on its topic, the offset is not committed",
    COMMITTED: "the offset is committed",
}

GUARANTEES: Final = (
    Guarantee(
        key="at-most-once",
        title="At most once",
        module="lab.programs.at_most_once",
        order=("take a batch", "commit its offsets", "charge each payment, once", "write each result"),
        promise="An event is handled once or not at all.",
        points=_POINTS | {
            ANSWERED: "the results of the batch are on their topic",
            COMMITTED: "the offsets of the batch are committed, no payment of it is handled",
        },
        may_lose=True,
        patience_s=6.0,
    ),  # fmt: skip
    Guarantee(
        key="at-least-once",
        title="At least once, no deduplication",
        module="lab.programs.at_least_once",
        order=("take a batch", "charge each payment, until there is a reply", "write each result",
               "commit the offsets"),
        promise="An event is handled once or more often.",
        points=_POINTS,
    ),  # fmt: skip
    Guarantee(
        key="idempotent",
        title="At least once, idempotent handler",
        module="lab.programs.idempotent",
        order=("take a batch", "charge each payment under its own idempotency key, until there is a reply",
               "write each result", "commit the offsets"),
        promise="An event is handled once or more often; the gateway recognises the repeat.",
        points=_POINTS,
    ),  # fmt: skip
    Guarantee(
        key="plain-faust", title="Plain Faust, exactly_once", module="lab.programs.plain_faust",
        order=("take an event", "look it up in a table", "charge it under its own idempotency key",
               "write the result and the table", "leave the commit to Faust's timer"),
        promise="Faust's documentation of processing_guarantee=\"exactly_once\": "
        "no event is lost or handled twice.",
        points={point: said for point, said in _POINTS.items() if point != COMMITTED},
        # it recovers its table after each rebalance, one after the other
        is_faust=True, first_alone=True, patience_s=25.0,
    ),
    Guarantee(
        key="ours",
        title="Exactly once, this project",
        module="lab.programs.ours",
        order=("take a batch", "look each payment up", "charge it under its own idempotency key",
               "commit results, metrics, tables and offsets in one transaction"),
        promise="Exactly once inside Kafka; effectively once at a gateway that honours idempotency keys.",
        points={
            CHARGED: "the gateway has charged the cards, the transaction has not begun",
            ANSWERED: "everything is in the open transaction, it is not committed",
            COMMITTED: "the transaction is committed, RocksDB is not written",
        },
        is_faust=True,
    ),  # fmt: skip
)  # fmt: skip

BY_KEY: Final = {one.key: one for one in GUARANTEES}
