"""The control: the payments program on plain Faust, as its documentation says for exactly once.

The same topics, records, decisions, gateway as the product; no layer. What it has not got: named points, a
clock of its own, a resolver. A payment whose outcome is unknown is tried again inside the handler until it is
known, so that nothing of that is held against it.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import faust

from streamsocial_billing.cli.commands import the_settings
from streamsocial_billing.domain.charge_state import charge_state_after
from streamsocial_billing.domain.decision import (
    DEDUP_RETENTION_MS,
    Decision,
    Execute,
    Reject,
    Replay,
    decide,
)
from streamsocial_billing.domain.events import ENCODER, PaymentEvent
from streamsocial_billing.domain.foreign_fields import BadInput
from streamsocial_billing.domain.gateway_calls import ChargeRequest
from streamsocial_billing.domain.known import Received
from streamsocial_billing.domain.outcomes import Called, Verdict, verdict
from streamsocial_billing.domain.payment_entry import first_entry
from streamsocial_billing.domain.results import ChargeResult, payment_metric
from streamsocial_billing.domain.times import now_ms
from streamsocial_billing.gateways.base import call_until
from streamsocial_billing.gateways.simulated import SimulatedGateway
from streamsocial_billing.settings import DEAD_LETTERS, METRICS, PAYMENTS, RESULTS, Settings
from tables.payments import payment_key
from torture.worker import ADDED_TOPIC, VARIABLE

AGAIN_AFTER_S: Final = 0.5


def plain_app(settings: Settings) -> Any:
    """A plain Faust app over the topics of the product."""
    return faust.App(
        settings.app_id, broker=settings.broker, store="rocksdb://", processing_guarantee="exactly_once",
        broker_session_timeout=float(settings.session_timeout_s),
        broker_heartbeat_interval=settings.session_timeout_s / 4, topic_partitions=settings.partitions,
        topic_replication_factor=settings.replication or 1, topic_disable_leader=True,
        consumer_auto_offset_reset="earliest",
        producer_max_request_size=4 * 1024 * 1024, worker_redirect_stdouts=False,
    )  # fmt: skip


class Plain:
    """What the product's agent does, on Faust's own topics with Faust's own tables."""

    def __init__(self, app: Any, settings: Settings, gateway: SimulatedGateway) -> None:
        self._settings = settings
        self._gateway = gateway
        self._results = app.topic(settings.topic(RESULTS), value_serializer="raw")
        self._metrics = app.topic(settings.topic(METRICS), value_serializer="raw")
        self._dead_letters = app.topic(settings.topic(DEAD_LETTERS), value_serializer="raw")
        # as the product declares them, but for the type of the values: plain Faust takes no TypedDict
        self._charges, self._payments = (app.Table(name, key_type=str) for name in ("charges", "payments"))

    async def handle(self, event: Any) -> None:
        """One record of `payments`: a result with its metric, or a dead letter."""
        message, at_ms = event.message, now_ms()
        source = {"topic": message.topic, "partition": message.partition, "offset": message.offset}
        try:
            payment = PaymentEvent.from_bytes(message.value, key=message.key, now_ms=at_ms)
        except BadInput as bad:
            place = f"{message.topic}/{message.partition}/{message.offset}"
            headers = {"source": place.encode(), "reason": bad.reason.encode()}
            await self._dead_letters.send(key=message.key, value=message.value or b"", headers=headers)
            return
        entry = self._payments.get(payment_key(payment.user_id, payment.payment_id))
        decision = decide(
            payment, entry, now_ms=at_ms, appended_ms=int(message.timestamp * 1000),
            dedup_retention_ms=DEDUP_RETENTION_MS, configured_gateways=frozenset({"simulated"}),
            actions=frozenset({"charge"}),
        )  # fmt: skip
        await self._answer(payment, decision, source, at_ms)

    async def _answer(
        self, payment: PaymentEvent, decision: Decision, source: Mapping[str, Any], at_ms: int
    ) -> None:
        replayed, attempts = False, 0
        if isinstance(decision, Execute):
            found, attempts = await self._charge(payment, decision)
            called = Called(found, self._gateway.account, attempts)
            received = Received(payment, dict(source), at_ms)  # type: ignore[arg-type]
            self._payments[payment_key(payment.user_id, payment.payment_id)] = first_entry(
                received, called, at_ms
            )
        elif isinstance(decision, Replay):
            found, replayed = Verdict(decision.status, decision.reason, decision.gateway_ref), True
            attempts = decision.attempts
        elif isinstance(decision, Reject):
            found = Verdict("rejected", decision.reason)
        else:  # it stores final outcomes of charges alone
            raise TypeError(f"the control never decides {decision}")
        await self._write(
            payment, found, replayed=replayed, attempts=attempts, source=source, at_ms=at_ms
        )

    async def _charge(self, payment: PaymentEvent, decision: Execute) -> tuple[Verdict, int]:
        """Call until the outcome is known."""
        request = ChargeRequest(
            idempotency_key=decision.idempotency_key, user_id=payment.user_id, payment_id=payment.payment_id,
            fingerprint=decision.fingerprint, amount_minor=payment.amount_minor, currency=payment.currency,
            payment_method=payment.payment_method,
        )  # fmt: skip
        await self._gateway.start()
        made = 0
        while True:
            outcome, attempts, _ = await call_until(
                self._gateway.charge, request, deadline_s=self._settings.gateway_deadline_s,
                clock=time.monotonic, sleep=asyncio.sleep,
            )  # fmt: skip
            made, found = made + attempts, verdict(outcome)
            if found.status != "unknown":
                return found, made
            await asyncio.sleep(AGAIN_AFTER_S)

    async def _write(
        self, payment: PaymentEvent, found: Verdict, *, replayed: bool, attempts: int,
        source: Mapping[str, Any], at_ms: int,
    ) -> None:  # fmt: skip
        result = ChargeResult(
            payment_id=payment.payment_id, user_id=payment.user_id, action=payment.action,
            product=payment.product, status=found.status, reason=found.reason, replayed=replayed,
            amount_minor=payment.amount_minor, currency=payment.currency, gateway=payment.gateway,
            gateway_ref=found.gateway_ref, attempt=attempts, requested_at=payment.requested_at,
            processed_at=at_ms, source=dict(source),  # type: ignore[arg-type]
        )  # fmt: skip
        self._charges[payment.user_id] = charge_state_after(self._charges.get(payment.user_id), result)
        await self._results.send(key=payment.user_id.encode(), value=ENCODER.encode(result))
        await self._metrics.send(key=payment.product.encode(), value=payment_metric(
            payment_id=payment.payment_id, product=payment.product, action=payment.action,
            status=found.status, replayed=replayed, amount_minor=payment.amount_minor,
            currency=payment.currency, gateway=payment.gateway, gateway_ms=None, at=at_ms,
        ))  # fmt: skip


def main() -> None:
    """Build the app; then it is a Faust command."""
    spec = json.loads(os.environ[VARIABLE])
    Path(spec["orders"]).unlink(missing_ok=True)
    settings = the_settings()
    app = plain_app(settings)
    plain = Plain(app, settings, SimulatedGateway(settings.simulator_url))

    @app.agent(app.topic(settings.topic(PAYMENTS), key_serializer="raw", value_serializer="raw"))  # type: ignore[untyped-decorator]
    async def bill(stream: Any) -> None:
        async for event in stream.events():
            await plain.handle(event)

    if spec["added_topic"]:

        @app.agent(app.topic(settings.topic(ADDED_TOPIC), value_serializer="raw"))  # type: ignore[untyped-decorator]
        async def take(stream: Any) -> None:
            async for _ in stream.events():
                pass

    @app.on_partitions_assigned.connect  # type: ignore[untyped-decorator]
    async def say(_: Any, assigned: Any, **__: Any) -> None:
        for partition in sorted({one.partition for one in assigned if one.topic == settings.topic(PAYMENTS)}):
            print(f"task {partition} runs, on plain Faust", flush=True)

    app.main()


if __name__ == "__main__":
    main()
