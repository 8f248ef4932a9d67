"""Whatever bytes come on `payments`: a dead letter each, never a crash, never a call."""

import random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.asked_gateway import AskedGateway
from support.one_task import OneTask

from streamsocial_billing.settings import DEAD_LETTERS, PAYMENTS

EXAMPLES = 20
RECORDS = 500


@settings(
    max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow],
    derandomize=False,
)  # fmt: skip
@given(st.randoms(use_true_random=True))
def test_ten_thousand_random_byte_strings_are_ten_thousand_dead_letters(made: random.Random) -> None:
    """20 x 500 records: each one in a dead letter with its bytes; the task goes on with what is good."""
    gateway = AskedGateway()
    records = [
        (
            made.choice([None, b"u1", made.randbytes(8)]),
            made.randbytes(made.randrange(200)),
        )
        for _ in range(RECORDS)
    ]
    with OneTask(gateway) as lab:
        for key, value in records:
            lab.append(PAYMENTS, key, value)
        lab.handle()

        assert sorted(value for _, value in records) == sorted(one.value for one in lab.sent(DEAD_LETTERS))
        assert ([], []) == (lab.results(), gateway.calls)
