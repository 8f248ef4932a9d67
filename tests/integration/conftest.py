"""What several of these tests stand on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.system import free_port

from processes.simulator import Simulator


@pytest.fixture
def simulator(tmp_path: Path) -> Iterator[Simulator]:
    """The gateway simulator as a process, with a fresh ledger."""
    with Simulator(tmp_path / "ledger.db", port=free_port()) as process:
        yield process
