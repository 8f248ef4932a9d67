"""The list of what waits for a charge."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any, Final

from streamsocial_billing.domain.gateway_events import GatewayEvent
from streamsocial_billing.payments.unit_writer import Books
from tables.awaited_charges import AwaitedCharge
from tables.payments import payment_key

logger = logging.getLogger(__name__)

MOST_WAITING: Final = 100
"""Held refunds, and events, that one charge's row lists: a row must not grow beyond a record."""


class Awaiting:
    """Reads, changes a user's row of a charge, inside the running unit."""

    def __init__(self, books: Books) -> None:
        self._books = books

    def anything(self, user_id: str, charge_id: str) -> bool:
        """True if something waits for the charge."""
        return payment_key(user_id, charge_id) in self._books.awaited_charges

    def add_refund(self, user_id: str, charge_id: str, payment_id: str) -> None:
        """List a held refund; one that finds no room is looked at by its own nudges alone."""
        row = self._row(user_id, charge_id)
        if payment_id not in row["refunds"] and len(row["refunds"]) < MOST_WAITING:
            row["refunds"].append(payment_id)
            self._put(user_id, charge_id, row)

    def drop_refund(self, user_id: str, charge_id: str, payment_id: str) -> None:
        """It waits no longer."""
        row = self._row(user_id, charge_id)
        if payment_id in row["refunds"]:
            row["refunds"].remove(payment_id)
            self._put(user_id, charge_id, row)

    def add_told(self, told: GatewayEvent, charge_id: str) -> None:
        """List what was told of a charge that is not there yet."""
        row = self._row(told.user_id, charge_id)
        if len(row["told"]) >= MOST_WAITING:
            logger.error(
                "%s/%s: over %d refunds at the gateway wait for this charge, %s is left to reconciliation",
                told.user_id, charge_id, MOST_WAITING, told.gateway_ref, extra={"payment_id": charge_id},
            )  # fmt: skip
            return
        row["told"].extend(one.as_json() for one in _as_earlier_releases_read(told))
        self._put(told.user_id, charge_id, row)

    def take_told(self, user_id: str, charge_id: str) -> list[GatewayEvent]:
        """What was told of the charge meanwhile, in that order; it is listed no longer."""
        row = self._row(user_id, charge_id)
        if not row["told"]:
            return []
        names = GatewayEvent.__dataclass_fields__  # a newer release may have written more
        told = [GatewayEvent(**{n: v for n, v in one.items() if n in names}) for one in row["told"]]
        row["told"] = []
        self._put(user_id, charge_id, row)
        return told

    def add_refunded(self, user_id: str, charge_id: str, amount_minor: int) -> None:
        """So much of the charge went back already; minor units."""
        row = self._row(user_id, charge_id)
        row["refunded_minor"] += amount_minor
        self._put(user_id, charge_id, row)

    def take_back(self, user_id: str, charge_id: str, amount_minor: int) -> None:
        """So much of what went back has come back; nothing where the charge is not waited for any more."""
        row = self._row(user_id, charge_id)
        if row["refunded_minor"]:
            row["refunded_minor"] -= amount_minor
            self._put(user_id, charge_id, row)

    def take_refunded(self, user_id: str, charge_id: str) -> int:
        """What went back before the charge was known; minor units."""
        row = self._row(user_id, charge_id)
        refunded, row["refunded_minor"] = row["refunded_minor"], 0
        if refunded:
            self._put(user_id, charge_id, row)
        return refunded

    def refunds(self, user_id: str, charge_id: str) -> list[str]:
        """The payment_ids of the listed refunds."""
        return self._row(user_id, charge_id)["refunds"]

    def _row(self, user_id: str, charge_id: str) -> AwaitedCharge:
        row: Any = self._books.awaited_charges.get(payment_key(user_id, charge_id))
        return row if row is not None else {"refunds": [], "told": [], "refunded_minor": 0}

    def _put(self, user_id: str, charge_id: str, row: AwaitedCharge) -> None:
        key = payment_key(user_id, charge_id)
        if row["refunds"] or row["told"] or row["refunded_minor"]:
            self._books.awaited_charges[key] = row
        elif key in self._books.awaited_charges:
            del self._books.awaited_charges[key]


def _as_earlier_releases_read(told: GatewayEvent) -> list[GatewayEvent]:
    """Without the field that they do not know: after an upgrade a task may come back to one for a while."""
    if not told.returned_minor:
        return [told]
    back = replace(told, status="declined", amount_minor=told.returned_minor, returned_minor=0)
    return [replace(told, returned_minor=0), back]
