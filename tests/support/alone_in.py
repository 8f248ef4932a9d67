"""One lane of a test run at a time in a folder: who comes later finds what the first has put there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from streamsocial_billing.locks import lock

WITHIN_S = 600.0


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Made if it is not there; nobody else is in it until the end of the `with`, in whatever process."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a") as held:
        assert lock(held, WITHIN_S), f"somebody else is still busy in {folder}"
        yield
