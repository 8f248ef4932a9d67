"""Local state that is deleted, partitions that move: the changelog still knows every payment."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from support.system import STEADY, Payments, Stream, System, payment, statuses

from faust_exactly_once import partition_of
from streamsocial_billing.domain.events import PaymentEvent

ONCE_AND_REPLAYED = {("succeeded", False, False): 40, ("succeeded", True, False): 40}


def a_few(count: int) -> list[PaymentEvent]:
    """Payments of as many users, spread over all partitions."""
    return [payment(f"user-{number}", f"pay-{number}", amount_minor=100 + number) for number in range(count)]


def test_without_its_local_state_a_worker_replays_what_it_had_charged(
    broker: str, tmp_path: Path, unique_name: str
) -> None:
    """The data folder is deleted: re-sent payments are replays, the gateway is not asked again."""
    events = a_few(40)
    with System(broker, tmp_path, unique_name, **STEADY) as system:
        system.start()
        system.submit(events)
        system.wait_answered()
        calls = [system.calls(event) for event in events]
        system.worker.kill()
        system.worker.forget_local_state()
        system.worker.start()
        system.submit(events)
        system.check()
        assert ONCE_AND_REPLAYED == statuses(system.all_results())
        assert calls == [system.calls(event) for event in events]


def test_partitions_of_a_killed_worker_move_with_everything_known(
    broker: str, tmp_path: Path, unique_name: str
) -> None:
    """One of two workers dies: what either had charged comes back as a replay from the other."""
    events = a_few(40)
    with System(broker, tmp_path, unique_name, workers=2, **STEADY) as system:
        system.start()
        system.submit(events)
        system.wait_answered()
        calls = [system.calls(event) for event in events]
        system.workers[1].kill()
        system.submit(events)
        system.check()
        assert ONCE_AND_REPLAYED == statuses(system.all_results())
        assert calls == [system.calls(event) for event in events]


def test_a_worker_that_sleeps_past_its_session_does_no_harm_when_it_wakes(
    broker: str, tmp_path: Path, unique_name: str
) -> None:
    """SIGSTOP in the middle of work, the other takes over, SIGCONT: no double result, no double charge."""
    payments = Payments(seed=3)
    with System(broker, tmp_path, unique_name, workers=2) as system:
        system.start()
        system.gateway.faults(latency_ms=150)
        sleeper, other = system.workers
        system.submit(payments.take(200))
        system.wait_answered(20)
        system.gateway.pause()  # calls hang: however late this thread goes on, work is under way
        system.submit(payments.take(200))
        sleeper.signal(signal.SIGSTOP)
        assert system.answered() < system.sent
        system.gateway.resume()
        system.wait_answered()
        for task in range(4):  # the line may come behind the answers
            other.wait_for_line(rf"task {task} runs")
        sleeper.signal(signal.SIGCONT)
        sleeper.wait_for_line("(?i)rejoin|re-join|starts again after|UNKNOWN_MEMBER|illegal_generation")
        system.submit(payments.take(200))
        system.check()
        assert "Traceback" not in sleeper.log_file.read_text()  # being fenced is an ending with a name


@pytest.mark.parametrize("point", ["before_offsets", "before_commit", "after_commit"])
def test_a_worker_that_sleeps_inside_its_commit_finds_it_decided_by_others(
    point: str, broker: str, tmp_path: Path, unique_name: str
) -> None:
    """Frozen between two steps of a commit until its tasks moved: what it still does changes nothing."""
    payments = Payments(seed=4)
    with System(broker, tmp_path, unique_name, workers=2) as system:
        sleeper, other = system.workers
        sleeper.start(crash_at=(point, 8), sent=signal.SIGSTOP)
        other.start()
        sleeper.wait_ready()
        other.wait_ready()
        with Stream(system, payments, chunk=20, ahead=60, most=20_000):
            sleeper.wait_for_line(f"SIGSTOP at {point}")
            asleep = system.answered()
            system.wait_answered(asleep + 200)
            for task in range(4):  # one may open later than the others have answered
                other.wait_for_line(rf"task {task} runs")
            sleeper.signal(signal.SIGCONT)
            sleeper.wait_for_line("(?i)member_id was not recognized|starts again after")
            awake = system.answered()
            system.wait_answered(awake + 200)
        system.check()
        assert "Traceback" not in sleeper.log_file.read_text()


def test_every_partition_is_used_by_these_tests() -> None:
    """The users of `a_few` lie in all four partitions, so that a partition that is forgotten shows."""
    assert {0, 1, 2, 3} == {partition_of(event.user_id.encode(), 4) for event in a_few(40)}
