"""Runs a loop for as long as the worker lives."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any


def until_the_end(app: Any, name: str, run: Callable[[], Awaitable[None]]) -> None:
    """Run it as a task of the worker, who cancels it at the end."""

    async def task() -> None:
        with suppress(asyncio.CancelledError):
            await run()

    task.__name__ = task.__qualname__ = name
    app.task(task)
