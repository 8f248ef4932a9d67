"""How far one charge travels through the code: files that it visits, how often it comes back to one.

Counted while the whole application handles it in memory: every call from one file of the product into
another. The layer and libraries have no part in it, nor has the gateway, which is a test's here.
"""

from __future__ import annotations

from collections import Counter

import pytest
from support.one_task import OneTask
from support.traced import Called, calls_of, files_entered, returns

from streamsocial_billing.domain.events import PaymentEvent
from streamsocial_billing.settings import PAYMENTS

MOST_RETURNS = 4
MOST_FILES = 19
MOST_CALLS = 57
"""Python functions of the product and of the layer, from the handler's start to its end."""
MOST_CALLS_OF_A_REFUND = 100
"""It reads and writes its charge, too, and ends at once."""
FIELDS = {
    "user_id": "u1", "product": "gift", "amount_minor": 500, "currency": "USD",
    "payment_method": "pm_card_visa", "gateway": "simulated",
}  # fmt: skip
REFUND = {"action": "refund", "refund_of": "p1", "amount_minor": 200}


def calls_for(lab: OneTask, payment_id: str, **fields: object) -> list[Called]:
    """Those of a payment whose user has paid before."""
    before, one = (
        PaymentEvent.from_mapping(FIELDS | said, now_ms=lab.now_ms)
        for said in ({"payment_id": "p1"}, {"payment_id": payment_id, **fields})
    )
    lab.send(before)
    lab.append(PAYMENTS, b"u1", one.to_bytes())
    return calls_of(lab.handle, within="KeyQueues._handle")


@pytest.fixture
def calls(lab: OneTask) -> list[Called]:
    """Those of a charge."""
    return calls_for(lab, "p2")


def test_a_charge_hardly_comes_back_to_a_file_that_it_has_left(calls: list[Called]) -> None:
    """Whoever reads along turns back so often: to load, decide, call, record, write, follow is one way."""
    back = Counter(returns(files_entered(calls)))
    assert back.total() <= MOST_RETURNS, f"{back.total()} returns: {dict(back)}"


def test_a_charge_goes_through_few_files(calls: list[Called]) -> None:
    """With each helper that stands in a file of its own."""
    files = list(dict.fromkeys(files_entered(calls)))
    assert len(files) <= MOST_FILES, files


def test_a_charge_takes_few_calls(calls: list[Called]) -> None:
    """What grew stands in the message, the most frequent first."""
    assert len(calls) <= MOST_CALLS, Counter(one.function for one in calls).most_common()


def test_a_refund_takes_few_calls(lab: OneTask) -> None:
    """What it has loaded it does not load again."""
    calls = calls_for(lab, "r1", **REFUND)
    assert len(calls) <= MOST_CALLS_OF_A_REFUND, Counter(one.function for one in calls).most_common()
