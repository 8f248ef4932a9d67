"""What most tests of payments begin with: the whole app on one task in memory, one gateway."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.asked_gateway import AskedGateway
from support.one_task import OneTask


@pytest.fixture
def gateway() -> AskedGateway:
    """A gateway that notes its calls and answers as it is told."""
    return AskedGateway()


@pytest.fixture
def lab(gateway: AskedGateway) -> Iterator[OneTask]:
    """The app with that gateway, in virtual time."""
    with OneTask(gateway) as lab:
        yield lab
