"""A PayPal capture that is pending, in the whole application, at a PayPal that tells when it likes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.audited import breaks
from support.called_for_real import CalledForReal
from support.one_task import OneTask
from support.paypal_server import PayPalServer
from support.wishes import payment

from streamsocial_billing.gateways.paypal.client import PayPalGateway
from streamsocial_billing.gateways.paypal.webhook import read
from streamsocial_billing.gateways.provider_event import gateway_events, ids_of
from streamsocial_billing.settings import GATEWAY_EVENTS

DAY_S = 86_400


@pytest.fixture
def server() -> Iterator[PayPalServer]:
    with PayPalServer(status="PENDING") as server:
        yield server


@pytest.fixture
def lab(server: PayPalServer) -> Iterator[OneTask]:
    with CalledForReal(PayPalGateway("client", "geheim", server.url)) as real, OneTask(real) as lab:
        yield lab
        assert [] == breaks(lab)
        assert [] == lab.dead_letters()


def opened(lab: OneTask) -> None:
    """A payment whose capture is pending."""
    (result,) = lab.send(payment(lab, gateway="paypal", payment_method="vault-1"))
    assert ("unknown", "pending_at_gateway") == (result["status"], result["reason"])


def finals(lab: OneTask) -> list[tuple[str, str | None, bool]]:
    return [
        (one["status"], one["reason"], one["resolves"]) for one in lab.results() if one["status"] != "unknown"
    ]


def pass_by(lab: OneTask, seconds: float) -> None:
    """Time passes; timers look now and then."""
    for _ in range(14):
        lab.wait(seconds / 14)
        lab.look()


@pytest.mark.parametrize(
    ("status", "end"),
    [("COMPLETED", ("succeeded", None, True)), ("DECLINED", ("declined", "declined", True))],
)
def test_it_is_open_until_paypal_says_more(
    server: PayPalServer, lab: OneTask, status: str, end: tuple[str, str | None, bool]
) -> None:
    """Weeks later as well: no schedule parks it, nothing calls it again; then its own status settles it."""
    opened(lab)
    pass_by(lab, 20 * DAY_S)
    assert [] == finals(lab)
    assert "unknown" == lab.entry("u1", "p1")["status"]
    server.moved[0]["status"] = status
    pass_by(lab, 2 * DAY_S)
    assert [end] == finals(lab)
    assert 1 == len(server.moved)


def test_a_message_settles_it_at_once(server: PayPalServer, lab: OneTask) -> None:
    """PAYMENT.CAPTURE.COMPLETED; what is asked afterwards changes nothing."""
    opened(lab)
    server.moved[0]["status"] = "COMPLETED"
    mapped = read({
        "id": "WH-1", "event_type": "PAYMENT.CAPTURE.COMPLETED", "create_time": "2026-11-30T12:00:00Z",
        "resource": server.moved[0],
    })  # fmt: skip
    assert mapped is not None
    of = ids_of(mapped)
    assert of is not None
    for event in gateway_events("paypal", mapped, of):
        lab.append(GATEWAY_EVENTS, event.user_id.encode(), event.to_bytes())
    lab.handle()
    pass_by(lab, DAY_S)
    assert [("succeeded", None, True)] == finals(lab)
