"""At least once: the offset is committed after the work. A crash in between repeats the charge."""

import uuid

from lab.guarantees import ANSWERED, CHARGED, COMMITTED
from lab.programs.till import NoReply, Till, status_of


def main() -> None:
    """Take, charge until there is a reply, answer, commit."""
    till = Till()
    for batch in till.batches():
        for payment in batch:
            status = None
            while status is None:
                try:
                    status = status_of(till.charge(payment, uuid.uuid4().hex))
                except NoReply:
                    continue  # no payment may be lost: again, and the gateway takes it for another one
            till.probe(CHARGED)
            till.answer(payment, status)
        till.flush()
        till.probe(ANSWERED)
        till.commit()
        till.probe(COMMITTED)


if __name__ == "__main__":
    main()
