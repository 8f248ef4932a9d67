"""At least once with an idempotent handler: the key of each charge is a function of the payment alone.

The gateway charges once, however often it is asked. The results still come once for each time the payment
is handled: who adds them up, adds some of them twice.
"""

from functools import partial
from typing import Any

from lab.guarantees import ANSWERED, CHARGED, COMMITTED
from lab.programs.till import Till, status_of


def key_of(payment: dict[str, Any]) -> str:
    """The idempotency key: a function of the payment alone."""
    return f"{payment['user_id']}/{payment['payment_id']}"


def main() -> None:
    """Take, charge under the payment's own key until there is a reply, answer, commit."""
    till = Till()
    for batch in till.batches():
        for payment in batch:
            # the same key each time: the gateway answers what it did the first time
            charge = till.insist(payment, partial(key_of, payment))
            till.probe(CHARGED)
            till.answer(payment, status_of(charge))
        till.flush()
        till.probe(ANSWERED)
        till.commit()
        till.probe(COMMITTED)


if __name__ == "__main__":
    main()
