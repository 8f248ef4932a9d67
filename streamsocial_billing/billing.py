"""The billing agent: reads payment events, asks the decision, calls the gateway, writes the unit."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from streamsocial_billing.decision import (
    DEDUP_RETENTION_MS,
    Charge,
    Open,
    Reject,
    Replay,
    after_outcome,
    charge_state_after,
    decide,
)
from streamsocial_billing.events import (
    BadInput,
    PaymentEvent,
    charge_result,
    mask_card_numbers,
    partition_of,
    payment_metric,
)
from streamsocial_billing.exactly_once import Event, RecordTooLarge, Topic, current_unit
from streamsocial_billing.gateways.base import ChargeRequest, Gateway, charge_until
from streamsocial_billing.outcomes import INTERNAL_ERROR, Verdict, verdict
from streamsocial_billing.settings import Settings
from tables.payments import PaymentEntry, payment_key

logger = logging.getLogger(__name__)

CUT_BYTES = 64 * 1024  # of a dead letter that would not fit whole (payments.md, "Bad input")


def now_ms() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class Books:
    """Where a unit writes: the topics of results, metrics, dead letters; the tables of the app."""

    results: Topic
    metrics: Topic
    dead_letters: Topic
    charges: Any
    payments: Any
    open_payments: Any

    def write(
        self, payment: "PaymentEvent | PaymentEntry", user_id: str, payment_id: str, found: Verdict, *,
        replayed: bool, resolves: bool, attempt: int, gateway_ms: int | None, source: Mapping[str, Any],
        at_ms: int,
    ) -> None:  # fmt: skip
        """One ChargeResult, its metric, the user's charge state: always these three together."""
        about = _about(payment)
        self.results.put_into_unit(user_id.encode(), charge_result(
            **about, payment_id=payment_id, user_id=user_id, status=found.status, reason=found.reason,
            replayed=replayed, gateway_ref=found.gateway_ref, attempt=attempt, processed_at=at_ms,
            source=source, resolves=resolves,
        ))  # fmt: skip
        self.metrics.put_into_unit(about["product"].encode(), payment_metric(
            payment_id=payment_id, product=about["product"], action=about["action"], status=found.status,
            replayed=replayed, amount_minor=about["amount_minor"], currency=about["currency"],
            gateway=about["gateway"], gateway_ms=gateway_ms, at=at_ms,
        ))  # fmt: skip
        self.charges[user_id] = charge_state_after(
            self.charges.get(user_id), user_id, found.status, about["amount_minor"], about["currency"],
            replayed, payment_id, at_ms,
        )  # fmt: skip

    def keep(self, user_id: str, payment_id: str, entry: PaymentEntry) -> None:
        """Store a payment's entry; an unknown one is listed among the open ones until it is settled."""
        key = payment_key(user_id, payment_id)
        self.payments[key] = entry
        if entry["next_try_at"] is not None:
            self.open_payments[key] = {"next_try_at": entry["next_try_at"]}
        elif self.open_payments.get(key) is not None:
            del self.open_payments[key]

    async def bury(self, event: Event, bad: BadInput, at_ms: int) -> None:
        """A dead letter with the original bytes; its offset commits in the same transaction."""
        value, masked = await _masked(event.value or b"")
        key, key_masked = mask_card_numbers(event.key or b"")
        headers = {
            "error": bad.detail, "reason": bad.reason,
            "source": f"{event.topic}/{event.partition}/{event.offset}", "at": str(at_ms), **_names(event),
        }  # fmt: skip
        if masked or key_masked:
            headers["masked"] = "card_number"
        try:
            self.dead_letters.put_into_unit(key or None, value, headers=headers)
        except RecordTooLarge:
            headers["length"] = str(len(value))
            self.dead_letters.put_into_unit(key or None, value[:CUT_BYTES], headers=headers)
        logger.warning("dead letter %s: %s: %s", headers["source"], bad.reason, bad.detail)


