"""A worker under test halts where it is asked to, once, and goes on when the test lets it."""

from __future__ import annotations

import threading
from pathlib import Path

from support.halting_worker import halting_probe
from support.halts import Halts


class Commit:
    """What has a partition and reaches a point, as the layer's own commit does."""

    partition = 3

    def __init__(self, folder: Path) -> None:
        self.probe = halting_probe(folder)

    def run(self) -> None:
        """Reach two points."""
        self.probe("before_send")
        self.probe("before_commit")


def test_one_task_halts_at_the_point_until_it_may_go_on(tmp_path: Path) -> None:
    """The first that comes halts, a second one passes; at the end of the `with` the first ends."""
    halts, commit = Halts(tmp_path), Commit(tmp_path)
    first = threading.Thread(target=commit.run)
    with halts.asked("before_commit"):
        first.start()
        assert 3 == halts.wait("before_commit").partition
        commit.run()
        assert first.is_alive()
    first.join(10)
    assert not first.is_alive()


def test_nobody_halts_unasked(tmp_path: Path) -> None:
    """Asked and not reached leaves nothing behind."""
    with Halts(tmp_path).asked("after_store"):
        Commit(tmp_path).run()
    Commit(tmp_path).run()
    assert [] == list(tmp_path.iterdir())
