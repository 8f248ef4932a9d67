"""The bridge from our gross to the payout, per gateway and currency.

Each step is summed by a question of its own, the totals too; `problems` says where they do not add up, which
would be a defect here, not in the books.
"""

# ruff: noqa: S608 - every part of these statements is a constant of this module
from __future__ import annotations

import sqlite3
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Final, NamedTuple

Where = tuple[str, str]
"""Gateway, currency."""


class Step(NamedTuple):
    """One row of the bridge: `sign` + adds, - takes away, = is a total, · stands beside it."""

    name: str
    sign: str
    title: str


STEPS: Final = (
    Step("our_gross", "=", "Charged, by our books"),
    Step("only_gateway", "+", "at the gateway alone"),
    Step("only_ours", "-", "in our books alone"),
    Step("amounts_differ", "+", "differences of amount"),
    Step("gateway_gross", "=", "Charged, by the gateway's list"),
    Step("not_settled", "-", "in no settlement file yet"),
    Step("converted_out", "-", "settled in another currency"),
    Step("converted_in", "+", "charges of another currency, settled in this one"),
    Step("only_settled", "+", "in a settlement file alone"),
    Step("foreign_settled", "+", "charges in it that are not ours"),
    Step("settled_differ", "+", "differences between list and file"),
    Step("settled_gross", "=", "Charged, by the settlement files"),
    Step("fees", "-", "fees"),
    Step("refunds", "-", "refunds"),
    Step("disputes", "-", "disputes"),
    Step("adjustments", "+", "adjustments"),
    Step("conversions", "+", "converted from or into another currency"),
    Step("lines_net", "=", "Net of all lines"),
    Step("not_paid", "-", "lines of no payout that is named yet"),
    Step("payout_differs", "+", "payouts, as far as their lines do not make them up"),
    Step("paid_out", "=", "Paid out"),
)
BESIDE: Final = (
    Step("unknown", "·", "outcome unknown"),
    Step("parked", "·", "parked, waits for a person"),
    Step("held", "·", "refunds that wait for their charge"),
    Step("observed", "·", "reported by the gateway, event not seen yet"),
    Step("our_refunds", "·", "refunded, by our books"),
    Step("gateway_refunds", "·", "refunded, by the gateway's list"),
    Step("gateway_disputes", "·", "disputed, by the gateway's list"),
    Step("foreign", "·", "the gateway's charges that are not ours"),
)
HELD: Final = "('charge_unknown', 'unknown_charge')"
_OURS: Final = "b.kind = 'charge' AND b.status = 'succeeded' AND b.ours"
_A: Final = "a.action = 'charge' AND a.moved > 0"
_PAIRED: Final = f"FROM a JOIN b ON b.id = a.b AND b.currency = a.currency WHERE {_A} AND {_OURS}"
_LINES: Final = "FROM kept.lines WHERE kind"

