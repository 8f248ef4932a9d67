"""Reads our own settlement format: a header, lines, a trailer for each currency.

    kind,gateway,gateway_ref,charge_ref,ref,gross,fee,net,currency,payout_id,created_at

`kind` is charge, refund, dispute, adjustment, conversion, payout (then `net` is what was paid to us) or
trailer. Trailers stand at the end, one for each currency: `gateway_ref` the count of its lines, `net` the sum
of their nets, payouts left out of both. Amounts are decimals in major units; times without a zone are UTC.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from streamsocial_billing.domain.events import GATEWAYS
from streamsocial_billing.domain.references import our_reference
from streamsocial_billing.gateways.settlement_lines import (
    KINDS,
    BadLine,
    Line,
    Reading,
    Rows,
    checked,
    currency_of,
    millis,
    minor_units,
    refused,
)

HEADER: Final = (
    "kind", "gateway", "gateway_ref", "charge_ref", "ref", "gross", "fee", "net", "currency", "payout_id",
    "created_at",
)  # fmt: skip


def recognises(header: list[str]) -> bool:
    """True for a file of this format."""
    return tuple(header) == HEADER


def read(rows: Rows, name: str, reading: Reading) -> Iterator[tuple[int, Line]]:
    """Every line with its number; raises InputRefused as soon as something cannot be right."""
    next(rows)
    counts, sums, trailers, last = Counter[str](), Counter[str](), set[str](), 1
    for number, cells in rows:
        last = number
        try:
            if cells[0] == "trailer":
                trailers.add(_check_trailer(cells, counts, sums, reading))
                continue
            line = _line(cells, reading)
        except BadLine as bad:
            raise refused(name, number, bad) from None
        if trailers:
            raise refused(name, number, "a line after the trailer: is the file there twice?")
        if line.kind != "payout":
            counts[line.currency] += 1
            sums[line.currency] += line.net
        yield number, line
    missing = sorted(counts.keys() - trailers)
    if missing or not trailers:
        about = f" for {missing[0]}" if missing else ""
        raise refused(name, last, f"the file ends without a trailer{about}: it is cut off")


def _line(cells: list[str], reading: Reading) -> Line:
    if len(cells) != len(HEADER):
        raise BadLine(f"{len(cells)} columns, not {len(HEADER)}: is the file cut off?")
    kind, gateway, gateway_ref, charge_ref, ref, gross, fee, net, code, payout_id, at = cells
    if tuple(cells) == HEADER:
        raise BadLine("the header once more: is the file there twice?")
    if kind not in KINDS:
        raise BadLine(f"kind is {kind[:20]!a}, none of {', '.join(sorted(KINDS))}, trailer")
    if gateway not in GATEWAYS:
        raise BadLine(f"gateway is {gateway[:20]!a}, none of {', '.join(sorted(GATEWAYS))}")
    if kind == "payout" and not payout_id:
        raise BadLine("a payout without payout_id")
    our_ref = our_reference(ref) if ref else None
    currency = currency_of(code, ours=our_ref is not None)
    return checked(Line(
        kind=kind, gateway=gateway, line_id=f"payout:{payout_id}:{currency}" if kind == "payout" else None,
        gateway_ref=gateway_ref or None, charge_ref=charge_ref or None, ref=our_ref,
        gross=minor_units(gross, currency, "gross", reading), fee=minor_units(fee, currency, "fee", reading),
        net=minor_units(net, currency, "net", reading), currency=currency, payout_id=payout_id or None,
        at=millis(at),
    ))  # fmt: skip


def _check_trailer(
    cells: list[str], counts: Counter[str], sums: Counter[str], reading: Reading
) -> str:
    if len(cells) != len(HEADER):
        raise BadLine(f"{len(cells)} columns, not {len(HEADER)}: is the file cut off?")
    currency = currency_of(cells[8], ours=False)
    if cells[2] != str(counts[currency]):
        said = cells[2][:20]
        raise BadLine(f"the trailer counts {said} lines in {currency}, the file has {counts[currency]}")
    stated = minor_units(cells[7], currency, "net", reading)
    if stated != sums[currency]:
        raise BadLine(f"the trailer sums {stated} minor units of {currency}, the lines {sums[currency]}")
    return currency
