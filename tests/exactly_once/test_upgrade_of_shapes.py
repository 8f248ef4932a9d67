"""An upgrade that changes the shape of a request, amid calls of the older release."""

from __future__ import annotations

import sys
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

from support.paypal_server import MOST, PayPalServer
from support.system import STEADY, System, payment

from processes import ROOT
from streamsocial_billing.domain.events import PaymentEvent
from streamsocial_billing.domain.payment_identity import gateway_key

OLDER = (sys.executable, "-P", str(ROOT / "tests/support/older_worker.py"))
USERS = [str(uuid.UUID(int=number)) for number in range(1, 9)]
CHARGE, REFUND = str(uuid.UUID(int=100)), str(uuid.UUID(int=200))


def charge(user: str) -> PaymentEvent:
    """9.99 EUR at PayPal, under ids whose words have more than 127 characters with the reference."""
    return payment(user, CHARGE, gateway="paypal", payment_method="vault-1")


def refund(user: str) -> PaymentEvent:
    """A part of it."""
    about = {"action": "refund", "refund_of": CHARGE, "amount_minor": 400}
    return payment(user, REFUND, gateway="paypal", payment_method="vault-1", **about)


def killed_amid_calls(system: System, events: list[PaymentEvent]) -> None:
    """A worker of the older release calls for some of the events, and dies before it commits."""
    worker, program = system.worker, system.worker.program
    system.submit(events)
    worker.program = OLDER
    worker.start()
    worker.wait_killed()
    worker.program = program


def test_a_kill_between_call_and_commit_across_the_upgrade_moves_money_once(
    broker: str, tmp_path: Path, unique_name: str
) -> None:
    """The newer worker is refused its own shape, tries each older one, gets that very call's answer."""
    with PayPalServer(most=1000) as paypal:  # one that took the long words: else there was no such call
        options: dict[str, Any] = {
            "BILLING_PAYPAL_CLIENT_ID": "client", "BILLING_PAYPAL_CLIENT_SECRET": "geheim",
            "BILLING_PAYPAL_URL": paypal.url, **STEADY,  # no call is doubted and repeated
        }  # fmt: skip
        with System(broker, tmp_path, unique_name, partitions=2, **options) as system:
            for kind, events, newer_shapes in (
                ("capture", [charge(user) for user in USERS], 2),
                ("refund", [refund(user) for user in USERS], 1),
            ):
                killed_amid_calls(system, events)
                before = paypal.of_kind(kind)
                assert before, "the older worker died before it called"
                assert all(len(one["custom_id"]) > MOST for one in before)
                system.worker.start()
                system.wait_answered()
                assert 0 == system.worker.stop()

                moved = paypal.of_kind(kind)
                # a call of the one that died may have been carried out after its death
                before = [one for one in moved if len(one["custom_id"]) > MOST]
                keys = {gateway_key(event) for event in events}
                assert dict.fromkeys(keys, 1) == dict(Counter(one["invoice_id"] for one in moved))
                assert before == moved[: len(before)]
                assert all(len(one["custom_id"]) <= MOST for one in moved[len(before) :])
                assert {one["invoice_id"]: newer_shapes for one in before} == {
                    key: times for key, times in paypal.mismatches.items() if key in keys
                }
                results = [
                    one for one in system.all_results() if one["payment_id"] == events[0].payment_id
                ]  # fmt: skip
                assert [("succeeded", False)] * len(USERS) == [
                    (one["status"], one["resolves"]) for one in results
                ]
                assert {one["id"] for one in moved} == {one["gateway_ref"] for one in results}
