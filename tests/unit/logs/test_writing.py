"""Records are written by a thread of their own: in order, whole, without holding up who logs."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import pytest

from streamsocial_billing.logs import setup, writing
from streamsocial_billing.logs.folding import Fold
from streamsocial_billing.logs.lines import TextFormatter
from streamsocial_billing.logs.masking import Mask
from streamsocial_billing.logs.writing import Writer, to_file


def logger_of(writer: Writer) -> logging.Logger:
    """A logger that writes there alone."""
    logger = logging.Logger("streamsocial_billing.x")
    logger.addHandler(writer)
    return logger


def test_lines_are_written_in_order_with_their_arguments_as_they_were(tmp_path: Path) -> None:
    """An object that changes after the call is shown as it was at the call."""
    writer = Writer(to_file(str(tmp_path / "log")), TextFormatter(), Mask())
    logger, changing = logger_of(writer), [0]
    for number in range(2000):
        changing[0] = number
        logger.warning("at %s", changing)
    writer.flush()
    lines = (tmp_path / "log").read_text().splitlines()
    assert [f"at [{number}]" for number in range(2000)] == [line.split(" x ")[1] for line in lines]


def test_who_logs_never_waits_for_a_disk_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not fit into the queue is counted, and the count is written when there is room again."""
    monkeypatch.setattr(writing, "MOST_WAITING", 10)
    hangs, written, began = threading.Event(), [], threading.Event()

    def write(text: str) -> None:
        began.set()
        hangs.wait(10)
        written.append(text)

    writer = Writer(write, TextFormatter(), Mask())
    logger = logger_of(writer)
    logger.warning("first")
    assert began.wait(10)
    for number in range(100):
        logger.warning("line %d", number)
    hangs.set()
    writer.flush()
    logger.warning("afterwards")
    writer.flush()
    assert "90 lines are missing here" in "".join(written)
    assert "afterwards" in written[-1]


def test_a_record_that_cannot_be_written_does_not_end_the_log(tmp_path: Path) -> None:
    """An object whose text cannot be made is named; the next line is there."""

    class Broken:
        def __str__(self) -> str:
            raise RuntimeError("no text")

    writer = Writer(to_file(str(tmp_path / "log")), TextFormatter(), Mask())
    logger = logger_of(writer)
    logger.warning("x", extra={"detail": Broken()})
    logger.warning("one %d", "word")
    logger.warning("last")
    writer.flush()
    lines = (tmp_path / "log").read_text().splitlines()
    assert ["ERROR", "WARNING", "WARNING"] == [line.split()[1] for line in lines]
    assert "streamsocial_billing.x cannot be written: RuntimeError" in lines[0]
    assert lines[2].endswith(" x last")


class Nasty(Exception):
    """An error whose text cannot be made."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


def test_who_logs_never_gets_an_error_of_the_log(tmp_path: Path) -> None:
    """As with logging's own handlers: a line that cannot be made is named, whoever wanted it goes on."""
    writer = Writer(to_file(str(tmp_path / "log")), TextFormatter(), Mask(["a secret"]))
    seen = logging.StreamHandler()
    setup.guard([seen], ["a secret"])
    writer.addFilter(Fold())
    logger = logger_of(writer)
    logger.addHandler(seen)
    logger.warning("because of %s", Nasty())
    logger.warning("because of %s", Nasty(), extra={"fold": True})
    logger.warning("fields", extra={"detail": Nasty()})
    logger.warning("two %s %s", "a secret", extra={"fold": True})
    logger.warning("last")
    writer.flush()
    lines = (tmp_path / "log").read_text().splitlines()
    assert 5 == len(lines)
    assert "streamsocial_billing.x cannot be written: RuntimeError" in lines[0]
    assert "a secret" not in "".join(lines)


def test_lines_that_a_full_disk_took_are_counted_too() -> None:
    """Whatever the write raises, the thread goes on, and the next line says how many are missing."""
    written: list[str] = []
    errors: list[Exception] = [OSError(28, "No space left on device"), AttributeError("no stderr")]

    def write(text: str) -> None:
        if errors:
            raise errors.pop(0)
        written.append(text)

    writer = Writer(write, TextFormatter(), Mask())
    logger = logger_of(writer)
    for word in ("one", "two", "three"):
        logger.warning(word)
        writer.flush()
    assert "three" in written[0]
    assert "2 lines are missing here" in written[0]


def test_by_default_our_info_is_written_that_of_libraries_is_not(
    root: logging.Logger, tmp_path: Path
) -> None:
    """Nor what Faust says of each service, nor the state of each task every ten seconds."""
    setup.set_up(file=str(tmp_path / "log"))
    logging.getLogger("streamsocial_billing.outcome").info("ours")
    logging.getLogger("streamsocial_billing.web.driver").info("[^--Web]: Starting...")
    logging.getLogger("faust_exactly_once.watch").info("status task=1")
    logging.getLogger("aiokafka").info("theirs")
    logging.getLogger("faust").warning("theirs, bad")
    root.handlers[0].flush()
    assert ["ours", "theirs, bad"] == [
        line.split(" ", 3)[3] for line in (tmp_path / "log").read_text().splitlines()
    ]


def test_a_level_that_was_asked_for_is_that_of_everything(root: logging.Logger, tmp_path: Path) -> None:
    """INFO brings the libraries' lines, too; ERROR takes ours away."""
    setup.set_up(file=str(tmp_path / "info"), level=logging.INFO)
    logging.getLogger("aiokafka").info("theirs")
    root.handlers[0].flush()
    setup.set_up(file=str(tmp_path / "error"), level=logging.ERROR)
    logging.getLogger("streamsocial_billing.outcome").warning("ours")
    root.handlers[0].flush()
    assert "theirs" in (tmp_path / "info").read_text()
    assert "" == (tmp_path / "error").read_text()
