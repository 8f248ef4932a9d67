"""The lock of a file."""

from __future__ import annotations

import time
from pathlib import Path
from threading import Timer

from support.references import ROOT, files

from streamsocial_billing.locks import lock


def test_a_file_is_locked_by_one_at_a_time(tmp_path: Path) -> None:
    """The second is told at once; when the first has closed its file, another gets the lock."""
    path = tmp_path / "lock"
    with path.open("a") as first, path.open("a") as second:
        assert (True, False) == (lock(first), lock(second))
    with path.open("a") as third:
        assert lock(third)


def test_who_waits_gets_the_lock_when_it_is_free(tmp_path: Path) -> None:
    """Within the time that it waits, not at its end."""
    path = tmp_path / "lock"
    first = path.open("a")
    assert lock(first)
    Timer(0.2, first.close).start()
    began = time.monotonic()
    with path.open("a") as second:
        assert lock(second, within_s=30)
    assert 10 > time.monotonic() - began


def test_who_waits_in_vain_is_told(tmp_path: Path) -> None:
    """After the time that it waits."""
    path = tmp_path / "lock"
    with path.open("a") as first, path.open("a") as second:
        assert lock(first)
        began = time.monotonic()
        assert not lock(second, within_s=0.2)
        assert 0.2 <= time.monotonic() - began


def test_there_is_one_way_to_lock_a_file() -> None:
    """And that of the layer, which stands by itself."""
    users = {
        file.name
        for file in files()
        if file.suffix == ".py" and "tests" not in file.parts and "fcntl.flock" in (ROOT / file).read_text()
    }
    assert {"locks.py", "worker_folder.py"} == users
