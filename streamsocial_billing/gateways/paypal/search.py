"""Reads PayPal's transaction search: windows of time, pages, rows.

It takes at most 31 days a question, goes three years back, and refuses a window with more than 10 000 rows
(developer.paypal.com/docs/api/transaction-search/v1): such a window is halved.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Final

from streamsocial_billing.domain.foreign_text import reference_in
from streamsocial_billing.domain.gateway_calls import Movement, Owner
from streamsocial_billing.domain.money import exponent_of
from streamsocial_billing.domain.references import our_reference
from streamsocial_billing.gateways.base import MAX_LISTED_MINOR, ListFailed, check_writable, unreadable
from streamsocial_billing.gateways.moved import DISPUTE_WON, paypal_kind
from streamsocial_billing.gateways.paypal.own_fields import number_of, words_of

LONGEST_S: Final = 31 * 86_400
LEAST_S: Final = 60
REACH_S: Final = 3 * 365 * 86_400
FIRST_OF_QUESTION_S: Final = 6 * 3600
"""A payment is looked for near its own time first, in windows that grow."""

AskPage = Callable[[datetime, datetime, int], Awaitable[dict[str, Any]]]
"""One page of a window; raises TooLarge, ListFailed."""

_KINDS: Final = frozenset({"charge", "refund", "dispute", DISPUTE_WON})
_STATUSES: Final = {"S": "succeeded", "F": "succeeded", "V": "succeeded", "D": "failed", "P": "pending"}
"""F, V: given back in part, or all of it, later: by movements of their own."""


NOBODY: Final = Owner("", "", "")
"""The reference alone stands there: whose it is our books know."""


class TooLarge(Exception):
    """Raised when a window has more rows than PayPal lists (RESULTSET_TOO_LARGE)."""


async def search(
    ask: AskPage, since_ms: int, until_ms: int, now_ms: int, first_s: int = LONGEST_S
) -> AsyncIterator[Movement]:
    """Every movement made in [since_ms, until_ms), each once, oldest window first; raises ListFailed.

    `now_ms` bounds how far back it asks, `first_s` is the first window's length: each next one may be twice
    as long, up to 31 days.
    """
    start = max(since_ms // 1000, now_ms // 1000 - REACH_S)
    end, width = -(-until_ms // 1000), first_s
    while start < end:
        stop = min(end, start + width)
        try:
            window = await _window(ask, start, stop)
        except TooLarge:
            if stop - start <= LEAST_S:
                at = datetime.fromtimestamp(start, UTC).isoformat()
                raise ListFailed(
                    f"PayPal does not list the transactions of the minute from {at}: they are too many"
                ) from None
            width = max(LEAST_S, (stop - start) // 2)
            continue
        for moved in window:
            if moved.status == "unreadable" or since_ms <= moved.created_ms < until_ms:
                yield moved
        start, width = stop, min(LONGEST_S, width * 2)


async def _window(ask: AskPage, start: int, stop: int) -> list[Movement]:
    """The movements of [start, stop) in seconds; at most 10 000, as PayPal lists no more."""
    bounds = datetime.fromtimestamp(start, UTC), datetime.fromtimestamp(stop, UTC)
    found: list[Movement] = []
    page, pages = 1, 1
    while page <= pages:
        reply = await ask(*bounds, page)
        pages, page = _pages(reply), page + 1
        for row in _rows(reply):
            moved = movement_of(row)
            if moved is None:
                continue
            if moved.status == "unreadable" or start * 1000 <= moved.created_ms < stop * 1000:
                found.append(moved)
    return found


def _pages(reply: dict[str, Any]) -> int:
    pages = reply.get("total_pages", 1)
    if type(pages) is not int:
        raise ListFailed("PayPal's list cannot be read: total_pages is not a number")
    return pages


def _rows(reply: dict[str, Any]) -> list[Any]:
    rows = reply.get("transaction_details", [])
    if not isinstance(rows, list):
        raise ListFailed("PayPal's list cannot be read: transaction_details is not a list")
    return rows


def movement_of(row: Any) -> Movement | None:
    """One row; None for what is neither charge, refund nor dispute (moved.paypal_kind says which is what).

    Raises ListFailed where a row of ours is not readable; one of others comes as `unreadable` then.
    """
    info = row.get("transaction_info") if isinstance(row, dict) else None
    if not isinstance(info, dict):
        return unreadable(None, "charge", None, 0)
    ref = our_reference(info.get("invoice_id"), info.get("custom_field"))
    try:
        return _movement(info, ref)
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        if ref is not None:
            name = info.get("transaction_id")
            raise ListFailed(f"the transaction {name} of PayPal cannot be read") from error
    amount = info.get("transaction_amount")
    currency = amount.get("currency_code") if isinstance(amount, dict) else None
    code = str(info.get("transaction_event_code"))
    kind = paypal_kind(code, 1) or paypal_kind(code, -1)
    if kind is None or kind not in _KINDS:
        return None
    charge = None if kind == "charge" else _charge_ref(info)
    return unreadable(info.get("transaction_id"), kind, currency, 0, charge)


def _movement(info: dict[str, Any], ref: str | None) -> Movement | None:
    code = info["transaction_event_code"]
    if not isinstance(code, str):
        raise TypeError("transaction_event_code")
    if not _KINDS & {paypal_kind(code, 1), paypal_kind(code, -1)}:
        return None  # a hold, an authorization, ...: it need not be readable
    minor, currency = _minor(info["transaction_amount"])
    kind = paypal_kind(code, minor)
    if kind is None or kind not in _KINDS:
        return None
    status = _STATUSES.get(info["transaction_status"])
    if status is None:
        raise ValueError("transaction_status")
    if kind in ("refund", "dispute") and info["transaction_status"] == "V":  # what it took came back to us
        status = "failed"
    if reference_in(info["transaction_id"]) is None:
        raise TypeError("transaction_id")
    created = datetime.fromisoformat(info["transaction_initiation_date"])
    if created.tzinfo is None:
        created = created.replace(tzinfo=UTC)
    words = None if ref is None else words_of(info.get("custom_field"), info.get("invoice_id"))
    if words is None or words.ref != ref:
        words = NOBODY
    charge = None if kind == "charge" else _charge_ref(info)
    if charge is not None and reference_in(charge) is None:
        raise ValueError("paypal_reference_id")
    check_writable(currency, words.payment_id, words.user_id)
    return Movement(
        gateway_ref=info["transaction_id"], kind=kind, status=status, amount_minor=abs(minor),
        currency=currency[:20], created_ms=int(created.timestamp() * 1000), ref=ref,
        payment_id=words.payment_id or None, user_id=words.user_id or None, charge_ref=charge,
        fee_minor=_fee(info, currency),
    )  # fmt: skip


def _minor(money: Any) -> tuple[int, str]:
    """Signed minor units with the currency; a code that nobody here knows counts two digits."""
    currency = money["currency_code"]
    if not isinstance(currency, str):
        raise TypeError("transaction_amount")
    exponent = exponent_of(currency.upper())
    minor = number_of(money["value"]).scaleb(2 if exponent is None else exponent)
    if minor != int(minor) or abs(minor) > MAX_LISTED_MINOR:
        raise ValueError("transaction_amount")
    return int(minor), currency.upper()


def _fee(info: dict[str, Any], currency: str) -> int | None:
    if info.get("fee_amount") is None:
        return None
    fee, of = _minor(info["fee_amount"])
    return abs(fee) if of == currency else None


def _charge_ref(info: dict[str, Any]) -> str | None:
    """The transaction that a refund, a dispute or its end refers to."""
    said = info.get("paypal_reference_id")
    of_transaction = info.get("paypal_reference_id_type") in (None, "TXN")
    return said if of_transaction and isinstance(said, str) and said else None
