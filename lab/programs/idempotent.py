"""At least once with an idempotent handler: the key of each charge is a function of the payment alone.

The gateway charges once, however often it is asked. The results still come once for each time the payment
is handled: who adds them up, adds some of them twice.
"""

from lab.guarantees import ANSWERED, CHARGED, COMMITTED
from lab.programs.till import NoReply, Till, status_of


def main() -> None:
    """Take, charge under the payment's own key until there is a reply, answer, commit."""
    till = Till()
    for batch in till.batches():
        for payment in batch:
            key = f"{payment['user_id']}/{payment['payment_id']}"
            status = None
            while status is None:
                try:
                    status = status_of(till.charge(payment, key))
                except NoReply:
                    continue  # the same key: the gateway answers what it did the first time
            till.probe(CHARGED)
            till.answer(payment, status)
        till.flush()
        till.probe(ANSWERED)
        till.commit()
        till.probe(COMMITTED)


if __name__ == "__main__":
    main()
