"""Our leg as a list, gateways whose lists are given as they would come over the wire: no Kafka, no HTTP."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import stripe
from support.planted_books import AS_OF

from streamsocial_billing.domain.gateway_calls import Query
from streamsocial_billing.gateways.paypal.client import PayPalGateway
from streamsocial_billing.gateways.stripe.client import StripeGateway
from streamsocial_billing.gateways.stripe.questions import Questions
from streamsocial_billing.reconciliation.results import Cut, fold_results, result_row
from streamsocial_billing.reconciliation.store import ADD_A, insert_many


@dataclass
class ListedBooks:
    """These results of ours, and nothing under way."""

    results: Sequence[bytes]
    at_ms: int = AS_OF

    def take_cut(self) -> Cut:
        """All of it."""
        return Cut({}, 1, self.at_ms, newest_ms=self.at_ms)

    def total(self, cut: Cut) -> int:
        """How many there are."""
        return len(self.results)

    def load(self, db: sqlite3.Connection, cut: Cut) -> None:
        """Into the store, as OurBooks does."""
        rows = (result_row(value, "here") for value in self.results)
        insert_many(db, ADD_A, (row for row in rows if row is not None))
        fold_results(db)


class ListedStripe(StripeGateway):
    """The adapter, over rows as Stripe's API has them; `kind` is charge, refund or dispute."""

    traits = replace(StripeGateway.traits, consistency_delay_s=0)

    def __init__(self, rows: dict[str, list[Any]]) -> None:
        super().__init__("sk_test_1", "http://127.0.0.1:1", account="acct_1")
        self.listed = rows
        self._questions = ListedQuestions(self._client, rows)

    async def start(self) -> None:
        """Nobody to ask."""


class ListedQuestions(Questions):
    """What Stripe is asked, answered from the rows; the search knows nothing."""

    def __init__(self, client: stripe.StripeClient, rows: dict[str, list[Any]]) -> None:
        super().__init__(client)
        self._listed = rows

    async def rows(self, kind: str, params: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """Those of a kind, whatever is asked."""
        for row in self._listed.get(kind, []):
            yield row

    async def _search(self, query: Query) -> list[dict[str, Any]]:
        return []


class ListedPayPal(PayPalGateway):
    """The adapter, over rows of the transaction search."""

    traits = replace(PayPalGateway.traits, consistency_delay_s=0)

    def __init__(self, rows: Any) -> None:
        super().__init__("client", "secret", "http://127.0.0.1:1")
        self.listed = rows

    async def start(self) -> None:
        """No connection."""

    async def _transactions(self, start: datetime, stop: datetime, page: int) -> dict[str, Any]:
        return {"total_pages": 1, "transaction_details": self.listed}
