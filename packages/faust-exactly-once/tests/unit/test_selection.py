"""Choosing a commit.

Operations: units of few keys, finished or not, are admitted one after the other to up to three runs; the unit
before one of its key may be committed already; a limit per run.

Properties:

1. what is chosen of a run is a prefix of finished units, at most the limit
2. no chosen unit has an uncommitted earlier unit of its key outside the choice
3. no valid choice is longer in any run
4. a single run is chosen from as if there were more of them
"""

from itertools import product
from typing import Any, NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from faust_exactly_once.selection import choose
from faust_exactly_once.units import Unit

Runs = list[list[Unit]]


class Event(NamedTuple):
    key: int
    value: None = None


def unit(number: int, key: int, previous: Unit | None, *, finished: bool) -> Unit:
    task: Any = None
    made = Unit(task, Event(key), number, previous, False)
    made.finished = finished
    return made


@st.composite
def runs(draw: st.DrawFn, most_runs: int = 3) -> Runs:
    """Runs of uncommitted units as a task has them."""
    made: Runs = [[] for _ in range(draw(st.integers(1, most_runs)))]
    last: dict[int, Unit] = {}
    for key in range(3):
        if draw(st.booleans()):
            last[key] = unit(0, key, None, finished=True)
            last[key].committed = True
    steps = st.tuples(st.integers(0, len(made) - 1), st.integers(0, 2), st.integers(0, 3))
    for number, (run, key, finished) in enumerate(draw(st.lists(steps, max_size=12)), 1):
        last[key] = unit(number, key, last.get(key), finished=finished > 0)
        made[run].append(last[key])
    return made


def is_valid(choice: Runs, limit: int) -> bool:
    """Properties 1 (prefixes are given) and 2, written down once more."""
    inside = {id(unit) for run in choice for unit in run}
    return all(len(run) <= limit for run in choice) and all(
        unit.finished and (unit.previous is None or unit.previous.committed or id(unit.previous) in inside)
        for run in choice
        for unit in run
    )


@given(runs(), st.integers(1, 6))
@settings(max_examples=300)
def test_the_choice_is_the_longest_valid_one(made: Runs, limit: int) -> None:
    """Everything that may commit does, nothing that may not (properties 1 to 3)."""
    chosen = choose(made, limit)
    assert [run[: len(found)] for run, found in zip(made, chosen, strict=True)] == chosen
    lengths = product(*(range(len(run) + 1) for run in made))
    valid = [
        most for most in lengths if is_valid([run[:n] for run, n in zip(made, most, strict=True)], limit)
    ]
    longest = [max(most[i] for most in valid) for i in range(len(made))]
    assert longest == [len(found) for found in chosen]


@given(runs(most_runs=1), st.integers(1, 6))
def test_a_single_run_is_chosen_from_as_one_of_several(made: Runs, limit: int) -> None:
    """The short way for one run gives what the general way gives (property 4)."""
    for earlier, later in zip(made[0], made[0][1:], strict=False):
        later.finished = later.finished and (later.previous is not earlier or earlier.finished)
    other = unit(99, 99, None, finished=False)
    assert [*choose(made, limit), []] == choose([*made, [other]], limit)


def test_what_is_cut_from_one_run_is_cut_from_those_that_follow_it() -> None:
    """An unfinished event holds back its key, then what stands behind that in its run, and so on."""
    x1 = unit(1, 0, None, finished=False)
    x2, y3 = unit(2, 0, x1, finished=True), unit(3, 1, None, finished=True)
    y4, z5 = unit(4, 1, y3, finished=True), unit(5, 2, None, finished=True)
    z6 = unit(6, 2, z5, finished=True)
    assert [[], [], [], []] == choose([[z6], [y4, z5], [x2, y3], [x1]], 9)
