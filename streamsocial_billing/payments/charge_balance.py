"""What a charge gave back, as it changes: in its entry or, while that is unknown, in what waits for it."""

from __future__ import annotations

import logging

from streamsocial_billing.domain.refund_rules import moved
from streamsocial_billing.payments.record_outcome import Row, changed_row, entry_row
from streamsocial_billing.payments.unit_writer import UnitWriter
from streamsocial_billing.payments.waiting import awaited_row, with_refunded
from tables.awaited_charges import AwaitedCharge
from tables.payments import Entry, is_full, is_small

logger = logging.getLogger(__name__)


def went_back(
    writer: UnitWriter, user_id: str, charge_id: str, charge: Entry | None, left: AwaitedCharge | None,
    *, back_minor: int, held_minor: int = 0,
) -> Row:  # fmt: skip
    """A refund ended: what it held is free, what it gave back counts, now or when the charge comes.

    `left`: what waits for the charge now, where that has changed in this step.
    """
    if not (is_full(charge) or is_small(charge)):
        waiting = writer.awaited(user_id, charge_id) if left is None else left
        return awaited_row(user_id, charge_id, with_refunded(waiting, back_minor))
    if charge["refunded_minor"] + back_minor > charge["amount_minor"]:
        logger.error(
            "%s/%s: more went back than was captured", user_id, charge_id, extra={"payment_id": charge_id}
        )
    return changed_row(user_id, charge_id, moved(charge, held_minor=held_minor, back_minor=back_minor))


def came_back(writer: UnitWriter, user_id: str, charge_id: str, amount_minor: int) -> list[Row]:
    """What had gone back is here again: the charge has room for it, and holds its business_ref."""
    charge = writer.entry(user_id, charge_id)
    if not (is_full(charge) or is_small(charge)):
        waiting = writer.awaited(user_id, charge_id)
        if waiting is None or not waiting["refunded_minor"]:
            return []  # the charge is not waited for any more
        return [awaited_row(user_id, charge_id, with_refunded(waiting, -amount_minor))]
    changed = moved(charge, back_minor=-amount_minor)
    held, other = writer.held_again(user_id, charge_id, changed)
    if other is not None:
        logger.error(
            "%s: %s was paid by %s, whose refund came back, and by %s since: a person has to look",
            user_id, changed["business_ref"], charge_id, other, extra={"payment_id": charge_id},
        )  # fmt: skip
    return [entry_row(user_id, charge_id, changed), *held]
