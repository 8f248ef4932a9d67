"""Sets up the log of a process."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable
from typing import Any, TextIO

from streamsocial_billing.logs.context import Context
from streamsocial_billing.logs.folding import PATIENCE_S, Fold
from streamsocial_billing.logs.lines import OURS, TextFormatter
from streamsocial_billing.logs.masking import Mask
from streamsocial_billing.logs.writing import Writer, to_file, to_stream

fold = Fold()
"""Of this process; it counts what it holds back."""
CHATTY = "faust_exactly_once.watch"
"""The state of each task every ten seconds: too much unless somebody asks for it."""


class NoServiceLines(logging.Filter):
    """Without mode's lines on each service that starts or stops; those of our classes bear our name."""

    def filter(self, record: logging.LogRecord) -> bool:
        """False for such a line."""
        return record.levelno >= logging.WARNING or not str(record.msg).startswith("[^")


def set_up(
    *, form: str = "text", level: int | None = None, file: str | None = None, stream: TextIO | None = None,
    secrets: Iterable[str] = (), more: Iterable[logging.Handler] = (),
) -> None:  # fmt: skip
    """Replace whatever handlers the root logger has.

    Args:
        form: one of FORMATS.
        level: of everything, with what repeats folded. None: what an operator needs, that is INFO for our
            own lines and WARNING for those of libraries, Kafka's clients only where a trouble lasts.
        file: appended to; None: `stream`, by default stderr.
        secrets: values that are masked wherever they appear.
        more: further handlers; they get what is masked and folded, too.

    Raises:
        OSError: the file cannot be opened.
    """
    out: Any = stream or sys.stderr
    terminal = file is None and out.isatty() and not os.environ.get("NO_COLOR")
    write = to_file(file) if file else to_stream(stream)
    writer = Writer(write, _formatter(form, colours=terminal), Mask(secrets))
    writer.addFilter(fold)
    writer.addFilter(Context())
    fold.patience_s = PATIENCE_S if level is None else 0.0
    if level is None:
        writer.addFilter(NoServiceLines())
    root = logging.getLogger()
    root.handlers[:] = [writer]
    guard(more, secrets)
    root.handlers.extend(more)
    root.setLevel(logging.WARNING if level is None else level)
    for ours in OURS:
        logging.getLogger(ours).setLevel(logging.INFO if level is None else logging.NOTSET)
    logging.getLogger(CHATTY).setLevel(logging.WARNING if level is None else logging.NOTSET)
    logging.captureWarnings(True)


def _formatter(form: str, *, colours: bool) -> logging.Formatter:
    if form == "json":
        from streamsocial_billing.logs.json_lines import JsonFormatter

        return JsonFormatter()
    return TextFormatter(colours=colours)


def guard(handlers: Iterable[logging.Handler], secrets: Iterable[str]) -> None:
    """Put folding and masking before handlers that somebody else has set up."""
    mask = Mask(secrets)
    for handler in handlers:
        handler.addFilter(fold)
        handler.addFilter(mask)
