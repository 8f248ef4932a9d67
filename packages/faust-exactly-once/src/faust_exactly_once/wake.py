"""Tells a loop that there may be something to do."""

import asyncio


class Wake:
    """An event that many set and one waits for; who sets it may first look whether that was done.

    Attributes:
        is_on: it was set since `wait` last returned.
    """

    def __init__(self) -> None:
        self.is_on = False
        self._event = asyncio.Event()

    def set(self) -> None:
        """Let the one who waits go on, now or when it next waits."""
        self.is_on = True
        self._event.set()

    async def wait(self) -> None:
        """Return once it is set; from then on it is off."""
        await self._event.wait()
        self._event.clear()
        self.is_on = False
