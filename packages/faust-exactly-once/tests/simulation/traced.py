"""The layer's log as a part of the trace."""

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from .clock import clock

LOGGER = logging.getLogger("faust_exactly_once")


class ToTrace(logging.Handler):
    """Puts the layer's log into the trace."""

    def emit(self, record: logging.LogRecord) -> None:
        """One line."""
        clock().note(clock().process.name, "log:", record.getMessage())


TO_TRACE = ToTrace()


@contextmanager
def traced(*, with_log: bool) -> Iterator[None]:
    """The layer's lines go into the trace, or nowhere."""
    with ExitStack() as stack:
        stack.callback(LOGGER.setLevel, LOGGER.level)
        stack.callback(LOGGER.removeHandler, TO_TRACE)
        stack.callback(setattr, LOGGER, "propagate", LOGGER.propagate)
        LOGGER.setLevel(logging.INFO if with_log else logging.CRITICAL + 1)
        LOGGER.addHandler(TO_TRACE)
        LOGGER.propagate = False
        yield
