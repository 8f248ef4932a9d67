"""Matches the legs, pass by pass; each record is used once.

1. by the gateway's reference       2. by our reference (the gateway key)
3. by amount, currency, time: only a proposal for what is left (`proposals`)

Where several records fit, the choice depends on what they say, never on the order in which they came; what is
left over shows as a duplicate.
"""

from __future__ import annotations

import sqlite3
from typing import Final

# what was rejected was refused before the gateway: it has no counterpart
_BY_THEIR_REF: Final = """
UPDATE a SET b = (SELECT b.id FROM b WHERE b.gateway = a.gateway AND b.gateway_ref = a.gateway_ref)
WHERE gateway_ref IS NOT NULL AND status <> 'rejected'"""

# two rows of our books name the same movement: the one that says it succeeded, then the older one keeps it
_TWINS: Final = """
CREATE TEMP TABLE twins AS
SELECT id, first_value(id) OVER each AS winner FROM (
    SELECT * FROM a WHERE b IN (SELECT b FROM a WHERE b IS NOT NULL GROUP BY b HAVING count(*) > 1))
WINDOW each AS (PARTITION BY b ORDER BY status = 'succeeded' DESC, at, fold)"""

_BY_OUR_REF: Final = """
CREATE TEMP TABLE pairs AS
SELECT a, b FROM (
    SELECT a.id AS a, b.id AS b, row_number() OVER (
        PARTITION BY a.id ORDER BY b.status = 'succeeded' DESC, b.created, b.gateway_ref) AS rank
    FROM a JOIN b ON b.ref = a.ref AND b.gateway = a.gateway AND b.kind = a.action
    WHERE a.b IS NULL AND a.twin IS NULL AND b.a IS NULL AND a.status <> 'rejected')
WHERE rank = 1"""

_LINES: Final = """
INSERT INTO lm (line, b, a)
SELECT l.id, coalesce(b.dispute, b.id), NULL FROM kept.lines l
JOIN b ON b.gateway = l.gateway AND b.gateway_ref = l.gateway_ref WHERE l.kind <> 'payout'"""

_LINES_BY_REF: Final = """
INSERT INTO lm (line, b, a)
SELECT line, b, NULL FROM (
    SELECT l.id AS line, b.id AS b, row_number() OVER (
        PARTITION BY l.id ORDER BY b.created, b.gateway_ref) AS rank
    FROM kept.lines l JOIN b
        ON b.ref = l.ref AND b.gateway = l.gateway AND b.kind = l.kind AND b.status = 'succeeded'
    WHERE l.gateway_ref IS NULL AND l.kind IN ('charge', 'refund'))
WHERE rank = 1"""

# a refund or dispute that names its charge alone (Stripe's exports without source_id): by its amount, in
# their order; what gives money back belongs to one that the list says failed
_NAMELESS: Final = """
CREATE TEMP TABLE nameless AS
SELECT id, gateway, kind, charge_ref, abs(coalesce(facing, gross)) AS amount, gross > 0 AS back,
    row_number() OVER (
        PARTITION BY gateway, kind, charge_ref, coalesce(facing, gross) ORDER BY at, line_id, id) AS nth
FROM kept.lines AS l WHERE gateway_ref IS NULL AND charge_ref IS NOT NULL AND kind IN ('refund', 'dispute')
    AND NOT EXISTS (SELECT 1 FROM lm WHERE lm.line = l.id)"""
_LINES_BY_CHARGE: Final = """
INSERT INTO lm (line, b, a)
SELECT l.id, r.id, NULL FROM nameless AS l
JOIN (
    SELECT id, gateway, kind, charge_ref, amount, row_number() OVER (
        PARTITION BY gateway, kind, charge_ref, amount ORDER BY created, gateway_ref) AS nth
    FROM b WHERE id IN (SELECT id FROM rare WHERE kind IN ('refund', 'dispute')) AND {which}) r
ON r.gateway = l.gateway AND r.kind = l.kind AND r.charge_ref = l.charge_ref AND r.amount = l.amount
    AND r.nth = l.nth
WHERE l.back = {back}"""

