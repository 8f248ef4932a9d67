"""The records that repair a break, where a dispute may need two."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from streamsocial_billing.reconciliation.breaks import break_id
from streamsocial_billing.reconciliation.rules import Rules, repair_event

Row = Mapping[str, Any]


def repaired_by(class_: str, legs: tuple[str, ...]) -> str:
    """What is done about it, for people."""
    return f"repair: the event rec_{break_id(class_, legs)} on gateway-events brings it into the books"


def repairs_of(events: list[dict[str, Any]]) -> dict[str, Any]:
    """The fields of a break that hold its repairs, two at most."""
    return dict(zip(("event", "then"), events, strict=False))


def moved_there(row: Row) -> tuple[int, int]:
    """What the gateway's list says that a dispute took, and gave back; of what it never took all is back.

    Of one that is pending nothing is back, as it may still take what our books have; an inquiry took nothing.
    """
    if row["status"] == "pending":
        return (row["ours"], row["ours"]) if row["returned"] == row["amount"] else (0, 0)
    if row["status"] == "succeeded" or row["returned"]:
        return row["amount"], row["returned"]
    return row["ours"], row["ours"]


def dispute_events(
    rules: Rules, class_: str, legs: tuple[str, ...], row: Row, user: str | None, charge: str | None,
    taken: int, back: int,
) -> list[dict[str, Any]]:  # fmt: skip
    """The repairs: what was taken, then what came back; 0: our books have it already."""
    made = []
    for amount, status, mark in ((taken, "succeeded", ""), (back, "declined", ":returned")):
        event = repair_event(
            rules, class_, legs, dict(row) | {"ref": None, "amount": amount}, status=status, user_id=user,
            payment_id=None, charge_id=charge,
        )  # fmt: skip
        if event is not None:
            made.append(event | {"event_id": f"{event['event_id']}{mark if taken else ''}"})
    return made