_SUMS: Final = {
    "our_gross": f"SELECT gateway, currency, sum(amount * moved) FROM a WHERE {_A} GROUP BY 1, 2",
    "paired_ours": f"SELECT a.gateway, a.currency, sum(a.amount) {_PAIRED} GROUP BY 1, 2",
    "paired_theirs": f"SELECT a.gateway, a.currency, sum(b.amount) {_PAIRED} GROUP BY 1, 2",
    "gateway_gross": f"SELECT gateway, currency, sum(amount) FROM b WHERE {_OURS} GROUP BY 1, 2",
    "only_gateway": f"""SELECT b.gateway, b.currency, sum(b.amount) FROM b LEFT JOIN a
        ON a.id = b.a AND a.currency = b.currency AND {_A} WHERE {_OURS} AND a.id IS NULL GROUP BY 1, 2""",
    "only_ours": f"""SELECT a.gateway, a.currency, sum(a.amount * (a.moved - (b.id IS NOT NULL))) FROM a
        LEFT JOIN b ON b.id = a.b AND b.currency = a.currency AND {_OURS} WHERE {_A} GROUP BY 1, 2""",
    "not_settled": f"""SELECT b.gateway, b.currency, sum(b.amount) FROM b WHERE {_OURS}
        AND NOT EXISTS (SELECT 1 FROM lm WHERE lm.b = b.id) GROUP BY 1, 2""",
    "converted_out": f"""SELECT b.gateway, b.currency, sum(b.amount) FROM b WHERE {_OURS}
        AND EXISTS (SELECT 1 FROM lm WHERE lm.b = b.id)
        AND NOT EXISTS (SELECT 1 FROM lm JOIN kept.lines l ON l.id = lm.line
            WHERE lm.b = b.id AND l.currency = b.currency) GROUP BY 1, 2""",
    "converted_in": f"""SELECT l.gateway, l.currency, sum(l.gross) FROM lm
        JOIN kept.lines l ON l.id = lm.line JOIN b ON b.id = lm.b AND b.currency <> l.currency
        WHERE {_OURS} AND l.kind = 'charge' GROUP BY 1, 2""",
    "settled_theirs": f"""SELECT b.gateway, b.currency, sum(b.amount) FROM b WHERE {_OURS}
        AND EXISTS (SELECT 1 FROM lm JOIN kept.lines l ON l.id = lm.line
            WHERE lm.b = b.id AND l.currency = b.currency) GROUP BY 1, 2""",
    "settled_lines": f"""SELECT l.gateway, l.currency, sum(l.gross) FROM lm
        JOIN kept.lines l ON l.id = lm.line JOIN b ON b.id = lm.b AND b.currency = l.currency
        WHERE {_OURS} AND l.kind = 'charge' GROUP BY 1, 2""",
    "only_settled": """SELECT l.gateway, l.currency, sum(l.gross) FROM kept.lines l
        LEFT JOIN lm ON lm.line = l.id WHERE l.kind = 'charge' AND lm.b IS NULL GROUP BY 1, 2""",
    "foreign_settled": f"""SELECT l.gateway, l.currency, sum(l.gross) FROM lm
        JOIN kept.lines l ON l.id = lm.line JOIN b ON b.id = lm.b
        WHERE l.kind = 'charge' AND NOT coalesce({_OURS}, 0) GROUP BY 1, 2""",
    "settled_gross": f"SELECT gateway, currency, sum(gross) {_LINES} = 'charge' GROUP BY 1, 2",
    "fees": f"SELECT gateway, currency, sum(fee) {_LINES} <> 'payout' GROUP BY 1, 2",
    "refunds": f"SELECT gateway, currency, -sum(gross) {_LINES} = 'refund' GROUP BY 1, 2",
    "disputes": f"SELECT gateway, currency, -sum(gross) {_LINES} = 'dispute' GROUP BY 1, 2",
    "adjustments": f"SELECT gateway, currency, sum(gross) {_LINES} = 'adjustment' GROUP BY 1, 2",
    "conversions": f"SELECT gateway, currency, sum(gross) {_LINES} = 'conversion' GROUP BY 1, 2",
    "lines_net": f"SELECT gateway, currency, sum(net) {_LINES} <> 'payout' GROUP BY 1, 2",
    "paid_out": f"SELECT gateway, currency, sum(net) {_LINES} = 'payout' GROUP BY 1, 2",
    "payout_differs": """SELECT p.gateway, p.currency, sum(p.paid - coalesce(l.net, 0)) FROM (
            SELECT gateway, payout_id, currency, sum(net) AS paid FROM kept.lines WHERE kind = 'payout'
            GROUP BY 1, 2, 3) p
        LEFT JOIN (SELECT gateway, payout_id, currency, sum(net) AS net FROM kept.lines WHERE kind <> 'payout'
            GROUP BY 1, 2, 3) l
        ON l.gateway = p.gateway AND l.payout_id = p.payout_id AND l.currency = p.currency GROUP BY 1, 2""",
    "not_paid": """SELECT gateway, currency, sum(net) FROM kept.lines l WHERE kind <> 'payout'
        AND NOT EXISTS (SELECT 1 FROM temp.payouts p WHERE p.gateway = l.gateway AND p.currency = l.currency
        AND p.payout_id = l.payout_id) GROUP BY 1, 2""",
    "unknown": f"""SELECT gateway, currency, sum(amount) FROM a WHERE status = 'unknown'
        AND coalesce(reason, '') NOT IN {HELD} GROUP BY 1, 2""",
    "parked": "SELECT gateway, currency, sum(amount) FROM a WHERE status = 'parked' GROUP BY 1, 2",
    "held": f"""SELECT gateway, currency, sum(amount) FROM a WHERE status = 'unknown'
        AND reason IN {HELD} GROUP BY 1, 2""",
    "observed": """SELECT gateway, currency, sum(amount) FROM observed o WHERE seen = 'succeeded'
        AND NOT EXISTS (SELECT 1 FROM a WHERE a.fold = o.payment) GROUP BY 1, 2""",
    "our_refunds": """SELECT gateway, currency, sum(amount * moved) FROM a
        WHERE action = 'refund' AND moved > 0 GROUP BY 1, 2""",
    "gateway_refunds": """SELECT gateway, currency, sum(amount) FROM b
        WHERE kind = 'refund' AND status = 'succeeded' AND ours GROUP BY 1, 2""",
    "gateway_disputes": """SELECT gateway, currency, sum(amount - returned) FROM b
        WHERE kind = 'dispute' AND status = 'succeeded' AND ours GROUP BY 1, 2""",
    "foreign": f"""SELECT gateway, currency, sum(amount) FROM b
        WHERE kind = 'charge' AND status = 'succeeded' AND NOT coalesce({_OURS}, 0) GROUP BY 1, 2""",
}  # fmt: skip
_PAYOUTS: Final = """CREATE TEMP TABLE payouts AS SELECT DISTINCT gateway, currency, payout_id FROM kept.lines
    WHERE kind = 'payout' AND payout_id IS NOT NULL"""


