"""The bounds of one worker: how many handlers run, how many bytes are held (point 10)."""

import asyncio

from .options import Options


class Bounds:
    """Counts what the tasks of a worker have under way.

    Attributes:
        running: handlers, those included that wait for their turn.
        held_bytes: of units.
        most_running: so many handlers at once.
        waiting: agents that wait for room.
    """

    def __init__(self, options: Options) -> None:
        self.running = 0
        self.held_bytes = 0
        self.most_running = options.max_running
        self._options = options
        self._room = asyncio.Event()
        self.waiting = 0

    def has_room(self) -> None:
        """Tell those who wait that a handler has ended; who starts or ends one changes `running`."""
        self._room.set()

    def holds_too_much(self) -> bool:
        """True while nothing more may be fetched."""
        return self.held_bytes > self._options.max_waiting_bytes

    def is_full(self) -> bool:
        """True if no handler may start now."""
        return self.running >= self.most_running

    async def room(self) -> None:
        """Wait until a handler may start."""
        self.waiting += 1
        try:
            while self.is_full():
                self._room.clear()
                await self._room.wait()
        finally:
            self.waiting -= 1