# the list may begin later (--since) than the settlement files: then our books are what a line is held against
_LINES_TO_BOOKS: Final = """
INSERT INTO lm (line, b, a)
SELECT line, NULL, a FROM (
    SELECT l.id AS line, a.id AS a, row_number() OVER (
        PARTITION BY l.id ORDER BY a.status = 'succeeded' DESC, a.at, a.fold) AS rank
    FROM kept.lines l JOIN a
        ON a.gateway = l.gateway AND (a.gateway_ref = l.gateway_ref OR a.ref = l.ref) AND a.action = l.kind
    WHERE l.kind <> 'payout' AND NOT EXISTS (SELECT 1 FROM lm WHERE lm.line = l.id))
WHERE rank = 1"""

# what is no charge, or bears no reference of ours: most statements below are about these alone
_RARE: Final = """
CREATE TEMP TABLE rare AS
SELECT id, gateway, gateway_ref, kind, charge_ref, ours FROM b WHERE kind <> 'charge' OR ours = 0"""

# PayPal copies a charge's reference onto the refund that its dashboard makes: it is not a refund of ours
_COPIED: Final = """
UPDATE b SET charge_key = ref, ref = NULL
WHERE id IN (SELECT id FROM rare WHERE kind = 'refund') AND ref IS NOT NULL AND (
    EXISTS (SELECT 1 FROM a WHERE a.ref = b.ref AND a.gateway = b.gateway AND a.action = 'charge')
    OR EXISTS (SELECT 1 FROM b AS c WHERE c.ref = b.ref AND c.gateway = b.gateway AND c.kind = 'charge'))"""

# PayPal: a reversal, or its end, that names no transaction but bears its charge's reference
_NAME_CHARGE: Final = """
UPDATE b SET charge_ref = (SELECT min(c.gateway_ref) FROM b AS c
    WHERE c.ref = b.charge_key AND c.gateway = b.gateway AND c.kind = 'charge' HAVING count(*) = 1)
WHERE id IN (SELECT id FROM rare WHERE kind IN ('dispute', 'dispute_won') AND charge_ref IS NULL)
    AND charge_ref IS NULL AND charge_key IS NOT NULL"""
_KEEP_NAMED: Final = """
UPDATE rare SET charge_ref = (SELECT b.charge_ref FROM b WHERE b.id = rare.id)
WHERE kind IN ('dispute', 'dispute_won') AND charge_ref IS NULL"""

# PayPal: what gave a dispute back has an id of its own, and names the dispute or its charge; of several
# disputes of a charge each is given back by one of its own amount
_ENDS: Final = """
CREATE TEMP TABLE ends AS
SELECT b.id, b.gateway, b.charge_ref, b.amount, b.currency, row_number() OVER (
    PARTITION BY b.gateway, b.charge_ref, b.amount ORDER BY b.created, b.gateway_ref) AS nth
FROM rare JOIN b ON b.id = rare.id WHERE rare.kind = 'dispute_won' AND b.status = 'succeeded'"""
_TAKEN: Final = """
CREATE TEMP TABLE taken AS
SELECT b.id, b.gateway, b.gateway_ref, b.charge_ref, b.amount, b.created, b.currency, row_number() OVER (
    PARTITION BY b.gateway, b.charge_ref, b.amount
    ORDER BY (b.gateway, b.gateway_ref) IN (SELECT gateway, charge_ref FROM ends), b.created, b.gateway_ref
    ) AS nth
FROM rare JOIN b ON b.id = rare.id WHERE rare.kind = 'dispute' AND EXISTS (SELECT 1 FROM ends)"""
_WON: Final = """
CREATE TEMP TABLE won AS
SELECT id, dispute, amount FROM (
    SELECT *, row_number() OVER (
        PARTITION BY id ORDER BY named DESC, fits DESC, same DESC, created, ref) AS rank
    FROM (
        SELECT w.id, d.id AS dispute, w.amount, 1 AS named, 0 AS fits, 0 AS same, d.created,
            d.gateway_ref AS ref
        FROM ends AS w CROSS JOIN taken AS d
            ON d.gateway = w.gateway AND d.gateway_ref = w.charge_ref AND d.currency = w.currency
        UNION ALL
        SELECT w.id, d.id, w.amount, 0, d.amount = w.amount AND d.nth = w.nth, d.amount = w.amount, d.created,
            d.gateway_ref
        FROM ends AS w CROSS JOIN taken AS d
            ON d.gateway = w.gateway AND d.charge_ref = w.charge_ref AND d.currency = w.currency))
WHERE rank = 1"""
_GIVE_BACK: Final = """
UPDATE b SET returned = min(b.amount, t.amount),
    status = CASE WHEN t.amount >= b.amount THEN 'failed' ELSE b.status END
FROM (SELECT dispute, sum(amount) AS amount FROM won GROUP BY 1) t
WHERE b.id = t.dispute"""
_NAME_DISPUTE: Final = "UPDATE b SET dispute = t.dispute FROM won t WHERE b.id = t.id"

