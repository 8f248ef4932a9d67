"""A gateway that has a list and answers questions, and charges nobody."""

from __future__ import annotations

from collections.abc import AsyncIterator

from streamsocial_billing.domain.gateway_calls import (
    Absent,
    Answer,
    ChargeRequest,
    Found,
    Movement,
    NotSent,
    Outcome,
    Query,
    RefundRequest,
    Traits,
)


class ListedGateway:
    """A gateway that is only listed and asked."""

    def __init__(self, name: str, movements: list[Movement]) -> None:
        self.name = name
        self.account = f"acct_{name}"
        self.traits = Traits(key_safe_window_s=64_800, consistency_delay_s=0)
        self.listed = movements
        self.questions = 0

    async def start(self) -> None:
        """Nothing to make ready."""

    async def close(self) -> None:
        """Nothing to give back."""

    async def charge(self, request: ChargeRequest, *, timeout_s: float) -> Outcome:
        """Refused: nobody charges here."""
        return NotSent("only_listed")

    async def refund(self, request: RefundRequest, *, timeout_s: float) -> Outcome:
        """Refused."""
        return NotSent("only_listed")

    async def find(self, query: Query, *, timeout_s: float) -> Answer:
        """By our reference."""
        self.questions += 1
        for one in self.listed:
            if one.ref == query.idempotency_key:
                status = "declined" if one.status == "failed" else one.status
                return Found(one.gateway_ref, status, None, one.amount_minor, one.currency, one.user_id)
        return Absent()

    async def movements(self, since_ms: int, until_ms: int) -> AsyncIterator[Movement]:
        """All of the list that lies in the window."""
        for one in self.listed:
            if since_ms <= one.created_ms < until_ms:
                yield one
