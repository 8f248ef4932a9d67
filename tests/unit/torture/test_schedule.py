"""The plan of a torture run: the properties that torture/schedule.py states."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torture.schedule import (
    CLUSTER_KINDS,
    DISRUPTIVE,
    FIRST_AT_S,
    KINDS,
    POINTS,
    ROLES,
    Planned,
    kinds_of,
    overlapping,
    plan,
)

WORKERS = ("w1", "w2", "w3")
SEEDS = st.integers(0, 2**32)


def ci(seed: int) -> list[Planned]:
    """A plan of the size that fits a CI run."""
    return plan(seed, 40, 110.0, WORKERS)


@given(SEEDS)
@settings(max_examples=20, deadline=None)
def test_a_seed_gives_one_plan(seed: int) -> None:
    """The same every time, another one for another seed."""
    assert ci(seed) == ci(seed)
    assert ci(seed) != ci(seed + 1)


@given(SEEDS)
@settings(max_examples=50, deadline=None)
def test_every_kind_of_fault_comes(seed: int) -> None:
    """In the smallest size too, each kind at least once; exactly so many faults as were asked for."""
    planned = ci(seed)
    assert set(KINDS) == {one.kind for one in planned}
    assert list(range(40)) == sorted(one.number for one in planned)


@given(SEEDS, st.integers(40, 300))
@settings(max_examples=50, deadline=None)
def test_faults_lie_within_the_length_in_order(seed: int, faults: int) -> None:
    """None begins before the system had a moment to run, none ends later than planned for all of them."""
    planned = plan(seed, faults, 600.0, WORKERS)
    assert planned == sorted(planned, key=lambda one: one.at_s)
    assert all(FIRST_AT_S <= one.at_s and one.until_s <= 600.001 for one in planned)
    assert all(KINDS[one.kind].shortest_s - 0.001 <= one.length_s for one in planned)


def test_most_faults_begin_while_another_one_lasts() -> None:
    """More than half of them, so that recovery from one fault meets the next; a rare seed has a few less."""
    counts = sorted(overlapping(ci(seed)) for seed in range(300))
    assert 20 < counts[15]
    assert 14 < counts[0]


def test_faults_side_by_side_are_counted_apart_ones_are_not() -> None:
    """Beginning before the end of any earlier one, not only of the last."""
    spans = [(0.0, 9.0), (1.0, 1.0), (5.0, 1.0), (10.0, 1.0)]
    assert 2 == overlapping([Planned(n, "kill", "w1", *span) for n, span in enumerate(spans)])


@given(SEEDS)
@settings(max_examples=50, deadline=None)
def test_faults_hit_whom_their_kind_is_about(seed: int) -> None:
    """Workers, links of workers, the guest, residents; all others have one target."""
    for one in plan(seed, 200, 600.0, WORKERS):
        allowed = {
            "worker": set(WORKERS), "resident": {"w1", "w2"}, "guest": {"w3"},
            "link": {f"link:{name}" for name in WORKERS},
        }  # fmt: skip
        sort = KINDS[one.kind].target
        assert one.target in allowed.get(sort, {sort})


@given(SEEDS)
@settings(max_examples=30, deadline=None)
def test_what_stops_everything_stays_apart(seed: int) -> None:
    """Between two faults that stop the whole system there are others, as long as there are enough."""
    kinds = [one.kind for one in plan(seed, 300, 600.0, WORKERS)]
    heavy = [place for place, kind in enumerate(kinds) if kind in DISRUPTIVE]
    assert heavy
    assert all(later - earlier > 1 for earlier, later in zip(heavy, heavy[1:], strict=False))


def test_a_long_plan_crashes_at_every_point() -> None:
    """Each named point of a commit is drawn for a death, each but the recovery for a freeze."""
    planned = plan(5, 1000, 1680.0, WORKERS)
    deaths = {one.args["point"] for one in planned if one.kind == "kill_at_point"}
    freezes = {one.args["point"] for one in planned if one.kind == "freeze_at_point"}
    assert set(POINTS) == deaths
    assert set(POINTS) - {"during_recovery"} == freezes


@pytest.mark.parametrize("kind", sorted(kind for kind in KINDS if "freeze" in kind))
def test_a_freeze_outlasts_what_it_is_to_outlast(kind: str) -> None:
    """A worker's its session with the sweep that ends it, the broker's a transaction."""
    from torture.system import OPTIONS, SESSION_TIMEOUT_S

    limit_s = OPTIONS["transaction_timeout_ms"] / 1000 if kind == "broker_freeze" else 1.5 * SESSION_TIMEOUT_S
    assert limit_s < KINDS[kind].shortest_s


PLANS_BEFORE = {
    (1, 40, 110.0): "706fe557937045c3", (7, 40, 110.0): "9501b13a08ec3e33",
    (100, 1000, 1680.0): "4031b02a54596ab7",
}  # fmt: skip
"""Of the plans that seeds gave before there were three brokers: SHA-256 of their JSON."""


@pytest.mark.parametrize("asked", PLANS_BEFORE)
def test_a_seed_with_one_broker_gives_the_plan_that_it_always_gave(asked: tuple[int, int, float]) -> None:
    """So an old run can be repeated, whatever is added for three brokers."""
    planned = json.dumps([asdict(one) for one in plan(*asked, WORKERS)], sort_keys=True)
    assert PLANS_BEFORE[asked] == hashlib.sha256(planned.encode()).hexdigest()[:16]


def three(seed: int, faults: int = 45, length_s: float = 200.0) -> list[Planned]:
    """A plan for three brokers, of the size that fits a CI run."""
    return plan(seed, faults, length_s, WORKERS, 3)


@given(SEEDS)
@settings(max_examples=50, deadline=None)
def test_every_kind_comes_with_three_brokers_too(seed: int) -> None:
    """One plan per seed; all kinds of workers, links, gateway, and those of three brokers."""
    planned = three(seed)
    assert planned == three(seed)
    assert set(kinds_of(3)) == {one.kind for one in planned}
    assert set(CLUSTER_KINDS) < set(kinds_of(3))
    assert list(range(45)) == sorted(one.number for one in planned)
    assert planned == sorted(planned, key=lambda one: one.at_s)
    assert all(FIRST_AT_S <= one.at_s and one.until_s <= 200.001 for one in planned)


@given(SEEDS, st.sampled_from([(45, 200.0), (100, 300.0), (600, 1680.0)]))
@settings(max_examples=50, deadline=None)
def test_never_two_faults_of_brokers_at_once(seed: int, size: tuple[int, float]) -> None:
    """One ends before the next begins, with some time for the brokers to be whole again."""
    apart = [one for one in three(seed, *size) if one.kind in CLUSTER_KINDS]
    assert len(CLUSTER_KINDS) <= len(apart)
    assert all(earlier.until_s < later.at_s for earlier, later in zip(apart, apart[1:], strict=False))


@given(SEEDS)
@settings(max_examples=20, deadline=None)
def test_two_brokers_or_the_controller_are_away_for_half_a_minute_at_most(seed: int) -> None:
    """And each fault of a broker lasts within the bounds of its kind."""
    for one in three(seed, 600, 1680.0):
        if one.kind in CLUSTER_KINDS:
            kind = CLUSTER_KINDS[one.kind]
            assert kind.shortest_s - 0.001 <= one.length_s <= kind.longest_s + 0.001 <= 30.001


def test_a_long_plan_hits_brokers_in_each_of_their_roles_links_to_one_and_to_all() -> None:
    """Leaders, both coordinators; a worker cut off from one broker, from all."""
    planned = three(5, 600, 1680.0)
    assert set(ROLES) == {one.args["role"] for one in planned if "role" in one.args}
    links = {one.target for one in planned if one.target.startswith("link:")}
    assert {"link:w1", "link:w1:1", "link:w1:2", "link:w1:3"} < links


@pytest.mark.parametrize("faults", [0, 1, 5])
def test_a_plan_of_few_faults_is_a_plan(faults: int) -> None:
    """Whether they are of brokers or not."""
    for brokers in (1, 3):
        assert {faults} == {len(plan(seed, faults, 60.0, WORKERS, brokers)) for seed in range(50)}


def test_a_frozen_broker_outlasts_its_session() -> None:
    """broker.session.timeout.ms in broker/server.properties."""
    assert CLUSTER_KINDS["broker_freeze"].shortest_s > 3.0
