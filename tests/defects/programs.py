"""The obvious Faust program, written once: `--layer` changes the app's settings, nothing else.

`python -P programs.py --layer ours|plain PROGRAM NAME BROKER FOLDER SETTINGS worker ...`: app and group NAME,
topics NAME-payments (its source), NAME-bookings (sent to, read by the same app), NAME-results (sent to, read
by nobody here); SETTINGS is JSON with further Faust settings. A payment is {"id": ...}; with "stop_at" its
handler says so at that point and waits for a line `go ID` on stdin, with "fail_at" it raises there, once.
Other lines on stdin: `rejoin` asks the group for a rebalance, `late` lets a payment overtake each later seek
of Faust's consumer, as the event loop does now and then.
"""

import asyncio
import json
import os
import sys
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import faust

OVERTAKE_S = 5.0
Handler = Callable[[Any], Awaitable[None]]
go: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
failed: set[str] = set()
handled = asyncio.Event()


def ours(name: str, broker: str, settings: dict[str, Any]) -> tuple[Any, Callable[[str], Any]]:
    """An app on our layer, with its way to declare an output topic."""
    import faust_exactly_once as exactly_once

    base = exactly_once.settings([f"kafka://{broker}"], session_timeout_s=SHORT["broker_session_timeout"])
    app = faust.App(name, **COMMON | base | settings)
    exactly_once.install(app, exactly_once.Options(client_config={"bootstrap.servers": broker}))
    return app, lambda topic: exactly_once.output(app, topic)


def plain(name: str, broker: str, settings: dict[str, Any]) -> tuple[Any, Callable[[str], Any]]:
    """An app on Faust alone, as its documentation says for exactly once."""
    base = {"broker": f"kafka://{broker}", "store": "rocksdb://", "processing_guarantee": "exactly_once"}
    app = faust.App(name, **COMMON | SHORT | base | settings)
    return app, app.topic


COMMON: dict[str, Any] = {"topic_replication_factor": 1, "worker_redirect_stdouts": False}
SHORT = {"broker_session_timeout": 3.0, "broker_heartbeat_interval": 0.75}
"""A killed member's partitions move soon; also kind to plain Faust, whose default is a minute (defect 18)."""


def forward(app: Any, name: str, output: Callable[[str], Any]) -> Handler:
    """A booking and a result for each payment; no table."""
    bookings, results = output(f"{name}-bookings"), output(f"{name}-results")

    async def handle(event: Any) -> None:
        payment = event.value
        await bookings.send(key=event.key, value={"id": payment["id"]})
        await at("booking sent", payment)
        await results.send(key=event.key, value={"id": payment["id"], "status": "charged"})
        await at("result sent", payment)

    @app.agent(app.topic(f"{name}-bookings"))  # type: ignore[untyped-decorator]
    async def book(stream: Any) -> None:
        async for _ in stream.events():
            pass

    return handle


def charge(app: Any, name: str, output: Callable[[str], Any]) -> Handler:
    """One result for each payment; a table knows which were charged before."""
    results, seen = output(f"{name}-results"), app.Table("seen")

    async def handle(event: Any) -> None:
        payment, key = event.value, f"{event.key.decode()}/{event.value['id']}"
        status = "charged" if seen.get(key) is None else "already seen"
        seen[key] = "charged"
        await at("stored", payment)
        await results.send(key=event.key, value={"id": payment["id"], "status": status})
        await at("result sent", payment)

    return handle


def invoice(app: Any, name: str, output: Callable[[str], Any]) -> Handler:
    """A table row for each of the payment's "lines"."""
    rows = app.Table("rows")

    async def handle(event: Any) -> None:
        payment = event.value
        for line in range(payment.get("lines", 1)):
            rows[f"{event.key.decode()}/{payment['id']}/{line}"] = line
        await at("stored", payment)

    return handle


PROGRAMS = {"forward": forward, "charge": charge, "invoice": invoice}


async def at(point: str, payment: dict[str, Any]) -> None:
    """Stop or fail at a point if the payment says so."""
    name = payment["id"]
    if payment.get("fail_at") == point and name not in failed:
        failed.add(name)
        raise RuntimeError(f"{name} fails at {point}")
    if payment.get("stop_at") == point:
        print(f"{name} stops: {point}", flush=True)
        await go[name].wait()


def make_app(layer: str, program: str, name: str, broker: str, folder: str, settings: str) -> Any:
    """The app, with one plain agent that gives each event of the source to the program's handler."""
    chosen = {"datadir": folder, **json.loads(settings)}
    app, output = {"ours": ours, "plain": plain}[layer](name, broker, chosen)
    handle = PROGRAMS[program](app, name, output)

    @app.agent(app.topic(f"{name}-payments"))  # type: ignore[untyped-decorator]
    async def work(stream: Any) -> None:
        async for event in stream.events():
            place = event.message
            print(f"handling {event.value['id']} at {place.partition}@{place.offset}", flush=True)
            await handle(event)
            print(f"handled {event.value['id']}", flush=True)
            handled.set()

    @app.task  # type: ignore[untyped-decorator]
    async def handle_command() -> None:
        asyncio.get_running_loop().add_reader(sys.stdin.fileno(), _next_lines, app)

    return app


def _next_lines(app: Any) -> None:
    # not readline(): what it has read ahead would wake nobody
    for line in os.read(sys.stdin.fileno(), 65_536).decode().splitlines():
        word, _, rest = line.partition(" ")
        if word == "go":
            go[rest].set()
        elif word == "late":
            _overtake(app.consumer)
        elif word == "rejoin":
            thread = app.consumer._thread  # noqa: SLF001 - nobody offers this in public
            coordinator = thread._consumer._coordinator  # noqa: SLF001
            thread.thread_loop.call_soon_threadsafe(coordinator.request_rejoin)


def _overtake(consumer: Any) -> None:
    seek = consumer.perform_seek

    async def late() -> None:
        if consumer.flow_active:  # else the fetcher itself seeks: nothing can overtake that
            with suppress(TimeoutError):
                await asyncio.wait_for(handled.wait(), OVERTAKE_S)
        await seek()

    handled.clear()
    consumer.perform_seek = late


if __name__ == "__main__":
    _, layer, *arguments = sys.argv[1:8]
    del sys.argv[1:8]
    make_app(layer, *arguments).main()
