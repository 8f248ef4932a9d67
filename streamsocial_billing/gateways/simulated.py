"""Client of the simulated gateway: charges, and intents for the test methods that wait.

Foreign exceptions stop here: `http.EXCEPTIONS` is the one table that maps them, `stripe_shapes.STATUSES`
the one that maps replies.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import orjson
from yarl import URL

from streamsocial_billing.domain.gateway_calls import (
    Absent,
    Ambiguous,
    Answer,
    Cancellation,
    ChargeRequest,
    Movement,
    NotSent,
    Outcome,
    Query,
    RefundRequest,
    Traits,
)
from streamsocial_billing.gateways.base import ListFailed
from streamsocial_billing.gateways.bodies import MAX_PAGE_BYTES, read_reply
from streamsocial_billing.gateways.http import (
    CONNECT_SHARE,
    EXCEPTIONS,
    Pooled,
    base_url,
    call_timeout,
    json_object,
    outcome_of_exception,
    retry_after_s,
)
from streamsocial_billing.gateways.kept_lines import KeptLines
from streamsocial_billing.gateways.simulator.intents import METHODS
from streamsocial_billing.gateways.stripe import intents
from streamsocial_billing.gateways.stripe import shapes as stripe_shapes

__all__ = ["EXCEPTIONS", "SimulatedGateway", "outcome_of_exception", "outcome_of_reply", "retry_after_s"]

PAGE = 1000
PAGE_TIMEOUT_S = 30.0
OUT_OF_ORDER_MS = 60_000
"""The list is in the order of commits: older than this before the window, nothing of it can follow."""


class SimulatedGateway(Pooled):
    """The gateway at `url`; `max_connections` bounds the calls in flight, further ones wait their turn.

    Raises ValueError for a url that is not http(s)://host[:port].
    """

    name = "simulated"
    account = "acct_simulated"
    traits = Traits(key_safe_window_s=64_800, consistency_delay_s=2)
    """It never forgets a key; the window is that of Stripe, whose stand-in it is."""

    def __init__(self, url: str, max_connections: int = 500) -> None:
        super().__init__(max_connections)
        self._v1 = base_url(url) / "v1"
        self._urls = {"charge": self._v1 / "charges", "refund": self._v1 / "refunds"}
        self._intents = self._v1 / "payment_intents"
        urls = {**self._urls, "intent": self._intents}
        self._paths = {action: url.raw_path for action, url in urls.items()}
        self._lines = KeptLines(self._v1)

    def __str__(self) -> str:
        """What a log line calls it."""
        return f"gateway {self.name} at {self._v1.origin()}"

    async def close(self) -> None:
        """Close all connections."""
        self._lines.close()
        await super().close()

    async def charge(self, request: ChargeRequest, *, timeout_s: float) -> Outcome:
        """POST the charge, or the intent, once; see `Gateway.charge`."""
        action = "intent" if request.payment_method in METHODS else "charge"
        return await self._post(action, request, _charge_body(request), timeout_s)

    async def refund(self, request: RefundRequest, *, timeout_s: float) -> Outcome:
        """POST the refund once; see `Gateway.refund`."""
        return await self._post("refund", request, _refund_body(request), timeout_s)

    async def find(self, query: Query, *, timeout_s: float) -> Answer:
        """GET the intent whose id is known, else by `metadata.ref`: immediately consistent here."""
        if query.intent is not None:
            return await self._answer("GET", self._intents / query.intent, timeout_s, _intent_of_reply)
        by_intent = query.action == "charge" and query.payment_method in METHODS
        url = (self._intents if by_intent else self._urls[query.action]) / "search"

        def judged(status: int, reply: dict[str, Any] | None) -> Answer:
            rows = _rows(reply) if status == 200 else None
            if rows is None:
                return Ambiguous(f"http_{status}")
            return _intent_in(rows) if by_intent else stripe_shapes.answer_of_list(query, rows)

        return await self._answer("GET", url.with_query(ref=query.idempotency_key), timeout_s, judged)

    async def cancel(self, request: Cancellation, *, timeout_s: float) -> Answer:
        """POST the intent's cancellation; see `Cancels.cancel`."""
        url = self._intents / str(request.query.intent) / "cancel"
        return await self._answer("POST", url, timeout_s, _intent_of_reply)

    async def _answer(
        self, method: str, url: URL, timeout_s: float,
        judged: Callable[[int, dict[str, Any] | None], Answer],
    ) -> Answer:  # fmt: skip
        async with self._place(timeout_s) as left_s:
            if left_s is None:
                return NotSent("no_free_connection")
            try:
                return judged(*await self._ask(method, url, left_s))
            except Exception as error:
                return outcome_of_exception(error)

    async def movements(self, since_ms: int, until_ms: int) -> AsyncIterator[Movement]:
        """Charges, then refunds, each newest first."""
        for kind, url in self._urls.items():
            after: str | None = None
            while True:
                rows, more = await self._page(url, after)
                for row in rows:
                    moved = _movement(kind, row)
                    if moved.status == "unreadable" or since_ms <= moved.created_ms < until_ms:
                        yield moved
                after = str(rows[-1].get("id")) if rows else None
                if not more or stripe_shapes.created_or_0(rows[-1]) < since_ms - OUT_OF_ORDER_MS:
                    break

    async def _page(self, url: URL, after: str | None) -> tuple[list[dict[str, Any]], bool]:
        asked = url.with_query({"limit": str(PAGE)} | ({} if after is None else {"starting_after": after}))
        try:
            status, reply = await self._ask("GET", asked, PAGE_TIMEOUT_S)
        except Exception as error:
            why = outcome_of_exception(error).reason
            raise ListFailed(f"{self}: the list could not be read ({why}); try again") from error
        rows = _rows(reply)
        if status != 200 or rows is None:
            raise ListFailed(f"{self}: the list could not be read (HTTP {status}); try again")
        return rows, bool(reply and reply.get("has_more") and rows)

    async def _ask(self, method: str, url: URL, timeout_s: float) -> tuple[int, dict[str, Any] | None]:
        async with self.opened().request(
            method, url, timeout=call_timeout(timeout_s), allow_redirects=False
        ) as response:
            return response.status, json_object(await read_reply(response.content, MAX_PAGE_BYTES))

    async def _post(
        self, action: str, request: ChargeRequest | RefundRequest, body: bytes, timeout_s: float
    ) -> Outcome:
        permits = self._permits
        if permits.free:  # nearly always
            permits.free -= 1
        else:
            began = time.monotonic()
            if not await permits.wait(timeout_s * CONNECT_SHARE):
                return NotSent("no_free_connection")
            timeout_s -= time.monotonic() - began
        try:
            if self._session is None:
                return NotSent("not_started")
            status, headers, reply = await self._lines.post(
                self._paths[action], request.idempotency_key, body, timeout_s=timeout_s,
                connect_s=timeout_s * CONNECT_SHARE,
            )  # fmt: skip
            if action == "intent" and isinstance(request, ChargeRequest):
                return intents.outcome_of_call(request, status, headers, json_object(reply))
            return outcome_of_reply(request, status, headers, reply)
        except Exception as error:
            return outcome_of_exception(error)
        finally:
            permits.leave()


