"""Reads the gateways' own lists, and asks them about single payments."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from streamsocial_billing.domain.gateway_calls import Absent, Answer, Found, Movement, Query
from streamsocial_billing.domain.references import is_our_reference, kind_of_reference
from streamsocial_billing.gateways.base import Gateway, ListFailed
from streamsocial_billing.gateways.errors import InputRefused
from streamsocial_billing.reconciliation.store import ADD_B, BATCH_ROWS

LOOK_BACK_MS: Final = 86_400_000
"""A gateway's list begins so long before the oldest result: its clock and ours are not one."""
ASK_TIMEOUT_S: Final = 10.0
ASKED_AT_ONCE: Final = 20
ASK_MOST: Final = 1000
"""Payments that one run asks about, the oldest first; the others are asked about by later runs."""
LONGEST_PAUSE_S: Final = 60.0
"""Most that a run waits before it asks again. A gateway whose lists lag for longer (PayPal) is asked about
payments only once they are older than that lag, so the list itself was the first question."""
Tick = Callable[[int], None]


async def load_lists(
    db: sqlite3.Connection, gateways: Mapping[str, Gateway], since_ms: int, until_ms: int,
    tick: Tick = lambda _: None,
) -> None:  # fmt: skip
    """Every movement of every gateway into the store; raises InputRefused if a list cannot be read."""
    count = 0
    for name in sorted(gateways):
        batch = []
        try:
            async for moved in gateways[name].movements(since_ms, until_ms):
                batch.append(row_of(name, moved))
                if len(batch) == BATCH_ROWS:
                    db.executemany(ADD_B, batch)
                    count, batch = count + len(batch), []
                    tick(count)
        except ListFailed as error:
            raise InputRefused(str(error)) from None
        db.executemany(ADD_B, batch)
        count += len(batch)
    tick(count)


def row_of(gateway: str, moved: Movement) -> tuple[object, ...]:
    """A row of `b`: what does not bear our reference keeps nothing of its metadata.

    A refund or dispute that bears its charge's reference was made at the gateway, which copied it.
    """
    ref, charge_key, user_id, payment_id = moved.ref, None, moved.user_id, moved.payment_id
    if not is_our_reference(ref):
        ref = user_id = payment_id = None
    elif moved.kind != "charge" and (
        moved.kind != "refund" or kind_of_reference(ref, user_id, payment_id) == "charge"
    ):
        ref, charge_key = None, ref
    return (
        gateway, moved.gateway_ref, moved.kind, moved.status, moved.amount_minor, moved.currency,
        moved.created_ms, ref, payment_id, user_id, moved.charge_ref, moved.fee_minor, moved.returned_minor,
        charge_key, int(ref is not None or charge_key is not None), moved.intent_charge,
    )  # fmt: skip


async def ask_twice(gateway: Gateway, queries: Sequence[Query]) -> list[Answer]:
    """What the gateway says of each payment; Absent only if it said so twice, its consistency delay apart."""
    first = await _ask(gateway, queries)
    again = [place for place, answer in enumerate(first) if isinstance(answer, Absent)]
    if again:
        await asyncio.sleep(min(gateway.traits.consistency_delay_s, LONGEST_PAUSE_S))
        second = await _ask(gateway, [queries[place] for place in again])
        for place, answer in zip(again, second, strict=True):
            first[place] = answer
    return first


async def ask_once(gateway: Gateway, queries: Sequence[Query]) -> list[Answer]:
    """What the gateway says of each payment at this moment."""
    return await _ask(gateway, queries)


async def _ask(gateway: Gateway, queries: Sequence[Query]) -> list[Answer]:
    places = asyncio.Semaphore(ASKED_AT_ONCE)

    async def one(query: Query) -> Answer:
        async with places:
            return await gateway.find(query, timeout_s=ASK_TIMEOUT_S)

    await gateway.start()
    return list(await asyncio.gather(*(one(query) for query in queries)))


def answer_text(answer: Answer) -> str:
    """An answer in a few words."""
    match answer:
        case Found(gateway_ref=ref, status=status):
            return f"the gateway, asked again, has {ref} as {status}"
        case Absent():
            return "the gateway, asked twice, has nothing"
        case _:
            return f"the gateway could not be asked ({answer.reason})"
