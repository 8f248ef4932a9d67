"""At most once: the offset is committed before the work. A crash in between loses the payment."""

import uuid

from lab.guarantees import ANSWERED, CHARGED, COMMITTED
from lab.programs.till import NoReply, Till, status_of


def main() -> None:
    """Take, commit, charge, answer."""
    till = Till()
    for batch in till.batches():
        till.commit()
        till.probe(COMMITTED)
        for payment in batch:
            try:
                status = status_of(till.charge(payment, uuid.uuid4().hex))
            except NoReply:
                status = "failed"  # trying again could charge twice, and twice is not "at most once"
            till.probe(CHARGED)
            till.answer(payment, status)
        till.flush()
        till.probe(ANSWERED)


if __name__ == "__main__":
    main()