_OURS_IN_BOOKS: Final = """
UPDATE b SET ours = 1 WHERE id IN (SELECT id FROM rare WHERE ours = 0) AND a IS NOT NULL"""
_OURS_BY_CHARGE: Final = """
UPDATE b SET ours = 1
WHERE id IN (SELECT id FROM rare WHERE ours = 0) AND ours = 0 AND charge_ref IS NOT NULL AND (
    EXISTS (SELECT 1 FROM a AS c WHERE c.gateway = b.gateway AND c.gateway_ref = b.charge_ref
        AND c.action IN ('charge', 'dispute'))
    OR EXISTS (SELECT 1 FROM b AS c WHERE c.gateway = b.gateway AND c.gateway_ref = b.charge_ref
        AND c.ours AND c.kind IN ('charge', 'dispute')))"""

# lines that no row of list or books has
_LOOSE: Final = """
CREATE TEMP TABLE loose AS
SELECT l.id FROM kept.lines l LEFT JOIN lm ON lm.line = l.id
WHERE lm.line IS NULL AND l.kind IN ('charge', 'refund', 'dispute')"""

# Stripe's list of payouts does not say which are automatic: those are whose id lines bear
_AUTOMATIC: Final = """
UPDATE kept.lines SET payout_id = gateway_ref
WHERE EXISTS (SELECT 1 FROM kept.files WHERE format = 'stripe')
    AND gateway = 'stripe' AND kind = 'payout' AND payout_id IS NULL AND gateway_ref IN (
    SELECT l.payout_id FROM kept.lines l WHERE l.gateway = 'stripe' AND l.kind <> 'payout')"""

# settlement files name the charge of an intent, lists and books the intent
_NAMES: Final = """
CREATE TEMP TABLE names AS
SELECT gateway, intent_charge AS charge, gateway_ref AS intent FROM b WHERE intent_charge IS NOT NULL
UNION SELECT gateway, intent_charge, gateway_ref FROM a WHERE intent_charge IS NOT NULL"""
_NAME_INTENT: Final = """
UPDATE kept.lines SET {column} = (
    SELECT min(n.intent) FROM names AS n WHERE n.gateway = lines.gateway AND n.charge = lines.{column})
WHERE (gateway, {column}) IN (SELECT gateway, charge FROM names)"""

_ALL_BUT_ONE: Final = """
DELETE FROM b WHERE id IN (SELECT id FROM b WHERE gateway = ? AND gateway_ref = ?
    ORDER BY status DESC, created, amount, id LIMIT -1 OFFSET 1)"""


