"""Servers of third parties are installed by whichever lane needs them first."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from processes import ROOT

INSTALLS = """
import sys
import time
from pathlib import Path
from support.alone_in import alone_in

folder, meeting = Path(sys.argv[1]), Path(sys.argv[2])
(meeting / sys.argv[3]).touch()
while len(list(meeting.iterdir())) < 3:
    time.sleep(0.01)
with alone_in(folder):
    if not (folder / "installed").exists():
        with (folder / "log").open("a") as log:
            log.write("begins ")
            log.flush()
            time.sleep(0.3)
            log.write("ends ")
        (folder / "installed").touch()
"""


def test_lanes_that_need_the_same_server_install_it_once(tmp_path: Path) -> None:
    """Three processes at the same moment: the others wait for the first, then find it."""
    folder = tmp_path / "new" / "server"
    (meeting := tmp_path / "meeting").mkdir()
    command = [sys.executable, "-c", INSTALLS, str(folder), str(meeting)]
    environ = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    lanes = [subprocess.Popen([*command, str(lane)], env=environ) for lane in range(3)]
    assert [0, 0, 0] == [lane.wait(120) for lane in lanes]
    assert "begins ends " == (folder / "log").read_text()
