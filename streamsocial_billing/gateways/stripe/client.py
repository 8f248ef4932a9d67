"""Client of Stripe, through its official SDK.

A saved PaymentMethod, `cus_1/pm_1`, is charged by a PaymentIntent (intents.py). Others go to the Charges API:
`tok_`, `src_`, a saved card as `cus_1/card_1`, `cus_1` for that customer's default. Our idempotency key goes
along, the SDK's own retries are off. Foreign exceptions stop at `outcome_of_error`; replies are judged by
`stripe_shapes.STATUSES`. What is asked: questions.py.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple

import stripe

from streamsocial_billing.domain.gateway_calls import (
    Absent,
    Ambiguous,
    Answer,
    Cancellation,
    ChargeRequest,
    Movement,
    NotSent,
    Outcome,
    Owner,
    Query,
    RefundRequest,
)
from streamsocial_billing.gateways.base import MIN_TRY_S, ListFailed
from streamsocial_billing.gateways.http import Pooled, base_url
from streamsocial_billing.gateways.request_shapes import newest_first
from streamsocial_billing.gateways.stripe import shapes as stripe_shapes
from streamsocial_billing.gateways.stripe.errors import outcome_of_error, question_failed
from streamsocial_billing.gateways.stripe.intents import (
    API_VERSION,
    by_intent,
    is_intent,
    outcome_of_call,
    params_for,
)
from streamsocial_billing.gateways.stripe.limits import TRAITS, not_representable
from streamsocial_billing.gateways.stripe.questions import Questions, raw
from streamsocial_billing.gateways.stripe.transport import Transport, within

logger = logging.getLogger(__name__)
# at debug the SDK logs bodies, and in them the client secret that lets anybody confirm an intent
logging.getLogger("stripe").setLevel(logging.INFO)
if os.environ.get("STRIPE_LOG") == "debug":  # it prints them itself then, past every logger
    stripe.log = "info"  # counts before the variable
    logger.warning("STRIPE_LOG=debug counts as info: bodies, which hold client secrets, are not printed")

START_TIMEOUT_S = 1.5  # comes on top of a call's deadline, as long as Stripe has not answered


class Shape(NamedTuple):
    """One form of a request: where it goes, its parameters; `intent`: a PaymentIntent is made there."""

    create: Callable[[Any, Any], Awaitable[stripe.StripeObject]]
    params: dict[str, Any]
    intent: bool = False


class StripeGateway(Pooled):
    """The account of `api_key`; with `account` given, a key of another account stops every call.

    `kinds` is what `movements` lists, for a server that has not all of it.
    Raises ValueError for a url that is not http(s)://host[:port].
    """

    name = "stripe"
    traits = TRAITS

    def __init__(
        self, api_key: str, url: str = "https://api.stripe.com", *, account: str | None = None,
        max_connections: int = 500, kinds: tuple[str, ...] = ("charge", "refund", "dispute"),
    ) -> None:  # fmt: skip
        super().__init__(max_connections)
        self._kinds = kinds
        self._url = str(base_url(url)).rstrip("/")
        transport = Transport(self.opened)
        self._client = stripe.StripeClient(
            api_key, stripe_version=API_VERSION, base_addresses={"api": self._url}, http_client=transport,
            max_network_retries=0,
        )  # fmt: skip
        self._questions = Questions(self._client)
        self._wanted = account
        self._account = account or ""
        self._asked = False
        self._wrong = False

    def __str__(self) -> str:
        """What a log line calls it."""
        return f"gateway {self.name} at {self._url}"

    @property
    def account(self) -> str:
        """The account of the key; empty, and no call is made, until Stripe or the setting told it."""
        return self._account

    async def start(self) -> None:
        """Learn whose key this is; an unreachable Stripe is asked again at the next call."""
        await super().start()
        if not self._asked:
            await self._identify(START_TIMEOUT_S)

    async def charge(self, request: ChargeRequest, *, timeout_s: float) -> Outcome:
        """POST /v1/charges, or /v1/payment_intents, once; see `Gateway.charge`.

        Releases before PaymentIntents sent what is an intent now to the Charges API, which refused it.
        """
        charged = Shape(self._client.v1.charges.create_async, {
            "amount": request.amount_minor,
            "currency": request.currency.lower(),
            "metadata": stripe_shapes.metadata_for(request),
            **_source(request.payment_method),
        })  # fmt: skip
        if not by_intent(request.payment_method):
            return await self._send(request, timeout_s, [charged])
        intent = Shape(self._client.v1.payment_intents.create_async, params_for(request), intent=True)
        return await self._send(request, timeout_s, [intent, charged])

    async def refund(self, request: RefundRequest, *, timeout_s: float) -> Outcome:
        """POST /v1/refunds once; see `Gateway.refund`."""
        return await self._send(request, timeout_s, [Shape(self._client.v1.refunds.create_async, {
            "payment_intent" if is_intent(request.charge_ref) else "charge": request.charge_ref,
            "amount": request.amount_minor,
            "metadata": stripe_shapes.metadata_for(request),
        })])  # fmt: skip

    async def find(self, query: Query, *, timeout_s: float) -> Answer:
        """By the intent's id, where it is known; else by our reference (`Questions.find`)."""
        return await self._answer(self._questions.find, query, timeout_s)

    async def cancel(self, request: Cancellation, *, timeout_s: float) -> Answer:
        """POST /v1/payment_intents/{id}/cancel; see `Cancels.cancel`."""
        return await self._answer(self._questions.cancel, request.query, timeout_s)

    async def _answer(
        self, ask: Callable[[Query], Awaitable[Answer]], query: Query, timeout_s: float
    ) -> Answer:
        try:
            async with self._place(timeout_s) as left_s:
                if left_s is None:
                    return NotSent("no_free_connection")
                with within(left_s):
                    return await ask(query)
        except Exception as error:
            return question_failed(error)

    async def owner_of(self, charge_ref: str, *, timeout_s: float) -> Owner | Absent | NotSent | Ambiguous:
        """Our words on a charge or an intent; Absent where there is none, or none of ours."""
        v1 = self._client.v1
        retrieve = v1.payment_intents.retrieve_async if is_intent(charge_ref) else v1.charges.retrieve_async
        try:
            with within(timeout_s):
                charge = await retrieve(charge_ref)
            said = stripe_shapes.metadata_of(raw(charge))
        except stripe.StripeError as error:
            return Absent() if error.http_status == 404 else question_failed(error)
        except Exception as error:
            return question_failed(error)
        words = [said.get(name) for name in ("user_id", "payment_id", "ref")]
        return Owner(*map(str, words)) if all(words) else Absent()

    async def movements(self, since_ms: int, until_ms: int) -> AsyncIterator[Movement]:
        """Charges, refunds, then disputes, each newest first."""
        created = {"gte": since_ms // 1000, "lt": -(-until_ms // 1000)}
        for kind in self._kinds:
            more = {"expand": ["data.balance_transaction"]} if kind == "charge" else {}
            try:
                async for row in self._questions.rows(kind, {"created": created, **more}):
                    moved = stripe_shapes.movement_of(kind, row)
                    if moved.status == "unreadable" or since_ms <= moved.created_ms < until_ms:
                        yield moved
            except stripe.StripeError as error:
                why = question_failed(error).reason
                raise ListFailed(f"{self}: {kind}s could not be listed ({why}); try again") from error
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                raise ListFailed(f"{self}: a {kind} cannot be read") from error

    async def _send(
        self, request: ChargeRequest | RefundRequest, timeout_s: float, shapes: list[Shape]
    ) -> Outcome:
        """`shapes`: each shape that this request ever had, the newest first."""
        unfit = not_representable(request.amount_minor, request.currency)
        if unfit is not None:
            return unfit
        async with self._place(timeout_s) as left_s:
            if left_s is None:
                return NotSent("no_free_connection")
            unknown = await self._whose(left_s)
            if unknown is not None:
                return unknown
            ends = time.monotonic() + left_s

            async def call(shape: Shape) -> tuple[Outcome, None]:
                try:
                    with within(max(ends - time.monotonic(), MIN_TRY_S)):
                        made = await shape.create(shape.params, {"idempotency_key": request.idempotency_key})
                    if shape.intent and isinstance(request, ChargeRequest):
                        return outcome_of_call(request, 200, {}, raw(made)), None
                    return stripe_shapes.outcome_of_reply(request, 200, {}, raw(made)), None
                except Exception as error:
                    return outcome_of_error(request, error, intent=shape.intent), None

            return (await newest_first(shapes, call))[0]

    async def _whose(self, timeout_s: float) -> NotSent | None:
        """Why no call may be made; None if the account is known."""
        if not self._account:
            await self._identify(timeout_s / 4)
        if self._wrong:
            return NotSent("wrong_account")
        return None if self._account else NotSent("account_unknown")

    async def _identify(self, timeout_s: float) -> None:
        """Ask Stripe; a key without the right to ask leaves the account of the setting."""
        try:
            with within(timeout_s):
                account = await self._client.v1.accounts.retrieve_current_async()
        except stripe.StripeError as error:
            self._asked = error.http_status is not None
            if not self._account:
                logger.error("%s: its account is not known (%s); set BILLING_STRIPE_ACCOUNT", self,
                             type(error).__name__)  # fmt: skip
            return
        self._asked = True
        if self._wanted not in (None, account.id):
            self._wrong = True
            logger.error("%s: the key is of %s, not of %s: no call is made", self, account.id, self._wanted)
        self._account = self._wanted or account.id


def _source(payment_method: str) -> dict[str, str]:
    customer, _, card = payment_method.partition("/")
    if not customer.startswith("cus_"):
        return {"source": payment_method}
    return {"customer": customer, "source": card} if card else {"customer": customer}
