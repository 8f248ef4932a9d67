"""What of lists and files is not ours: counted by gateway and currency, as it came, and never a break.

Reads the tables that `match` leaves.
"""

from __future__ import annotations

import sqlite3
from typing import Any, Final

from streamsocial_billing.gateways.errors import InputRefused

LINE_IS_OURS: Final = """l.ref IS NOT NULL
    OR EXISTS (SELECT 1 FROM a AS c WHERE c.gateway = l.gateway AND c.action = 'charge'
        AND c.gateway_ref = l.charge_ref)
    OR EXISTS (SELECT 1 FROM b AS c WHERE c.gateway = l.gateway AND c.ours AND c.kind = 'charge'
        AND c.gateway_ref = l.charge_ref)"""
"""Of a line `l` of a settlement file that no row of list or books has: by its reference, or its charge."""

_LISTED: Final = """
SELECT b.gateway, b.currency, b.kind, count(*), sum(b.amount) FROM rare JOIN b ON b.id = rare.id
WHERE NOT b.ours AND b.kind <> 'dispute_won' GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"""
_SETTLED: Final = f"""
SELECT gateway, currency, kind, count(*), sum(gross) FROM (
    SELECT l.* FROM rare JOIN b ON b.id = rare.id JOIN lm ON lm.b = b.id JOIN kept.lines l ON l.id = lm.line
    WHERE NOT b.ours AND l.kind IN ('charge', 'refund', 'dispute')
    UNION ALL
    SELECT l.* FROM loose JOIN kept.lines l ON l.id = loose.id WHERE NOT coalesce({LINE_IS_OURS}, 0))
GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"""  # noqa: S608 - constants
_UNREADABLE: Final = """
SELECT b.gateway, b.kind, b.gateway_ref, b.charge_ref FROM rare JOIN b ON b.id = rare.id
WHERE b.ours AND b.status = 'unreadable' ORDER BY b.gateway, b.gateway_ref LIMIT 1"""


def not_ours(db: sqlite3.Connection) -> list[dict[str, Any]]:
    """Rows with `leg` (`list`, `files`), `gateway`, `currency`, `kind`, `count`, `amount_minor`."""
    names = ("gateway", "currency", "kind", "count", "amount_minor")
    return [
        {"leg": leg, **dict(zip(names, row, strict=True))}
        for leg, statement in (("list", _LISTED), ("files", _SETTLED))
        for row in db.execute(statement).fetchall()
    ]


def refuse_unreadable(db: sqlite3.Connection) -> None:
    """Raise InputRefused for a refund or dispute of a charge of ours that nobody can read."""
    row = db.execute(_UNREADABLE).fetchone()
    if row is not None:
        gateway, kind, ref, charge = row
        raise InputRefused(f"the {kind} {ref} of our charge {charge}, listed by {gateway}, is not readable")
