"""When an event that holds up the commits behind it is an alarm; the clock is the test's."""

from __future__ import annotations

from dataclasses import dataclass

from faust_exactly_once.gaps import BEGINS, OVER, Gaps, Head

ALARM_S = 60.0


@dataclass
class Partition:
    """A source partition whose first uncommitted event is where the test says; None: there is none."""

    topic: str = "payments"
    committed: int | None = None
    first: int | None = None
    held_by: str = "handler"

    def head(self) -> Head | None:
        """The first event that is not committed."""
        return None if self.first is None else Head(self.topic, self.first, self.held_by, 0, b"key")


def test_a_gap_is_an_alarm_once_it_reaches_its_deadline() -> None:
    """Not before, then told once however often it is looked at."""
    gaps, source = Gaps(ALARM_S), Partition(first=7)
    gaps.see([source], 100.0)
    assert [] == gaps.news(159.9)
    assert [(BEGINS, 7)] == told(gaps, 160.0)
    gaps.see([source], 200.0)
    assert [] == gaps.news(200.0)
    assert gaps.is_alarm(gaps.oldest(), 200.0)


def test_an_alarm_ends_with_the_commit_of_its_event_told_once() -> None:
    """The event that is first after it starts anew."""
    gaps = Gaps(ALARM_S)
    gaps.see([Partition(first=7)], 0.0)
    told(gaps, 60.0)
    gaps.see([Partition(committed=8, first=8)], 70.0)
    assert [(OVER, 7)] == told(gaps, 70.0)
    assert [] == gaps.news(129.9)
    assert [(BEGINS, 8)] == told(gaps, 130.0)


def test_a_gap_that_never_was_an_alarm_ends_without_a_word() -> None:
    """Handled in time."""
    gaps = Gaps(ALARM_S)
    gaps.see([Partition(first=7)], 0.0)
    gaps.see([Partition(committed=8)], 59.0)
    assert [] == gaps.news(100.0)
    assert gaps.oldest() is None


def test_commits_that_go_on_are_no_gap() -> None:
    """The first event is always another one, whatever waits behind it."""
    gaps = Gaps(ALARM_S)
    for second in range(300):
        gaps.see([Partition(committed=second, first=second)], float(second))
        assert [] == gaps.news(float(second))


def test_a_gap_outlives_the_incarnation_of_its_task() -> None:
    """While the task reopens there is nothing to see; the event comes again, its gap is as old as before."""
    gaps = Gaps(ALARM_S)
    gaps.see([Partition(committed=7, first=7)], 0.0)
    gaps.see([], 20.0)
    gaps.see([Partition(committed=7)], 40.0)
    gaps.see([Partition(committed=7, first=7)], 59.0)
    assert [(BEGINS, 7)] == told(gaps, 60.0)


def test_the_first_event_of_a_delivered_batch_keeps_its_age_when_it_is_admitted() -> None:
    """Its offset is known only then: between the last commit and it there may be transaction markers."""
    gaps = Gaps(ALARM_S)
    gaps.see([Partition(committed=7, first=7, held_by="agent")], 0.0)
    gaps.see([Partition(committed=7, first=9)], 30.0)
    oldest = gaps.oldest()
    assert oldest is not None
    assert (9, "handler", 60.0) == (oldest.head.offset, oldest.head.held_by, oldest.age_s(60.0))


def test_offsets_that_were_set_back_begin_a_new_gap() -> None:
    """An operator chose an earlier one."""
    gaps = Gaps(ALARM_S)
    gaps.see([Partition(committed=7, first=7)], 0.0)
    gaps.see([Partition(committed=3, first=3)], 50.0)
    assert [] == gaps.news(109.9)
    assert [(BEGINS, 3)] == told(gaps, 110.0)


def test_each_source_of_a_task_has_its_own_gap() -> None:
    """Both are told; the one that lasts longest is shown."""
    gaps = Gaps(ALARM_S)
    gaps.see([Partition("payments", first=7)], 0.0)
    gaps.see([Partition("payments", first=7), Partition("retry", first=2)], 10.0)
    oldest = gaps.oldest()
    assert oldest is not None
    assert "payments" == oldest.head.topic
    assert [(BEGINS, 7), (BEGINS, 2)] == told(gaps, 70.0)
    gaps.see([Partition("payments", committed=8), Partition("retry", first=2)], 71.0)
    assert [(OVER, 7)] == told(gaps, 71.0)


def test_alarms_of_a_task_that_has_left_are_over() -> None:
    """Its next worker tells of them."""
    gaps = Gaps(ALARM_S)
    gaps.see([Partition(first=7)], 0.0)
    told(gaps, 60.0)
    gaps.end()
    assert [(OVER, 7)] == told(gaps, 61.0)
    assert gaps.oldest() is None


def test_everybody_may_see_the_event_but_not_its_key() -> None:
    """A message key may be personal data: it is in the log alone."""
    gaps = Gaps(ALARM_S)
    gaps.see([Partition(first=7)], 0.0)
    oldest = gaps.oldest()
    assert oldest is not None
    expected = {"topic": "payments", "offset": 7, "at_ms": 0, "held_by": "handler", "gap_s": 5.0}
    assert expected == oldest.status(5.0)


def told(gaps: Gaps, now_s: float) -> list[tuple[str, int]]:
    """What is told now, with the offsets."""
    return [(what, gap.head.offset) for what, gap in gaps.news(now_s)]
