"""`make up`: what dies is started again over the same data, until Ctrl-C; shown on real processes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.showcases import ROOT, nothing_left, pids_of, read_until, shell, showcase

from broker import LocalBroker
from showcase.recipe import recipe

SESSION = {"BILLING_SESSION_TIMEOUT_S": "6", "BILLING_GATEWAY_DEADLINE_S": "5"}


class Up:
    """A running `make up`, read up to its instructions."""

    def __init__(self, process: subprocess.Popen[str], names: dict[str, str]) -> None:
        self.process = process
        self._names = names
        self.begin = read_until(process, lambda line: "Ctrl-C stops everything" in line)
        commands = [line.strip() for line in self.begin if line.startswith("  ")]
        self.exports = [one for one in commands if one.startswith("export ")]
        self.commands = [one for one in commands if not one.startswith("export ")]

    def pid(self, name: str) -> int:
        """Process id of a part at its first start; where that takes long, lines tell how far each part is."""
        (found,) = re.findall(rf"^{name}\b.*\(pid (\d+)", "".join(self.begin), flags=re.MULTILINE)
        return int(found)

    def until(self, text: str) -> list[str]:
        """The lines up to one with this text."""
        return read_until(self.process, lambda line: text in line)

    def until_all(self, *texts: str) -> list[str]:
        """The lines up to where each of these texts was said, in whatever order."""
        missing = set(texts)

        def is_last(line: str) -> bool:
            missing.difference_update([text for text in missing if text in line])
            return not missing

        return read_until(self.process, is_last)

    def pay(self, payment_id: str) -> None:
        """Submit a payment; return once it is charged."""
        submit = self.commands[0].replace("demo-1", payment_id)
        limit = time.monotonic() + 240
        while "1 accepted, 0 refused" not in shell([*self.exports, submit], **self._names):
            assert time.monotonic() < limit, payment_id
        while self.status(payment_id) != "succeeded":
            assert time.monotonic() < limit, payment_id
            time.sleep(0.2)

    def status(self, payment_id: str) -> str | None:
        """The last result's."""
        printed = shell([*self.exports, "streamsocial-billing results"], **self._names).splitlines()
        found = [one for one in map(json.loads, printed) if one["payment_id"] == payment_id]
        return found[-1]["status"] if found else None

    def interrupt(self) -> int:
        """Ctrl-C; the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(150)


def names_of(folder: Path) -> dict[str, str]:
    """Names of this test alone on a broker that serves others."""
    return {"BILLING_APP_ID": folder.name, "BILLING_TOPIC_PREFIX": f"{folder.name}-"}


@pytest.mark.timeout(600)
def test_what_is_killed_is_started_again_and_payments_go_on(tmp_path: Path) -> None:
    """Gateway, worker, Kafka, each with SIGKILL: each is said with its signal, then a payment is charged."""
    with showcase(tmp_path, "up", **SESSION) as process:
        up = Up(process, {})
        up.pay("before")
        for name in ("gateway", "worker-1", "Kafka"):
            os.kill(up.pid(name), signal.SIGKILL)
            told = up.until(f"{name} is up again after ")
            first = next(line for line in told if "was killed by" in line)
            pattern = rf"{name} was killed by SIGKILL \(log: .*\); it is started again in 1 s$"
            assert re.match(pattern, first), told
            up.pay(f"after-{name}")
        assert 0 == up.interrupt()
    assert [] == nothing_left(tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_each_process_of_three_brokers_is_started_again(tmp_path: Path) -> None:
    """A broker and the controller with SIGKILL, both at once: each is up again, payments go on."""
    with showcase(tmp_path, "up", BROKERS="3", **SESSION) as process:
        up = Up(process, {})
        for name in ("controller", "broker-2"):
            os.kill(up.pid(name), signal.SIGKILL)
        said: list[str] = []
        while not {"controller", "broker-2"} <= {line.split(" is up again")[0] for line in said}:
            said += up.until(" is up again after ")
        for name in ("controller", "broker-2"):
            assert any(f"{name} was killed by SIGKILL" in line for line in said), said
        up.pay("after")
        assert 0 == up.interrupt()
    assert [] == nothing_left(tmp_path)


@pytest.mark.timeout(600)
def test_what_dies_while_another_is_away_is_started_again_too(tmp_path: Path, broker: str) -> None:
    """A worker and the gateway at once, the worker once more as soon as it lives: the pause is longer."""
    names = names_of(tmp_path) | SESSION
    with showcase(tmp_path, "up", KAFKA=broker, **names) as process:
        up = Up(process, names)
        os.kill(up.pid("worker-2"), signal.SIGKILL)
        up.until("worker-2 was killed by SIGKILL")
        os.kill(up.pid("gateway"), signal.SIGKILL)
        os.kill(new_worker(tmp_path, "worker-2"), signal.SIGKILL)
        died, back = "worker-2 was killed by SIGKILL", "worker-2 is up again after "
        said = up.until_all("gateway is up again after ", died, back)
        assert "it is started again in 2 s" in next(line for line in said if died in line)
        up.pay("after-all")
        assert 0 == up.interrupt()
    assert [] == nothing_left(tmp_path)


def new_worker(folder: Path, name: str, within_s: float = 120) -> int:
    """The pid of a worker once it has been started again.

    A guard has the same words behind its own: that of this start, and that of the one before, which lives on
    for a moment.
    """
    limit = time.monotonic() + within_s
    while time.monotonic() < limit:
        for pid in pids_of(folder):
            words = words_of(pid)
            if f"{folder}/{name}".encode() in words and b"guard.py" not in words:
                return pid
        time.sleep(0.05)
    raise AssertionError(f"{name} was not started again")


def words_of(pid: int) -> bytes:
    """The command line, empty where the process has just ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""



