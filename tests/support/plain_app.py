"""An app with one plain agent that does to each event what its value says, in every way an agent can fail.

`python -P plain_app.py NAME BROKER FOLDER worker ...`: source topic NAME-orders, results to NAME-results, a
counter for each key in the table `seen`. With PLAIN_APP_TAKES=1 the agent asks for `take`. What is done, by
the value's first word:

    count           count it, send `value seen-so-far`
    twice FAILURE   the first two times send half of it, then fail in that way; the third time count it
    always FAILURE  send half of it, then fail in that way, each time: the application buries it
    long            wait as long as FOLDER/hold exists, then count it

FAILURE: raise | leave (break out of the loop, begin another) | return | cancel (the agent's own task).
"""

import asyncio
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import faust

import faust_exactly_once as exactly_once
from faust_exactly_once import Options

name, broker, folder = sys.argv[1:4]
del sys.argv[1:4]
app = faust.App(
    name, datadir=f"{folder}/data", topic_replication_factor=1, worker_redirect_stdouts=False,
    **exactly_once.settings([f"kafka://{broker}"], session_timeout_s=6.0),
)  # fmt: skip
text: Any = {"key_type": str, "key_serializer": "raw", "value_type": str, "value_serializer": "raw"}
orders = app.topic(f"{name}-orders", **text)
results = app.topic(f"{name}-results", value_serializer="raw")
seen = app.Table("seen", default=int)
hold = Path(folder, "hold")
tries: Counter[int] = Counter()


async def dead_letter(event: Any, exc: Exception) -> None:
    """The application's answer to what fails for good."""
    await results.send(key=event.key, value=f"buried {event.value.decode()}".encode())


exactly_once.install(
    app, Options(client_config={"bootstrap.servers": broker}, grace_s=0.3, on_handler_failure=dead_letter)
)


def fails(event: Any) -> str | None:
    """How this try is to fail; None: not at all."""
    what, _, failure = event.value.partition(" ")
    tries[event.message.offset] += 1
    if what == "always" or (what == "twice" and tries[event.message.offset] < 3):
        return str(failure.split()[0])
    return None


async def count(event: Any) -> None:
    """Count the event, say so."""
    while event.value == "long" and hold.exists():  # noqa: ASYNC110, ASYNC240 - the test's file says how long
        await asyncio.sleep(0.02)
    seen[event.key] += 1
    await results.send(key=event.key.encode(), value=f"{event.value} {seen[event.key]}".encode())


async def half(event: Any) -> None:
    """What must never be seen."""
    seen[event.key] += 100
    await results.send(key=event.key.encode(), value=f"half {event.value}".encode())


@app.agent(orders)
async def handle_command(stream: Any) -> None:
    """One event after the other."""
    if os.environ.get("PLAIN_APP_TAKES"):
        stream.take(10, within=1)
    failure = "leave"
    while failure == "leave":
        async for event in stream.events():
            failure = fails(event) or ""
            if not failure:
                await count(event)
                continue
            await half(event)
            if failure == "raise":
                raise ValueError("as the value wants")
            if failure == "cancel":
                asyncio.current_task().cancel()  # type: ignore[union-attr]
                await asyncio.sleep(1)
            break


if __name__ == "__main__":
    app.main()