def outcome_of_reply(
    request: ChargeRequest | RefundRequest, status: int, headers: Mapping[str, str], body: bytes
) -> Outcome:
    """The outcome of a reply that was read to its end."""
    return stripe_shapes.outcome_of_reply(request, status, headers, json_object(body))


def _rows(reply: dict[str, Any] | None) -> list[dict[str, Any]] | None:
    data = reply.get("data") if reply else None
    return data if isinstance(data, list) and all(isinstance(row, dict) for row in data) else None


def _intent_in(rows: list[dict[str, Any]]) -> Answer:
    """The one intent of a key."""
    return (intents.found_in_intent(rows[0]) or Ambiguous("bad_reply")) if rows else Absent()


def _intent_of_reply(status: int, reply: dict[str, Any] | None) -> Answer:
    """An intent by its id, or inside the refusal to cancel it."""
    if status == 404 and reply is not None and stripe_shapes.error_of(reply):
        return Absent()
    said = reply if status == 200 else intents.intent_in_error(stripe_shapes.error_of(reply or {}))
    found = intents.found_in_intent(said) if said else None
    return Ambiguous(f"http_{status}") if found is None else found


def _movement(kind: str, row: dict[str, Any]) -> Movement:
    try:
        return stripe_shapes.movement_of(kind, row)
    except (KeyError, TypeError, ValueError) as error:
        raise ListFailed(f"a {kind} of the simulated gateway cannot be read") from error


def _charge_body(request: ChargeRequest) -> bytes:
    return orjson.dumps(
        {
            "amount": request.amount_minor,
            "currency": request.currency,
            "payment_method": request.payment_method,
            "metadata": stripe_shapes.metadata_for(request),
        }
    )


def _refund_body(request: RefundRequest) -> bytes:
    return orjson.dumps(
        {
            "payment_intent" if intents.is_intent(request.charge_ref) else "charge": request.charge_ref,
            "amount": request.amount_minor,
            "metadata": stripe_shapes.metadata_for(request),
        }
    )