def match(db: sqlite3.Connection) -> None:
    """Pass 1, pass 2, then the settlement lines.

    Leaves the temporary tables `rare` (rows of `b` that are no charge, or bore no reference of ours) and
    `loose` (lines of charges, refunds, disputes that nothing was found for).
    """
    _drop_repeats(db)
    for statement in (
        _NAMES, "CREATE INDEX temp.names_charge ON names (gateway, charge)",
        _NAME_INTENT.format(column="gateway_ref"), _NAME_INTENT.format(column="charge_ref"),
        "DROP TABLE names",
        _AUTOMATIC, _RARE,
        "CREATE INDEX temp.rare_ref ON rare (gateway, gateway_ref)",
        "CREATE INDEX temp.rare_charge ON rare (gateway, charge_ref)",
        "CREATE INDEX b_ref ON b (ref) WHERE ref IS NOT NULL",
        "CREATE INDEX a_ref ON a (ref) WHERE ref IS NOT NULL",
        _COPIED, _NAME_CHARGE, _KEEP_NAMED,
        _ENDS, _TAKEN,
        "CREATE INDEX temp.taken_ref ON taken (gateway, gateway_ref)",
        "CREATE INDEX temp.taken_charge ON taken (gateway, charge_ref)",
        _WON, _GIVE_BACK, _NAME_DISPUTE, "DROP TABLE won", "DROP TABLE taken", "DROP TABLE ends",
        _BY_THEIR_REF,
        "CREATE INDEX a_b ON a (b)",
        _TWINS,
        "UPDATE a SET twin = t.winner, b = NULL FROM twins t WHERE a.id = t.id AND t.winner <> t.id",
        "DROP TABLE twins",
        "UPDATE b SET a = (SELECT a.id FROM a WHERE a.b = b.id)",
        _BY_OUR_REF,
        "UPDATE a SET b = p.b FROM pairs p WHERE a.id = p.a",
        "UPDATE b SET a = p.a FROM pairs p WHERE b.id = p.b",
        "DROP TABLE pairs",
        "CREATE INDEX a_gateway_ref ON a (gateway, gateway_ref)",
        _OURS_IN_BOOKS, _OURS_BY_CHARGE, _OURS_BY_CHARGE,  # a dispute's end is ours by its dispute
        "UPDATE a SET status = 'parked' WHERE status = 'unknown' AND fold IN (SELECT payment FROM parked)",
        _LINES, _LINES_BY_REF,
        _NAMELESS, _LINES_BY_CHARGE.format(which="1", back=0),
        _LINES_BY_CHARGE.format(which="status = 'failed'", back=1),
        "DROP TABLE nameless",
        _LINES_TO_BOOKS,
        _LOOSE,
        "CREATE INDEX lm_b ON lm (b)",
        "CREATE INDEX lm_a ON lm (a) WHERE a IS NOT NULL",
        "ANALYZE",
    ):  # fmt: skip
        db.execute(statement)


def _drop_repeats(db: sqlite3.Connection) -> None:
    """A page that shifted while it was read may bring a row twice; it is one movement.

    So are an intent's failed charges and its good one.
    """
    db.execute("CREATE INDEX b_gateway_ref ON b (gateway, gateway_ref)")
    repeated = "SELECT gateway, gateway_ref FROM b GROUP BY gateway, gateway_ref HAVING count(*) > 1"
    for place in db.execute(repeated).fetchall():
        db.execute(_ALL_BUT_ONE, place)


_PROPOSALS: Final = """
SELECT gateway_ref FROM b
WHERE gateway = ? AND currency = ? AND amount = ? AND kind = ? AND a IS NULL AND status = 'succeeded'
    AND created BETWEEN ? AND ? ORDER BY created, gateway_ref LIMIT ?"""
PROPOSE_MOST: Final = 3


def index_for_proposals(db: sqlite3.Connection) -> None:
    """Make pass 3 quick; only what is left over is in it."""
    db.execute(
        "CREATE INDEX b_left ON b (gateway, currency, amount) WHERE a IS NULL AND status = 'succeeded'"
    )


def proposals(
    db: sqlite3.Connection, gateway: str, kind: str, amount: int, currency: str, at_ms: int, window_ms: int
) -> list[str]:
    """Pass 3: the gateway's references of movements that could be the one that is missing, the oldest first.

    One more than PROPOSE_MOST says that there are more. Nothing is matched by it.
    """
    asked = gateway, currency, amount, kind, at_ms - window_ms, at_ms + window_ms, PROPOSE_MOST + 1
    return [ref for (ref,) in db.execute(_PROPOSALS, asked)]
