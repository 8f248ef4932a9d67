"""At least once: the offset is committed after the work. A crash in between repeats the charge."""

import uuid

from lab.guarantees import ANSWERED, CHARGED, COMMITTED
from lab.programs.till import Till, status_of


def main() -> None:
    """Take, charge until there is a reply, answer, commit."""
    till = Till()
    for batch in till.batches():
        for payment in batch:
            # another key each time: the gateway takes a repeat for another payment
            charge = till.insist(payment, lambda: uuid.uuid4().hex)
            till.probe(CHARGED)
            till.answer(payment, status_of(charge))
        till.flush()
        till.probe(ANSWERED)
        till.commit()
        till.probe(COMMITTED)


if __name__ == "__main__":
    main()