_OF_FILES: Final = ("settled_gross", "lines_net", "paid_out", "fees", "refunds", "disputes", "conversions")


@dataclass(slots=True)
class Bridge:
    """Minor units of one gateway in one currency, by name of the step; `settled`: it has settlement lines."""

    gateway: str
    currency: str
    amounts: dict[str, int] = field(default_factory=dict)
    settled: bool = False

    def problems(self) -> list[str]:
        """Totals that are not the sum of the steps before them."""
        found, total = [], 0
        for name, sign, title in STEPS:
            amount = self.amounts[name]
            if sign == "=" and name != "our_gross" and total != amount:
                found.append(f"{self.gateway} {self.currency}: {title}: {amount}, the steps give {total}")
            total = amount if sign == "=" else total + amount if sign == "+" else total - amount
            if name == "gateway_gross" and not self.settled:
                break
        return found


def bridges(db: sqlite3.Connection) -> list[Bridge]:
    """One bridge for each gateway and currency that any leg has, in their order."""
    db.execute(_PAYOUTS)
    sums: dict[str, dict[Where, int]] = defaultdict(dict)
    for name, statement in _SUMS.items():
        for gateway, currency, amount in db.execute(statement):
            sums[name][gateway, currency] = amount or 0
    db.execute("DROP TABLE temp.payouts")
    wheres = sorted({where for by_where in sums.values() for where in by_where})
    return [_bridge(where, {name: sums[name].get(where, 0) for name in _SUMS}) for where in wheres]


def _bridge(where: Where, found: dict[str, int]) -> Bridge:
    """The differences in the middle are those of the pairs, so that the totals prove something."""
    amounts = dict(found)
    amounts["amounts_differ"] = amounts.pop("paired_theirs") - amounts.pop("paired_ours")
    amounts["settled_differ"] = amounts.pop("settled_lines") - amounts.pop("settled_theirs")
    settled = any(found[name] for name in _OF_FILES)
    return Bridge(*where, amounts, settled)
