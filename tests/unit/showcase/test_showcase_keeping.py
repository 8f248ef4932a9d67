"""What dies is started again: when, how often, what is said of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from showcase.causes import how_it_ended, last_error
from showcase.errors import ShowcaseFailed
from showcase.keeping import LONGEST_PAUSE_S, STEADY_S, Keeper


class Part:
    """A process of the test's mind."""

    def __init__(self, name: str = "worker-1") -> None:
        self.name = name
        self.running = True
        self.answering = True
        self.allowed = True
        self.starts = 0
        self.refusals: list[Exception] = []

    def start_again(self) -> None:
        """It lives, or is refused."""
        if self.refusals:
            raise self.refusals.pop(0)
        self.starts += 1
        self.running = True

    def answers(self) -> bool:
        """As the test says."""
        return self.running and self.answering

    def may_start(self) -> bool:
        """As the test says."""
        return self.allowed

    def why(self) -> str:
        """One line."""
        return f"{self.name} was killed by SIGKILL"


class Watched:
    """A keeper with a clock in the test's hands."""

    def __init__(self, *parts: Part) -> None:
        self.now = 0.0
        self.said: list[str] = []
        self.keeper = Keeper(self.said.append, lambda: self.now)
        for part in parts:
            self.keeper.add(part)
        self.keeper.look()

    def look(self, after_s: float = 0.0) -> list[str]:
        """Look after so long; what that made it say."""
        self.now += after_s
        before = len(self.said)
        self.keeper.look()
        return self.said[before:]

    def pause_s(self, part: Part) -> float:
        """Kill a part; how long until it is started again."""
        part.running = False
        self.look()
        begin, starts = self.now, part.starts
        while part.starts == starts:
            self.look(0.25)
        return self.now - begin


def test_a_part_that_dies_is_started_again_and_said_to_be_up_once_it_answers() -> None:
    """Two lines: how it ended with the pause, then how long it was away."""
    part = Part()
    watched = Watched(part)
    part.running = part.answering = False
    assert ["worker-1 was killed by SIGKILL; it is started again in 1 s"] == watched.look()
    assert [] == watched.look(0.9)
    assert [] == watched.look(0.1)
    assert (1, True) == (part.starts, watched.keeper.is_down(part))
    assert [] == watched.look(3)
    part.answering = True
    assert ["worker-1 is up again after 4 s"] == watched.look()
    assert not watched.keeper.is_down(part)


def test_the_pause_doubles_up_to_half_a_minute() -> None:
    """1, 2, 4 ... however often it dies."""
    part = Part()
    watched = Watched(part)
    assert [1, 2, 4, 8, 16, LONGEST_PAUSE_S, LONGEST_PAUSE_S] == [watched.pause_s(part) for _ in range(7)]


def test_the_pause_is_short_again_for_what_has_lived_a_while() -> None:
    """It has answered for STEADY_S."""
    part = Part()
    watched = Watched(part)
    assert [1, 2] == [watched.pause_s(part) for _ in range(2)]
    watched.look()
    watched.look(STEADY_S)
    assert 1 == watched.pause_s(part)


def test_what_never_came_up_ends_everything_with_its_own_line() -> None:
    """A wrong setting, a port that is taken: it would not come up the next time either."""
    part = Part()
    part.answering = False
    watched = Watched(part)
    part.running = False
    with pytest.raises(ShowcaseFailed, match="^worker-1 was killed by SIGKILL$"):
        watched.look()


def test_what_was_seen_at_work_is_kept_from_then_on() -> None:
    """It dies before the keeper has asked it once."""
    part = Part()
    part.answering = False
    watched = Watched(part)
    watched.keeper.all_up()
    part.running = False
    assert ["worker-1 was killed by SIGKILL; it is started again in 1 s"] == watched.look()


def test_a_start_that_is_refused_is_tried_again_later() -> None:
    """The port was taken meanwhile: said each time, with the next pause."""
    part = Part("Kafka")
    watched = Watched(part)
    part.running = False
    watched.look()
    part.refusals.append(ShowcaseFailed("port 9092 is taken"))
    assert ["Kafka does not start: port 9092 is taken; it is started again in 2 s"] == watched.look(1)
    assert [] == watched.look(2)
    assert ["Kafka is up again after 3 s"] == watched.look()


def test_a_worker_waits_for_kafka_without_a_word() -> None:
    """Without it the worker would only die again, with ever longer pauses."""
    part = Part()
    watched = Watched(part)
    part.running = part.allowed = False
    watched.look()
    assert [] == watched.look(20)
    part.allowed = True
    watched.look()
    assert (1, ["worker-1 is up again after 20 s"]) == (part.starts, watched.look())


def test_each_part_has_pauses_of_its_own() -> None:
    """One that dies all the time makes no other one wait."""
    one, other = Part("gateway"), Part("worker-2")
    watched = Watched(one, other)
    assert [1, 2, 4] == [watched.pause_s(one) for _ in range(3)]
    assert 1 == watched.pause_s(other)


BANNER = "\x1b[?25l\x1b[36m┌ƒaµS† v0.15.3─┬────────┐\x1b[0m\n│ id │ x │\n└────┴───┘\n\x1b[2K\r\x1b[?25h\n"


@pytest.mark.parametrize(
    ("log", "cause"),
    [
        ("[1] [ERROR] the disk is full\nbye\n" + BANNER, "[1] [ERROR] the disk is full"),
        (BANNER + "streamsocial-billing: port 6066 is taken\n", "streamsocial-billing: port 6066 is taken"),
        ("\x1b[31mValueError: no\x1b[0m\n" + BANNER, "ValueError: no"),
        ('{"level": "error", "event": "x"}\n{"level": "info"}\n', '{"level": "error", "event": "x"}'),
        ("all is well\nbye\n" + BANNER, "bye"),
        (BANNER, "it said nothing"),
        ("", "it said nothing"),
    ],
)
def test_the_cause_of_an_end_is_its_last_error_no_banner_no_cursor_codes(
    tmp_path: Path, log: str, cause: str
) -> None:
    """Whatever a terminal would have made of it."""
    path = tmp_path / "worker-1.log"
    path.write_text(log, encoding="utf-8")
    assert cause == last_error(path)
    assert f"worker-1 ended with exit code 1: {cause} (log: {path})" == how_it_ended("worker-1", 1, path, 0)


def test_an_error_of_an_earlier_life_is_no_cause(tmp_path: Path) -> None:
    """The log goes on over restarts; only what was said since the last one counts."""
    path = tmp_path / "worker-1.log"
    path.write_text("x: an old error\n")
    assert "it said nothing" == last_error(path, path.stat().st_size)


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (-9, "worker-1 was killed by SIGKILL"),
        (-15, "worker-1 was killed by SIGTERM"),
        (-11, "worker-1 was killed by SIGSEGV: x: the error"),
        (-99, "worker-1 was killed by signal 99: x: the error"),
        (0, "worker-1 ended with exit code 0: x: the error"),
    ],
)
def test_a_signal_is_named_and_one_from_outside_blames_no_line_of_the_log(
    tmp_path: Path, code: int, text: str
) -> None:
    """Who is killed does not say why."""
    path = tmp_path / "worker-1.log"
    path.write_text("x: the error\n")
    assert f"{text} (log: {path})" == how_it_ended("worker-1", code, path, 0)
