"""The log of the process, left as it was found."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from streamsocial_billing.logs import setup
from streamsocial_billing.logs.lines import OURS


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The root logger, afterwards as it was."""
    root = logging.getLogger()
    changed = [root, *map(logging.getLogger, (*OURS, setup.CHATTY))]
    handlers, levels = root.handlers[:], [one.level for one in changed]
    yield root
    for made in root.handlers:
        if made not in handlers:
            made.close()
    root.handlers[:] = handlers
    logging.captureWarnings(False)
    for one, level in zip(changed, levels, strict=True):
        one.setLevel(level)
