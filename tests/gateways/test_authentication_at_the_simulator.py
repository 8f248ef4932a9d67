"""Payments that wait, in the whole application, at the simulator as `make up` runs it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.audited import breaks
from support.called_for_real import CalledForReal
from support.one_task import OneTask
from support.wishes import payment

from processes.simulator import Simulator
from streamsocial_billing.gateways.simulated import SimulatedGateway

DAY_S = 86_400
Said = list[tuple[str, str | None, bool]]


@pytest.fixture
def simulator(tmp_path: Path) -> Iterator[Simulator]:
    with Simulator(tmp_path / "ledger.db") as process:
        yield process


@pytest.fixture
def lab(simulator: Simulator) -> Iterator[OneTask]:
    with CalledForReal(SimulatedGateway(simulator.url)) as real, OneTask(real) as lab:
        yield lab
        assert [] == breaks(lab)
        assert [] == lab.dead_letters()


def opened(lab: OneTask, method: str, reason: str) -> str:
    """Send one; its intent."""
    (result,) = lab.send(payment(lab, payment_method=method))
    assert ("unknown", reason) == (result["status"], result["reason"])
    return str(lab.entry("u1", "p1")["intent"])


def pass_by(lab: OneTask, seconds: float) -> None:
    """Time passes; timers look now and then."""
    for _ in range(14):
        lab.wait(seconds / 14)
        lab.look()


def finals(lab: OneTask) -> Said:
    return [
        (one["status"], one["reason"], one["resolves"]) for one in lab.results()
        if one["status"] != "unknown" and not one["replayed"]
    ]  # fmt: skip


def charges(simulator: Simulator) -> list[tuple[str, str]]:
    return [(row["payment_intent"], row["status"]) for row in simulator.get("/v1/charges")["data"]]


def test_a_customer_comes_back(simulator: Simulator, lab: OneTask) -> None:
    """Nothing is charged before; then once; the event that is sent again learns it at once."""
    intent = opened(lab, "pm_card_authenticationRequired", "authentication_required")
    assert [] == charges(simulator)
    simulator.post(f"/_intents/{intent}/confirm", {})
    lab.send(payment(lab, payment_method="pm_card_authenticationRequired"))
    pass_by(lab, 3600)
    assert [("succeeded", None, True)] == finals(lab)
    assert [(intent, "succeeded")] == charges(simulator)


def test_a_customer_never_comes_back(simulator: Simulator, lab: OneTask) -> None:
    """After its days the intent is canceled there, then the payment is declined here."""
    intent = opened(lab, "pm_card_authenticationRequired", "authentication_required")
    pass_by(lab, 4 * DAY_S)
    assert [("declined", "authentication_required", True)] == finals(lab)
    assert "canceled" == simulator.get(f"/v1/payment_intents/{intent}")["status"]
    assert [] == charges(simulator)


@pytest.mark.parametrize(
    ("end", "said"), [("confirm", ("succeeded", None, True)), ("fail", ("declined", "card_declined", True))]
)
def test_what_is_processing_is_open_until_it_is_told(
    simulator: Simulator, lab: OneTask, end: str, said: tuple[str, str | None, bool]
) -> None:
    """Weeks later as well: nothing parks it, nothing calls it again."""
    intent = opened(lab, "pm_card_processing", "pending_at_gateway")
    pass_by(lab, 20 * DAY_S)
    assert [] == finals(lab)
    simulator.post(f"/_intents/{intent}/{end}", {})
    pass_by(lab, 2 * DAY_S)
    assert [said] == finals(lab)
    assert 1 == simulator.stats()["calls"]


def test_it_is_refunded(simulator: Simulator, lab: OneTask) -> None:
    """By its intent."""
    intent = opened(lab, "pm_card_authenticationRequired", "authentication_required")
    simulator.post(f"/_intents/{intent}/confirm", {})
    pass_by(lab, 3600)
    refund = payment(lab, "r1", action="refund", refund_of="p1", amount_minor=200)
    (result,) = lab.send(refund)
    assert "succeeded" == result["status"]
    assert [(intent, 200)] == [
        (row["payment_intent"], row["amount"]) for row in simulator.get("/v1/refunds")["data"]
    ]
