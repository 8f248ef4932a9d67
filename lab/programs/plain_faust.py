"""Plain Faust as its documentation says for exactly once: a table for deduplication, an idempotency key.

Nothing of this project's layer. What goes wrong is Faust's: results go to a topic that the app does not
read, so they are in no transaction (docs/defects.md, 1), and a rebalance handles events again (6, 8).
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import aiohttp
import faust
import orjson

from lab.guarantees import ANSWERED, CHARGED
from lab.programs.till import ORDERS, REPLY_WITHIN_S, status_of
from streamsocial_billing.settings import PAYMENTS, RESULTS, Settings
from torture.orders import Orders


def build(settings: Settings) -> Any:
    """The app: one agent over `payments`, one table, one output topic."""
    app: Any = faust.App(
        settings.app_id, broker=settings.broker, store="rocksdb://", processing_guarantee="exactly_once",
        broker_session_timeout=float(settings.session_timeout_s),
        broker_heartbeat_interval=settings.session_timeout_s / 4, topic_partitions=settings.partitions,
        topic_replication_factor=1, topic_disable_leader=True, consumer_auto_offset_reset="earliest",
        worker_redirect_stdouts=False,
    )  # fmt: skip
    results = app.topic(settings.topic(RESULTS), value_serializer="raw")
    paid = app.Table("paid", key_type=str)
    probe = Orders(Path(os.environ[ORDERS])).probe
    url = f"{settings.simulator_url}/v1/charges"

    @app.agent(app.topic(settings.topic(PAYMENTS), key_serializer="raw", value_serializer="raw"))  # type: ignore[untyped-decorator]
    async def bill(stream: Any) -> None:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(REPLY_WITHIN_S)) as gateway:
            async for event in stream.events():
                payment = orjson.loads(event.value)
                key = f"{payment['user_id']}/{payment['payment_id']}"
                if key in paid:
                    continue
                status = status_of(await _charge(gateway, url, payment, key))
                probe(CHARGED)
                result = payment | {"status": status, "processed_at": time.time_ns() // 1_000_000}
                sent = await results.send(key=payment["user_id"].encode(), value=orjson.dumps(result))
                await sent
                probe(ANSWERED)
                paid[key] = status  # not sooner: RocksDB has it at once, and a crash would lose the result

    @app.on_partitions_assigned.connect  # type: ignore[untyped-decorator]
    async def say(_: Any, assigned: Any, **__: Any) -> None:
        numbers = sorted({one.partition for one in assigned if one.topic == settings.topic(PAYMENTS)})
        print(f"assigned {numbers}", flush=True)

    return app


async def _charge(
    gateway: aiohttp.ClientSession, url: str, payment: dict[str, Any], key: str
) -> dict[str, Any]:
    """Charge until there is a reply, always under the same key."""
    body = {
        "amount": payment["amount_minor"], "currency": payment["currency"],
        "payment_method": payment["payment_method"],
        "metadata": {"ref": key, "payment_id": payment["payment_id"], "user_id": payment["user_id"]},
    }  # fmt: skip
    while True:
        try:
            async with gateway.post(url, json=body, headers={"Idempotency-Key": key}) as reply:
                charge: dict[str, Any] = orjson.loads(await reply.read())
                return charge
        except (aiohttp.ClientError, TimeoutError, ValueError):
            continue


if __name__ == "__main__":
    build(Settings.from_environment(os.environ)).main()
