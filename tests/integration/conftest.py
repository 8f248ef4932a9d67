"""What several of these tests stand on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.simulator import SimulatorProcess


@pytest.fixture
def simulator(tmp_path: Path) -> Iterator[SimulatorProcess]:
    """The gateway simulator as a process, with a fresh ledger."""
    with SimulatorProcess(tmp_path / "ledger.db") as process:
        yield process
