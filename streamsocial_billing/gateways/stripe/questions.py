"""What Stripe is asked: by an intent's id, by our reference, page by page; and to cancel an intent."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import stripe

from streamsocial_billing.domain.gateway_calls import Absent, Ambiguous, Answer, Found, Query
from streamsocial_billing.gateways.stripe import shapes as stripe_shapes
from streamsocial_billing.gateways.stripe.intents import (
    by_intent,
    customer_of,
    found_in_intent,
    intent_in_error,
    is_intent,
)

PAGE: Final = 100
CLOCK_SKEW_S: Final = 300
Row = dict[str, Any]


class Questions:
    """Asks over `client`; what the SDK raises comes through."""

    def __init__(self, client: stripe.StripeClient) -> None:
        self._client = client

    async def find(self, query: Query) -> Answer:
        """An intent by its id. Else by our reference: the search, which may lag, then the list.

        Refunds: the list of their charge.
        """
        if query.intent is not None:
            return await self._intent(query.intent)
        if query.action == "charge":
            rows = await self._search(query)
            found = answer_of_rows(query, rows)
            if isinstance(found, Found):
                return found
        kind = "intent" if _wants_intent(query) else query.action
        rows = [
            row async for row in self.rows(kind, _narrowed(query))
            if stripe_shapes.metadata_of(row).get("ref") == query.idempotency_key
        ]  # fmt: skip
        return answer_of_rows(query, rows)

    async def cancel(self, query: Query) -> Answer:
        """What the intent is after it was asked to be canceled.

        No key of ours: the intent's status makes a repeat harmless, and a kept refusal would be old news.
        """
        intent = query.intent
        if intent is None:
            raise ValueError("a cancellation names its intent")
        try:
            made = await self._client.v1.payment_intents.cancel_async(
                intent, {"cancellation_reason": "abandoned"}
            )
        except stripe.InvalidRequestError as error:  # it is over, or cannot be canceled now: it says which
            body = error.json_body if isinstance(error.json_body, dict) else {}
            there = intent_in_error(stripe_shapes.error_of(body))
            return await self._intent(intent) if there is None else _judged(intent, dict(there))
        return _judged(intent, raw(made))

    async def _intent(self, intent: str) -> Answer:
        try:
            made = await self._client.v1.payment_intents.retrieve_async(intent)
        except stripe.InvalidRequestError as error:
            if error.http_status == 404:
                return Absent()
            raise
        return _judged(intent, raw(made))

    async def _search(self, query: Query) -> list[Row]:
        """What the search knows; it is not there in every region (India), so a refusal says nothing."""
        asked: Any = {"query": f"metadata['ref']:'{query.idempotency_key}'"}
        try:
            if _wants_intent(query):
                rows = raw(await self._client.v1.payment_intents.search_async(asked)).get("data")
            else:
                rows = raw(await self._client.v1.charges.search_async(asked)).get("data")
        except stripe.InvalidRequestError:
            return []
        return rows if isinstance(rows, list) else []

    async def rows(self, kind: str, params: dict[str, Any]) -> AsyncIterator[Row]:
        """Every row, page by page."""
        v1 = self._client.v1
        lists: dict[str, Callable[[Any], Awaitable[stripe.StripeObject]]] = {
            "charge": v1.charges.list_async, "refund": v1.refunds.list_async,
            "dispute": v1.disputes.list_async, "intent": v1.payment_intents.list_async,
        }  # fmt: skip
        asked = {"limit": PAGE, **params}
        while True:
            page = raw(await lists[kind](asked))
            rows = page["data"]
            for row in rows:
                yield row
            if not page.get("has_more") or not rows:
                return
            asked = {**asked, "starting_after": rows[-1]["id"]}


def answer_of_rows(query: Query, rows: list[Row]) -> Answer:
    """What the rows under our reference say; an intent that moved money, or may, counts before others."""
    if not _wants_intent(query):
        return stripe_shapes.answer_of_list(query, rows)
    found = [one for one in map(found_in_intent, rows) if one is not None]
    for status in ("succeeded", "uncaptured", "pending", "declined"):
        for one in found:
            if one.status == status:
                return one
    return Ambiguous("bad_reply") if rows else Absent()


def raw(made: stripe.StripeObject) -> Row:
    """The body as it came."""
    response = made.last_response
    data = getattr(response, "data", None)
    if not isinstance(data, dict):
        raise ValueError("a reply without a body")
    return data


def _judged(intent: str, said: Row) -> Answer:
    found = found_in_intent(said)
    return found if found is not None and found.gateway_ref == intent else Ambiguous("bad_reply")


def _wants_intent(query: Query) -> bool:
    return query.action == "charge" and by_intent(query.payment_method)


def _narrowed(query: Query) -> dict[str, Any]:
    """As little of the list as can hold it."""
    created = {"gte": query.since_ms // 1000 - CLOCK_SKEW_S}
    if query.until_ms is not None:
        created["lt"] = -(-query.until_ms // 1000) + CLOCK_SKEW_S
    asked: dict[str, Any] = {"created": created}
    if query.charge_ref is not None:
        asked["payment_intent" if is_intent(query.charge_ref) else "charge"] = query.charge_ref
    if _wants_intent(query) and query.payment_method is not None:
        asked["customer"] = customer_of(query.payment_method)
    return asked
