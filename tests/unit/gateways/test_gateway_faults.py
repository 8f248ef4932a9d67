"""The fault plan of the gateway simulator."""

from __future__ import annotations

import pytest

from streamsocial_billing.gateways.simulator.faults import Fault, FaultPlan, FaultSettings


def drawn(count: int, **settings: float) -> list[Fault | None]:
    plan = FaultPlan(FaultSettings.from_mapping(settings))
    return [plan.draw() for _ in range(count)]


def test_without_rates_nothing_goes_wrong() -> None:
    """The default plan is a healthy gateway."""
    assert [None] * 100 == drawn(100)


@pytest.mark.parametrize("fault", list(Fault))
def test_a_rate_of_one_strikes_each_time(fault: Fault) -> None:
    """Each fault has a rate of its own name, and 1 means always."""
    assert [fault] * 100 == drawn(100, **{fault.value: 1})


def test_the_same_seed_gives_the_same_faults() -> None:
    """A run can be repeated by its seed."""
    rates = {"error_before": 0.3, "timeout": 0.3}
    assert drawn(200, seed=7, **rates) == drawn(200, seed=7, **rates)
    assert drawn(200, seed=8, **rates) != drawn(200, seed=7, **rates)


def test_a_rate_is_the_share_of_requests_it_strikes() -> None:
    """Rates are shares of all POSTs."""
    hits = drawn(10_000, bad_body=0.1).count(Fault.BAD_BODY)
    assert 900 < hits < 1100


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"timeout": 1.1}, "timeout: 1.1 is not within 0..1"),
        ({"timeout": -0.1}, "timeout: -0.1 is not within"),
        ({"timeout": float("nan")}, "timeout: nan is not within"),
        ({"latency_ms": 60_001}, "latency_ms: 60001 is not within 0..60000"),
        ({"timeout_ms": 600_001}, "timeout_ms"),
        ({"conflict": "often"}, "conflict: a number is allowed"),
        ({"conflict": True}, "conflict: a number is allowed"),
        ({"seed": 0.5}, "seed: a number is allowed, a whole one"),
        ({"drop": 0.5}, "drop: unknown, allowed are latency_ms"),
    ],
)
def test_a_bad_setting_is_refused_by_name(settings: dict[str, object], message: str) -> None:
    """A wrong plan is an error that names the setting, never a silent default."""
    with pytest.raises(ValueError, match=message):
        FaultSettings.from_mapping(settings)
