"""What waits for a charge: its row, as it is after one thing more or less.

Pure: what comes in is not changed.
"""

from __future__ import annotations

import logging
from typing import Final

from msgspec.structs import replace

from streamsocial_billing.domain.gateway_events import GatewayEvent
from streamsocial_billing.payments.record_outcome import Row
from tables.awaited_charges import AwaitedCharge
from tables.payments import payment_key

logger = logging.getLogger(__name__)

MOST_WAITING: Final = 100
"""Held refunds, and events, that one charge's row lists: a row must not grow beyond a record."""


def awaited_row(user_id: str, charge_id: str, waiting: AwaitedCharge) -> Row:
    """The row; where nothing waits any more there is none."""
    newer = waiting.keys() - AwaitedCharge.__annotations__  # of a release that lets more things wait
    anything = waiting["refunds"] or waiting["told"] or waiting["refunded_minor"] or newer
    return Row("awaited_charges", payment_key(user_id, charge_id), waiting if anything else None)


def with_refund(waiting: AwaitedCharge | None, payment_id: str) -> AwaitedCharge | None:
    """With a held refund; None: it is listed, or finds no room and is looked at by its own triggers alone."""
    row = _copy(waiting)
    if payment_id in row["refunds"] or len(row["refunds"]) >= MOST_WAITING:
        return None
    row["refunds"] = [*row["refunds"], payment_id]
    return row


def without_refund(waiting: AwaitedCharge | None, payment_id: str) -> AwaitedCharge | None:
    """Without a refund that waits no longer; None: it is not listed."""
    row = _copy(waiting)
    if payment_id not in row["refunds"]:
        return None
    row["refunds"] = [one for one in row["refunds"] if one != payment_id]
    return row


def with_report(waiting: AwaitedCharge | None, report: GatewayEvent, charge_id: str) -> AwaitedCharge | None:
    """With what was reported of a charge that is not there yet; None: there is no room for it."""
    row = _copy(waiting)
    if len(row["told"]) >= MOST_WAITING:
        logger.error(
            "%s/%s: over %d refunds at the gateway wait for this charge, %s is left to reconciliation",
            report.user_id, charge_id, MOST_WAITING, report.gateway_ref, extra={"payment_id": charge_id},
        )  # fmt: skip
        return None
    row["told"] = [*row["told"], *(one.as_json() for one in _as_earlier_releases_read(report))]
    return row


def without_money(waiting: AwaitedCharge) -> AwaitedCharge:
    """With the refunds alone: what was reported, and what went back, is booked now."""
    row = _copy(waiting)
    row["told"], row["refunded_minor"] = [], 0
    return row


def reports_of(waiting: AwaitedCharge) -> list[GatewayEvent]:
    """What was reported of the charge meanwhile, in that order."""
    return [GatewayEvent.from_json(one) for one in waiting["told"]]


def with_refunded(waiting: AwaitedCharge | None, amount_minor: int) -> AwaitedCharge:
    """With so much more of the charge that went back already (less: came back); minor units."""
    row = _copy(waiting)
    row["refunded_minor"] += amount_minor
    return row


def _copy(waiting: AwaitedCharge | None) -> AwaitedCharge:
    return {"refunds": [], "told": [], "refunded_minor": 0} if waiting is None else waiting.copy()


def _as_earlier_releases_read(report: GatewayEvent) -> list[GatewayEvent]:
    """Without the field that they do not know: after an upgrade a task may come back to one for a while."""
    if not report.returned_minor:
        return [report]
    back = replace(report, status="declined", amount_minor=report.returned_minor, returned_minor=0)
    return [replace(report, returned_minor=0), back]
