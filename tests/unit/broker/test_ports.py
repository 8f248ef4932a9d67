"""Ports that a broker keeps, chosen by many processes at the same time."""

from __future__ import annotations

import subprocess
import sys

import pytest

from broker import ports
from processes import ROOT

HOLDS = """
import sys
from broker import ports
ports.STABLE = range({first}, {first} + 4)
print(*ports.stable_ports(3), flush=True)
sys.stdin.read()
"""


def holder(first: int) -> subprocess.Popen[str]:
    """Another process that chooses three of four ports, and keeps them until its input ends."""
    program = [sys.executable, "-c", HOLDS.format(first=first)]
    return subprocess.Popen(program, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def four(monkeypatch: pytest.MonkeyPatch) -> range:
    """Four ports, alone to choose from."""
    low = min(ports.stable_ports(1)[0], ports.STABLE[-4])
    chosen = range(low, low + 4)
    monkeypatch.setattr(ports, "STABLE", chosen)
    monkeypatch.setattr(ports, "_ours", set())
    monkeypatch.setattr(ports, "is_free", lambda _: True)  # whatever runs beside these tests
    return chosen


def test_a_port_that_a_process_chose_is_no_one_else_s_before_it_listens(four: range) -> None:
    """Seconds go by until Java binds; two brokers of tests side by side once met on one port."""
    other = holder(four[0])
    assert other.stdout is not None
    taken = {int(word) for word in other.stdout.readline().split()}
    ours = set(ports.stable_ports(4))
    other.communicate()
    assert (taken, ours) == (taken & set(four), set(four) - taken)


def test_the_ports_of_a_process_that_ended_may_be_chosen_again(four: range) -> None:
    """However it ended."""
    other = holder(four[0])
    assert other.stdout is not None
    other.stdout.readline()
    other.kill()
    other.communicate()
    assert set(four) == set(ports.stable_ports(4))


def test_a_process_chooses_no_port_twice(four: range) -> None:
    """The ports of a broker and of its controller are asked for one after the other."""
    first, second = ports.stable_ports(2), ports.stable_ports(4)
    assert set(four) == {*first, *second}
    assert [] == ports.stable_ports(1)