@pytest.mark.timeout(600)
@pytest.mark.parametrize("moment", ["in the pause", "amid the restart"])
def test_ctrl_c_ends_a_restart_and_leaves_nothing(tmp_path: Path, broker: str, moment: str) -> None:
    """Whatever is on its way up ends with the rest; exit code 0."""
    names = names_of(tmp_path)
    with showcase(tmp_path, "up", KAFKA=broker, **names) as process:
        up = Up(process, names)
        os.kill(up.pid("worker-1"), signal.SIGKILL)
        up.until("worker-1 was killed by SIGKILL")
        if moment == "amid the restart":
            new_worker(tmp_path, "worker-1")
        code = up.interrupt()
        assert process.stdout is not None
        output = process.stdout.read()
        assert (0, False) == (code, "Traceback" in output), output
    assert [] == nothing_left(tmp_path)


@pytest.fixture
def yours(tmp_path: Path) -> Iterator[LocalBroker]:
    """A Kafka that is not the showcase's own."""
    with LocalBroker(tmp_path / "yours", port=0) as running:
        yield running


@pytest.mark.timeout(600)
def test_a_kafka_of_the_users_own_is_not_restarted_but_missed(tmp_path: Path, yours: LocalBroker) -> None:
    """Said when it is gone, when it is back; a worker that died meanwhile is up again; payments go on."""
    folder = tmp_path / "up"
    with showcase(folder, "up", KAFKA=yours.bootstrap, **SESSION) as process:
        up = Up(process, {})
        yours.kill()
        assert "it is yours, so it is not started again here" in up.until("does not answer")[-1]
        os.kill(up.pid("worker-1"), signal.SIGKILL)
        up.until("worker-1 was killed by SIGKILL")
        yours.start()
        up.until_all(f"Kafka at {yours.bootstrap} answers again after ", "worker-1 is up again after ")
        up.pay("after")
        assert 0 == up.interrupt()
    assert [] == nothing_left(folder)


@pytest.mark.timeout(600)
def test_the_recipe_that_it_prints_works_as_it_stands(tmp_path: Path, broker: str) -> None:
    """Each line in the checkout: the second payment is a replay, the audit finds no difference."""
    names = names_of(tmp_path)
    with showcase(tmp_path, "up", KAFKA=broker, **names) as process:
        up = Up(process, names)
        up.pay("demo-1")
        printed = [shell([*up.exports, line], **names) for line in up.commands]
        assert "1 accepted, 0 refused" in printed[0] and "1 accepted, 0 refused" in printed[1]
        assert "nothing differs: 1 charge, each exactly once at the gateway; " in printed[3]
        assert '"charged_minor":999' in printed[-1].replace(" ", "")
        assert 0 == up.interrupt()
    assert [] == nothing_left(tmp_path)


def test_readme_and_make_up_show_one_recipe() -> None:
    """Line by line the same, for the data folder of `make up`."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```console system\n(.*?)^```", readme, flags=re.MULTILINE | re.DOTALL)
    assert recipe() == block.splitlines()


def test_a_worker_that_dies_at_its_start_is_quoted(tmp_path: Path, broker: str) -> None:
    """The worker's last line with the path of its log is the showcase's one line; nothing stays."""
    (tmp_path / "showcase.lock").touch()
    (tmp_path / "worker-1").write_text("no folder")
    names = {"BILLING_APP_ID": tmp_path.name, "BILLING_TOPIC_PREFIX": f"{tmp_path.name}-"}
    with showcase(tmp_path, "up", KAFKA=broker, **names) as process:
        assert process.stdout is not None
        output = process.stdout.read()
    assert 1 == process.returncode, output
    quoted = r"showcase: worker-1 ended with exit code [12]: .*worker-1.* \(log: .*logs/worker-1\.log\)"
    assert re.fullmatch(quoted, output.splitlines()[-1]), output
    assert [] == nothing_left(tmp_path)


