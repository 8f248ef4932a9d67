"""Asks the gateways once more before a break counts that says they have nothing, or the contrary of us."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Any, Final

import orjson

from streamsocial_billing.domain.gateway_calls import Found, Query
from streamsocial_billing.domain.payment_identity import gateway_key_of
from streamsocial_billing.domain.statuses import OPEN
from streamsocial_billing.gateways.base import Gateway
from streamsocial_billing.reconciliation.breaks import TIMING, break_id
from streamsocial_billing.reconciliation.gateway_lists import ASK_MOST, answer_text, ask_once, ask_twice

CALLED_BEFORE_MS: Final = 2 * 86_400_000
"""How long before its last word a payment may have been called: it is given up after a day."""

_ASKED: Final = """
SELECT k.id, k.class, k.body, a.user_id, a.payment_id, a.action, a.amount, a.currency, a.at, a.status,
    c.gateway_ref AS charge_ref, CASE WHEN a.intent_charge IS NULL THEN NULL ELSE a.gateway_ref END AS intent
FROM breaks k
JOIN a ON a.fold = json_extract(k.body, '$.user_id') || '/' || json_extract(k.body, '$.payment_id')
LEFT JOIN a AS c ON c.fold = a.user_id || '/' || a.refund_of
WHERE k.class = ? AND k.gateway = ? AND a.origin = 'event' ORDER BY k.since, k.id LIMIT ?"""


async def ask(db: sqlite3.Connection, gateways: Mapping[str, Gateway]) -> None:
    """Add to the breaks what the gateways answer; what they confirm is only a list that lags, so `timing`."""
    db.row_factory = sqlite3.Row
    for class_, question in (("missing_external", ask_twice), ("status_mismatch", ask_once)):
        for name in sorted(gateways):
            rows = db.execute(_ASKED, (class_, name, ASK_MOST)).fetchall()
            answers = await question(gateways[name], [_query(row) for row in rows]) if rows else []
            for row, answer in zip(rows, answers, strict=True):
                same = isinstance(answer, Found) and answer.status == row["status"]
                confirmed = same and isinstance(answer, Found) and answer.agrees(_query(row))
                _change(db, row, answer_text(answer), confirmed=confirmed)


def _query(row: Mapping[str, Any]) -> Query:
    key = gateway_key_of(row["user_id"], row["action"], row["payment_id"])
    final = row["status"] not in OPEN  # then its calls were over before its result
    return Query(
        idempotency_key=key, action=row["action"], user_id=row["user_id"], payment_id=row["payment_id"],
        amount_minor=row["amount"], currency=row["currency"], since_ms=row["at"] - CALLED_BEFORE_MS,
        charge_ref=row["charge_ref"] if row["action"] == "refund" else None,
        until_ms=row["at"] if final else None, intent=row["intent"],
    )  # fmt: skip


def _change(db: sqlite3.Connection, row: Mapping[str, Any], what: str, *, confirmed: bool) -> None:
    body = orjson.loads(row["body"])
    body["detail"] = f"{body['detail']}; {what}"
    if not confirmed:
        text = orjson.dumps(body).decode()
        db.execute("UPDATE breaks SET body = ? WHERE id = ?", (text, row["id"]))
        return
    name = break_id(TIMING, (row["id"],))
    body |= {"id": name, "class": TIMING, "open": False, "action": "nothing: the list lags behind"}
    db.execute(
        "UPDATE breaks SET id = ?, class = ?, open = 0, body = ?, event = NULL WHERE id = ?",
        (name, TIMING, orjson.dumps(body).decode(), row["id"]),
    )
