"""The bounds of one worker: how many handlers run, how many bytes are held (point 10)."""

import asyncio

from .options import Options


class Bounds:
    """Counts what the tasks of a worker have under way."""

    def __init__(self, options: Options) -> None:
        self.running = 0
        self.held_bytes = 0
        self._options = options
        self._room = asyncio.Event()

    def handler_started(self) -> None:
        """Count a running handler."""
        self.running += 1

    def handler_ended(self) -> None:
        """Give back the place of a running handler."""
        self.running -= 1
        self._room.set()

    def bytes_held(self, size: int) -> None:
        """Count bytes of units (negative: given back)."""
        self.held_bytes += size

    def holds_too_much(self) -> bool:
        """True while nothing more may be fetched."""
        return self.held_bytes > self._options.max_waiting_bytes

    def is_full(self) -> bool:
        """True if no handler may start now."""
        return self.running >= self._options.max_running

    async def room(self) -> None:
        """Wait until a handler may start."""
        while self.is_full():
            self._room.clear()
            await self._room.wait()
