"""What a gateway did, told in any order, twice, or not at all: a run repairs the rest.

Operations: one charge, paid at Stripe; our refund of it, which may fail afterwards; a refund in the
dashboard, which may fail too; a dispute with any movements. Each state of an object is a message; some are
told, in any order, some twice, some never.
Checked properties, after the repairs of one run:
1. the next run finds nothing, and sends nothing;
2. what is gone of the charge is what the gateway's objects say, by the entry and by the user's money;
3. the live audit finds nothing, nothing became a dead letter.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.audited import breaks
from support.merchant import DAY_S, Merchant
from support.one_task import OneTask
from support.scripted_gateway import ScriptedGateway

from streamsocial_billing.settings import Settings

AMOUNT = 5000
Message = tuple[str, dict[str, Any]]


def states(shop: Merchant, ours: str, board: str, moves: list[int]) -> list[Message]:
    """Everything happens; a message for each state."""
    charge = shop.charge("stripe", "c1", AMOUNT, "EUR")
    notified: list[Message] = []
    if ours != "none":
        shop.refund("stripe", "r1", "c1", 700)
        row = shop.stripe["refund"][-1]
        notified.append(("refund.created", deepcopy(row)))
        if ours == "failed":
            notified.append(("refund.failed", deepcopy(shop.fail_refund(row["id"]))))
    if board != "none":
        shop.list_refund("re_board", charge, 400, "EUR", None)
        notified.append(("refund.created", deepcopy(shop.stripe["refund"][-1])))
        if board == "failed":
            notified.append(("refund.updated", deepcopy(shop.fail_refund("re_board"))))
    return notified + disputed(shop, charge, moves)


def disputed(shop: Merchant, charge: str, moves: list[int]) -> list[Message]:
    """An inquiry, then its movements; what comes back is at most what was taken."""
    opened = shop.dispute("du_1", charge, 1000, "EUR", "warning_needs_response")
    notified: list[Message] = [("charge.dispute.created", deepcopy(opened))]
    gone = 0
    for move in moves:
        if gone - move < 0:
            continue
        gone -= move
        it = shop.dispute("du_1", charge, 1000, "EUR", "needs_response", move)
        kind = "funds_withdrawn" if move < 0 else "funds_reinstated"
        notified.append((f"charge.dispute.{kind}", deepcopy(it)))
    status = "lost" if gone else "won" if moves else "warning_closed"
    notified.append(("charge.dispute.closed", deepcopy(shop.dispute("du_1", charge, 1000, "EUR", status))))
    return notified


END = st.sampled_from(("none", "succeeded", "failed"))


@given(END, END, st.lists(st.sampled_from((-500, -300, 200, 300, 500)), max_size=4), st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_one_run_repairs_what_no_message_told(
    ours: str, board: str, moves: list[int], data: st.DataObject
) -> None:
    """Properties 1 to 3."""
    scripted = {name: ScriptedGateway(name=name, account=f"acct_{name}") for name in ("stripe", "paypal")}
    with OneTask(*scripted.values(), settings=Settings(partitions=1)) as lab:
        shop = Merchant(lab, scripted)
        messages = states(shop, ours, board, moves)
        for at in data.draw(st.lists(st.integers(0, len(messages) - 1), max_size=8)):
            shop.notify("stripe", *messages[at])
        assert [] == breaks(lab)
        lab.wait(5 * DAY_S)
        _, repairs, bridges = shop.run([])
        shop.repair(repairs)
        assert [] == [problem for one in bridges for problem in one.problems()]

        assert ([], []) == shop.run([])[:2]
        (dispute,) = shop.stripe["dispute"]
        gone = 700 * (ours == "succeeded") + 400 * (board == "succeeded")
        gone -= sum(row["amount"] for row in dispute["balance_transactions"])
        assert gone == lab.entry("user-c1", "c1")["refunded_minor"]
        money = lab.row("charges", "user-c1")["money"]["EUR"]
        assert AMOUNT - gone == money["charged_minor"] - money["refunded_minor"]
        assert ([], []) == (breaks(lab), lab.dead_letters())
