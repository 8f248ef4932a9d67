"""Resolving unknown outcomes: a nudge repeats the call with the same key."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace

import orjson

from streamsocial_billing.billing import Books, check_partition, now_ms
from streamsocial_billing.decision import after_retry, gives_up, is_due
from streamsocial_billing.events import BadInput, Nudge, gateway_key_of
from streamsocial_billing.exactly_once import Event, Layer, current_unit
from streamsocial_billing.exactly_once.nudges import Nudger
from streamsocial_billing.gateways.base import ChargeRequest, Gateway
from streamsocial_billing.outcomes import INTERNAL_ERROR, Verdict, verdict
from streamsocial_billing.settings import Settings
from tables.payments import PaymentEntry, payment_key

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0
NUDGES_PER_LOOK = 500  # per task: a long outage must not flood the source topic
LOOKED_AT = 2_000  # open payments per task at one look
NUDGE_AGAIN_AFTER_MS = 5_000


class Resolver:
    """Handles one nudge: acts only if the entry is unknown and due, so lost or doubled nudges do no harm."""

    def __init__(
        self, settings: Settings, books: Books, gateways: Mapping[str, Gateway], partitions: Callable[[], int]
    ) -> None:
        self._settings = settings
        self._books = books
        self._gateways = gateways
        self._partitions = partitions

    async def resolve(self, event: Event) -> None:
        """One record of `payments-retry`."""
        at_ms = now_ms()
        try:
            nudge = Nudge.from_bytes(event.value)
            if event.key != nudge.user_id.encode():
                raise BadInput("key_mismatch", "the record key is not the nudge's user_id")
            check_partition(event, self._partitions())
        except BadInput as bad:
            await self._books.bury(event, bad, at_ms)
            return
        entry: PaymentEntry | None = self._books.payments.get(payment_key(nudge.user_id, nudge.payment_id))
        if entry is None or not is_due(entry, at_ms):
            return
        gateway = self._gateways.get(entry["gateway"])
        if gateway is not None and gateway.account == entry["gateway_account"]:
            await self._try_again(nudge, entry, gateway)
        else:
            logger.error("%s waits: gateway %s is not configured with its account", nudge, entry["gateway"])

    async def _try_again(self, nudge: Nudge, entry: PaymentEntry, gateway: Gateway) -> None:
        """The same-key repeat: inside the gateway's window it is the authority."""
        found = await self._call(nudge, entry, gateway)
        if found.status == "failed" and entry["ever_ambiguous"]:
            # "invalid" speaks of this call alone; an earlier one may have charged: a person has to look
            found = Verdict("parked", "invalid_after_doubt", error=found.error)
        at_ms = now_ms()
        # an earlier delivery of this nudge may have called before a crash: of that nothing is stored
        found = replace(found, ambiguous=found.ambiguous or not current_unit().surely_first)
        changed = _after(entry, found, at_ms)
        if gives_up(changed, at_ms, self._settings.give_up_after_s * 1000):
            found = Verdict("failed", "gave_up", error=found.error)
            changed = _after(entry, found, at_ms)
        self._books.keep(nudge.user_id, nudge.payment_id, changed)
        if changed["status"] not in ("unknown", "parked"):
            self._books.write(
                changed, nudge.user_id, nudge.payment_id, found, replayed=False, resolves=True,
                attempt=changed["attempts"], gateway_ms=None, source=entry["source"], at_ms=at_ms,
            )  # fmt: skip

    async def _call(self, nudge: Nudge, entry: PaymentEntry, gateway: Gateway) -> Verdict:
        request = ChargeRequest(
            gateway_key_of(nudge.user_id, entry["action"], nudge.payment_id), nudge.user_id, nudge.payment_id,
            entry["fingerprint"], entry["amount_minor"], entry["currency"], entry["payment_method"],
        )  # fmt: skip
        try:
            await gateway.start()
            return verdict(await gateway.charge(request, timeout_s=self._settings.gateway_deadline_s / 2))
        except Exception:
            logger.exception("gateway %s: internal error after the call had started", gateway.name)
            return INTERNAL_ERROR


def _after(entry: PaymentEntry, found: Verdict, at_ms: int) -> PaymentEntry:
    return after_retry(
        entry, status=found.status, reason=found.reason, gateway_ref=found.gateway_ref, attempts=1,
        ambiguous=found.ambiguous, last_error=found.error, now_ms=at_ms,
    )  # fmt: skip


class DueTimer:
    """Looks every second at the open payments of the tasks here; nudges those that are due."""

    def __init__(self, layer: Layer, nudger: Nudger) -> None:
        self._layer = layer
        self._nudger = nudger
        self._nudged_at: dict[str, int] = {}
        self._looked_to: dict[int, str] = {}

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            await self.run_once(now_ms())

    async def run_once(self, at_ms: int) -> int:
        """Nudge what is due.

        Returns:
            how many nudges were appended.
        """
        self._nudged_at = {k: at for k, at in self._nudged_at.items() if at_ms - at < NUDGE_AGAIN_AFTER_MS}
        sent = 0
        for partition in self._layer.running_partitions():
            items = self._next_items(partition)
            due = [key for key, value in items if self._is_due(key, value, at_ms)][:NUDGES_PER_LOOK]
            if due:
                await self._nudger.append(partition, map(_hint, due))
                self._nudged_at.update(dict.fromkeys(due, at_ms))
                sent += len(due)
        return sent

    def _next_items(self, partition: int) -> list[tuple[str, bytes]]:
        """The next open payments of a task, round and round: some that stay open must not hide others."""
        after = self._looked_to.get(partition, "")
        items = self._layer.committed_items(partition, "open_payments", LOOKED_AT, after)
        self._looked_to[partition] = items[-1][0] if len(items) == LOOKED_AT else ""
        return items

    def _is_due(self, key: str, value: bytes, at_ms: int) -> bool:
        return key not in self._nudged_at and orjson.loads(value)["next_try_at"] <= at_ms


def _hint(key: str) -> tuple[bytes, bytes]:
    user_id, _, payment_id = key.partition("/")
    return user_id.encode(), Nudge(user_id, payment_id).to_bytes()
