"""When an event that holds up the commits behind it is an alarm; the clock is the test's."""

from __future__ import annotations

from dataclasses import dataclass

from faust_exactly_once.head_of_line import BEGINS, OVER, Blockers, FirstUncommitted

ALARM_S = 60.0


@dataclass
class Partition:
    """A source partition whose first uncommitted event is where the test says; None: there is none."""

    topic: str = "orders"
    committed: int | None = None
    first: int | None = None
    held_by: str = "handler"

    def first_uncommitted(self) -> FirstUncommitted | None:
        """The first event that is not committed."""
        if self.first is None:
            return None
        return FirstUncommitted(self.topic, self.first, self.held_by, 0, b"key")


def test_a_blocker_is_an_alarm_once_it_reaches_its_deadline() -> None:
    """Not before, then reported once however often it is looked at."""
    blockers, source = Blockers(ALARM_S), Partition(first=7)
    blockers.see([source], 100.0)
    assert [] == blockers.news(159.9)
    assert [(BEGINS, 7)] == reported(blockers, 160.0)
    blockers.see([source], 200.0)
    assert [] == blockers.news(200.0)
    assert blockers.is_alarm(blockers.oldest(), 200.0)


def test_an_alarm_ends_with_the_commit_of_its_event_reported_once() -> None:
    """The event that is first after it starts anew."""
    blockers = Blockers(ALARM_S)
    blockers.see([Partition(first=7)], 0.0)
    reported(blockers, 60.0)
    blockers.see([Partition(committed=8, first=8)], 70.0)
    assert [(OVER, 7)] == reported(blockers, 70.0)
    assert [] == blockers.news(129.9)
    assert [(BEGINS, 8)] == reported(blockers, 130.0)


def test_a_blocker_that_never_was_an_alarm_ends_without_a_word() -> None:
    """Handled in time."""
    blockers = Blockers(ALARM_S)
    blockers.see([Partition(first=7)], 0.0)
    blockers.see([Partition(committed=8)], 59.0)
    assert [] == blockers.news(100.0)
    assert blockers.oldest() is None


def test_commits_that_go_on_are_no_blocker() -> None:
    """The first event is always another one, whatever waits behind it."""
    blockers = Blockers(ALARM_S)
    for second in range(300):
        blockers.see([Partition(committed=second, first=second)], float(second))
        assert [] == blockers.news(float(second))


def test_a_blocker_outlives_the_epoch_of_its_task() -> None:
    """While the task reopens there is nothing to see; the event comes again, as old as before."""
    blockers = Blockers(ALARM_S)
    blockers.see([Partition(committed=7, first=7)], 0.0)
    blockers.see([], 20.0)
    blockers.see([Partition(committed=7)], 40.0)
    blockers.see([Partition(committed=7, first=7)], 59.0)
    assert [(BEGINS, 7)] == reported(blockers, 60.0)


def test_the_first_event_of_a_delivered_batch_keeps_its_age_when_it_is_admitted() -> None:
    """Its offset is known only then: between the last commit and it there may be transaction markers."""
    blockers = Blockers(ALARM_S)
    blockers.see([Partition(committed=7, first=7, held_by="agent")], 0.0)
    blockers.see([Partition(committed=7, first=9)], 30.0)
    oldest = blockers.oldest()
    assert oldest is not None
    assert (9, "handler", 60.0) == (oldest.event.offset, oldest.event.held_by, oldest.age_s(60.0))


def test_offsets_that_were_set_back_begin_a_new_blocker() -> None:
    """An operator chose an earlier one."""
    blockers = Blockers(ALARM_S)
    blockers.see([Partition(committed=7, first=7)], 0.0)
    blockers.see([Partition(committed=3, first=3)], 50.0)
    assert [] == blockers.news(109.9)
    assert [(BEGINS, 3)] == reported(blockers, 110.0)


def test_each_source_of_a_task_has_its_own_blocker() -> None:
    """Both are reported; the one that lasts longest is shown."""
    blockers = Blockers(ALARM_S)
    blockers.see([Partition("orders", first=7)], 0.0)
    blockers.see([Partition("orders", first=7), Partition("retry", first=2)], 10.0)
    oldest = blockers.oldest()
    assert oldest is not None
    assert "orders" == oldest.event.topic
    assert [(BEGINS, 7), (BEGINS, 2)] == reported(blockers, 70.0)
    blockers.see([Partition("orders", committed=8), Partition("retry", first=2)], 71.0)
    assert [(OVER, 7)] == reported(blockers, 71.0)


def test_alarms_of_a_task_that_has_left_are_over() -> None:
    """Its next worker tells of them."""
    blockers = Blockers(ALARM_S)
    blockers.see([Partition(first=7)], 0.0)
    reported(blockers, 60.0)
    blockers.end()
    assert [(OVER, 7)] == reported(blockers, 61.0)
    assert blockers.oldest() is None


def test_everybody_may_see_the_event_but_not_its_key() -> None:
    """A message key may be personal data: it is in the log alone."""
    blockers = Blockers(ALARM_S)
    blockers.see([Partition(first=7)], 0.0)
    oldest = blockers.oldest()
    assert oldest is not None
    expected = {"topic": "orders", "offset": 7, "at_ms": 0, "held_by": "handler", "gap_s": 5.0}
    assert expected == oldest.status(5.0)


def reported(blockers: Blockers, now_s: float) -> list[tuple[str, int]]:
    """What is reported now, with the offsets."""
    return [(what, blocker.event.offset) for what, blocker in blockers.news(now_s)]