class Billing:
    """Handles one payment event at a time per user; different users run concurrently."""

    def __init__(
        self, settings: Settings, books: Books, gateways: Mapping[str, Gateway], partitions: Callable[[], int]
    ) -> None:
        self._settings = settings
        self._books = books
        self._gateways = gateways
        self._configured = frozenset(gateways)
        self._partitions = partitions

    async def charge(self, event: Event) -> None:
        """One record of `payments`: exactly one result or one dead letter."""
        at_ms = now_ms()
        try:
            payment = PaymentEvent.from_bytes(event.value, key=event.key, now_ms=at_ms)
            check_partition(event, self._partitions())
        except BadInput as bad:
            await self._books.bury(event, bad, at_ms)
            return
        key = payment_key(payment.user_id, payment.payment_id)
        decision = decide(
            payment, self._books.payments.get(key), now_ms=at_ms, appended_ms=event.timestamp,
            dedup_retention_ms=DEDUP_RETENTION_MS, configured_gateways=self._configured,
        )  # fmt: skip
        match decision:
            case Charge():
                await self._call(event, payment, decision)
            case Replay(status, reason, gateway_ref, attempts):
                self._answer(
                    event, payment, Verdict(status, reason, gateway_ref), replayed=True, attempt=attempts
                )
            case Open(status, reason, gateway_ref, attempts, entry):
                self._books.keep(payment.user_id, payment.payment_id, entry)
                self._answer(
                    event, payment, Verdict(status, reason, gateway_ref), replayed=True, attempt=attempts
                )
            case Reject(reason, _, detail):
                if detail:
                    logger.warning("%s %s: %s", reason, key, detail)
                self._answer(event, payment, Verdict("rejected", reason), replayed=False, attempt=0)

    async def _call(self, event: Event, payment: PaymentEvent, decision: Charge) -> None:
        """Call the gateway, then write outcome, entry, state; the event on the log is the durable intent."""
        first = current_unit().surely_first
        gateway = self._gateways[payment.gateway]
        request = ChargeRequest(
            decision.idempotency_key, payment.user_id, payment.payment_id, decision.fingerprint,
            payment.amount_minor, payment.currency, payment.payment_method,
        )  # fmt: skip
        found, attempts, gateway_ms = await self._outcome(gateway, request)
        at_ms = now_ms()
        self._books.keep(payment.user_id, payment.payment_id, after_outcome(
            payment, status=found.status, reason=found.reason, gateway_account=gateway.account,
            gateway_ref=found.gateway_ref, attempts=attempts, ever_ambiguous=found.ambiguous or not first,
            last_error=found.error, source=_source(event), appended_ms=event.timestamp, now_ms=at_ms,
        ))  # fmt: skip
        self._answer(event, payment, found, replayed=False, attempt=attempts, gateway_ms=gateway_ms)

    async def _outcome(self, gateway: Gateway, request: ChargeRequest) -> tuple[Verdict, int, int | None]:
        """Repeat with the same key until the deadline; whatever goes wrong from here on is `unknown`."""
        try:
            await gateway.start()
            outcome, attempts, gateway_ms = await charge_until(
                gateway, request, deadline_s=self._settings.gateway_deadline_s,
                clock=time.monotonic, sleep=asyncio.sleep,
            )  # fmt: skip
            found = verdict(outcome)
        except Exception:
            logger.exception("gateway %s: internal error after the call had started", gateway.name)
            return INTERNAL_ERROR, 1, None
        if found.error is not None:
            logger.warning(
                "%s/%s is %s: %s (%s)",
                request.user_id, request.payment_id, found.status, found.error, gateway,
            )  # fmt: skip
        return found, attempts, gateway_ms if attempts else None

    def _answer(
        self, event: Event, payment: PaymentEvent, found: Verdict, *,
        replayed: bool, attempt: int, gateway_ms: int | None = None,
    ) -> None:  # fmt: skip
        self._books.write(
            payment, payment.user_id, payment.payment_id, found, replayed=replayed, resolves=False,
            attempt=attempt, gateway_ms=gateway_ms, source=_source(event), at_ms=now_ms(),
        )  # fmt: skip


def check_partition(event: Event, partitions: int) -> None:
    """Refuse an event that murmur2 of its key puts elsewhere: its user would have two states."""
    if event.key is not None and partition_of(event.key, partitions) != event.partition:
        raise BadInput(
            "wrong_partition",
            f"key belongs to partition {partition_of(event.key, partitions)}, found in {event.partition}",
        )


async def _masked(value: bytes) -> tuple[bytes, bool]:
    """Mask card numbers; a huge record (a megabyte takes seconds) is searched beside the event loop."""
    if len(value) > CUT_BYTES:
        return await asyncio.to_thread(mask_card_numbers, value)
    return mask_card_numbers(value)


def _source(event: Event) -> Any:
    return {"topic": event.topic, "partition": event.partition, "offset": event.offset}


def _about(payment: "PaymentEvent | PaymentEntry") -> dict[str, Any]:
    """What a result says of its payment, from the event or from the stored entry."""
    if isinstance(payment, PaymentEvent):
        return {
            "action": payment.action, "product": payment.product, "amount_minor": payment.amount_minor,
            "currency": payment.currency, "gateway": payment.gateway, "requested_at": payment.requested_at,
            "business_ref": payment.business_ref, "refund_of": payment.refund_of,
        }  # fmt: skip
    return {name: payment[name] for name in ABOUT}  # type: ignore[literal-required]


ABOUT = (
    "action",
    "product",
    "amount_minor",
    "currency",
    "gateway",
    "requested_at",
    "business_ref",
    "refund_of",
)


def _names(event: Event) -> dict[str, str]:
    """user_id and payment_id of a bad record, where they can be read and are ids."""
    try:
        data = orjson.loads(event.value or b"")
    except orjson.JSONDecodeError:
        return {}
    if not isinstance(data, dict):
        return {}
    wanted = {name: data.get(name) for name in ("user_id", "payment_id")}
    return {
        name: text for name, text in wanted.items()
        if isinstance(text, str) and 0 < len(text) <= 64 and not mask_card_numbers(text.encode())[1]
    }  # fmt: skip
