"""Writes records in a thread of its own: who logs waits neither for formatting nor for a disk."""

from __future__ import annotations

import copy
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from queue import Empty, SimpleQueue
from typing import Final, Protocol, TextIO

from streamsocial_billing.logs.lines import TextFormatter, exception_of
from streamsocial_billing.logs.masking import Mask

MOST_WAITING: Final = 20_000
"""Records that may wait for a slow disk or a reader that does not read, some 40 MB of outcomes; what comes
then is counted."""
MOST_AT_ONCE: Final = 500
GATHER_S: Final = 0.02
"""How long a line waits for others to be written with: a thread that wakes for each costs the event loop."""
FLUSH_S: Final = 2.0
Write = Callable[[str], None]


class Many(Protocol):
    """Lines of one moment that are logged together."""

    at_s: float
    """Seconds since the epoch."""
    words: str
    """Our own words that lines say: what is masked in one of them is masked in all."""

    def __len__(self) -> int: ...

    def texts(self, time_text: str) -> Iterable[tuple[str, str]]:
        """Each line as the text format has it, beside what it says that is not in `words`."""

    def record(self, place: int) -> logging.LogRecord:
        """One of them as a record."""


class Writer(logging.Handler):
    """Queues records; a thread masks, formats, writes them, many in one write."""

    def __init__(self, write: Write, formatter: logging.Formatter, mask: Mask) -> None:
        super().__init__()
        self._write = write
        self._formatter = formatter
        self._mask = mask
        self._queue: SimpleQueue[Item] = SimpleQueue()
        self._lost = 0
        self._many = 0  # lines that wait as parts of a Many; changed under the handler's lock
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue it with its text as it is now: arguments may change until it is written."""
        if self._queue.qsize() + self._many >= MOST_WAITING:
            self._lost += 1
            return
        if record.args or record.exc_info:
            try:
                record = _frozen(record)
            except Exception as error:  # whoever logs must not fail of it
                record = _unwritable(record, error)
        self._queue.put(record)

    def emit_many(self, lines: Many) -> None:
        """Queue lines that need no filter: they are ours, they do not repeat, they say where they belong."""
        count = len(lines)
        with self.lock or nullcontext():
            if self._queue.qsize() + self._many >= MOST_WAITING:
                self._lost += count
                return
            self._many += count
        self._queue.put(lines)

    def flush(self) -> None:
        """Return when all that was logged before is written, or after FLUSH_S."""
        if threading.current_thread() is not self._thread and self._thread.is_alive():
            written = threading.Event()
            self._queue.put(written)
            written.wait(FLUSH_S)

    def _run(self) -> None:
        while True:
            batch = [self._queue.get()]
            if self._queue.qsize() < MOST_AT_ONCE:
                time.sleep(GATHER_S)
            while len(batch) < MOST_AT_ONCE:
                try:
                    batch.append(self._queue.get_nowait())
                except Empty:
                    break
            self._write_all(batch)

    def _write_all(self, batch: list[Item]) -> None:
        lost, self._lost = self._lost, 0
        lines: list[str] = []
        count = 0
        for one in batch:
            if isinstance(one, logging.LogRecord):
                lines.append(self._line(one))
                count += 1
            elif not isinstance(one, threading.Event):
                lines.append(self._lines(one))
                count += len(one)
        if lost:
            lines.append(self._line(_lost(lost)))
        try:
            if lines:
                self._write("".join(lines))
        except Exception:  # a full disk, a reader that is gone: the worker goes on without its log
            self._lost += lost + count
            time.sleep(0.1)
        for one in batch:
            if isinstance(one, threading.Event):
                one.set()

    def _lines(self, many: Many) -> str:
        """All lines at once; a line that may need masking, or has another format, as its record."""
        with self.lock or nullcontext():
            self._many -= len(many)
        try:
            if isinstance(self._formatter, TextFormatter) and not self._mask.suspects(many.words):
                texts, suspects = many.texts(self._formatter.time_text(many.at_s)), self._mask.suspects
                return "".join([
                    self._line(many.record(place)) if suspects(foreign) else line
                    for place, (line, foreign) in enumerate(texts)
                ])  # fmt: skip
            return "".join([self._line(many.record(place)) for place in range(len(many))])
        except Exception as error:  # a bad line must not end the log
            return self._formatter.format(_unwritable(None, error)) + "\n"

    def _line(self, record: logging.LogRecord) -> str:
        try:
            line = self._formatter.format(record)
            if self._mask.suspects(line):
                self._mask.filter(record)
                line = self._formatter.format(record)
            return line + "\n"
        except Exception as error:  # one bad record must not end the log
            return self._formatter.format(_unwritable(record, error)) + "\n"


Item = logging.LogRecord | threading.Event | Many


def _frozen(record: logging.LogRecord) -> logging.LogRecord:
    """A copy that holds no objects that may change; other handlers keep the original."""
    frozen = copy.copy(record)
    try:
        frozen.msg, frozen.args = record.getMessage(), None
    except (TypeError, ValueError, KeyError):
        frozen.msg, frozen.args = f"{record.msg} {record.args}", None
    frozen.exc_text, frozen.exc_info, frozen.stack_info = exception_of(record), None, None
    return frozen


def _unwritable(record: logging.LogRecord | None, error: Exception) -> logging.LogRecord:
    what = "lines" if record is None else f"a record of {record.name}"
    text = f"{what} cannot be written: {type(error).__name__}"
    return _record(logging.ERROR, text)


def _lost(count: int) -> logging.LogRecord:
    return _record(logging.ERROR, f"{count} lines are missing here: the log could not be written fast enough")


def _record(level: int, text: str) -> logging.LogRecord:
    return logging.LogRecord(__name__, level, __file__, 0, text, None, None)


def to_file(path: str) -> Write:
    """Append to a file.

    Raises:
        OSError: it cannot be opened.
    """
    file = open(path, "a", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115 - open until the end

    def write(text: str) -> None:
        file.write(text)
        file.flush()

    return write


def to_stream(stream: TextIO | None = None) -> Write:
    """Write to a stream, by default to stderr as it is at that moment."""

    def write(text: str) -> None:
        out = stream or sys.stderr
        out.write(text)
        out.flush()

    return write
