"""Which charge holds a business_ref of a user."""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict

import faust


class BusinessRef(TypedDict):
    """The value under `user_id/business_ref`.

    Written in the unit that stores the outcome of a charge that holds its business_ref (succeeded, unknown,
    parked). Whether it still does is asked of the charge's own entry, so nothing is written when it is freed;
    deleted with that entry at the end of its retention.
    """

    payment_id: str
    """The charge."""
    also: NotRequired[list[str]]
    """Charges that got it back beside that one: their refund failed, or their dispute was won, after another
    charge had taken the business_ref."""


def business_key(user_id: str, business_ref: str) -> str:
    """The key of a business_ref; a user_id holds no slash, so what follows the first one is the rest."""
    return f"{user_id}/{business_ref}"


def charges_of(row: BusinessRef) -> list[str]:
    """The charges that a row names, in its order."""
    return [row["payment_id"], *row.get("also", ())]


def naming(charge: str, *also: str) -> BusinessRef:
    """The row that names these charges."""
    return {"payment_id": charge, "also": list(also)} if also else {"payment_id": charge}


def declare_business_refs(app: faust.App, **options: Any) -> Any:
    """Declare the table `business_refs`: `user_id/business_ref` -> BusinessRef, partitioned by user_id."""
    return app.Table(
        "business_refs",
        help="which charge holds a business_ref, by user_id/business_ref",
        key_type=str,
        value_type=dict,
        **options,
    )
