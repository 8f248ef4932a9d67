"""Matching on small books.

Operations: any results of a few payments (several for one, with each other's references), any rows of the
gateway's list (several under one reference of ours, or none), any settlement lines, in any order.
Properties:
1. The breaks between books and list are those of a naive model that tries every pair.
2. The order of the inputs changes no id and no amount.
3. Every money column of the bridge adds up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st
from support.planted_books import AS_OF, DAY, PlantedBooks
from support.small_books import OLD, RULES, as_text, classes, reconciled, result

from streamsocial_billing.domain.gateway_calls import Movement
from streamsocial_billing.domain.payment_identity import gateway_key_of
from streamsocial_billing.gateways.settlement_lines import Line
from streamsocial_billing.reconciliation.rules import Rules, business_days_later

NAMES = ("p0", "p1", "p2")
REFS = ("g0", "g1", "g2", "g3", "g4")


def key(name: str) -> str:
    """Our reference of a payment."""
    return gateway_key_of("ann", "charge", name)


@st.composite
def results_of(draw: st.DrawFn, name: str) -> list[bytes]:
    """The results of one payment: none, one, or two."""
    statuses = draw(st.lists(st.sampled_from(("succeeded", "declined", "unknown", "rejected")), max_size=2))
    made = []
    for number, status in enumerate(statuses):
        ref = None if status == "rejected" else draw(st.sampled_from((*REFS, None)))
        amount = draw(st.sampled_from((100, 200)))
        made.append(result(name, status, gateway_ref=ref, amount_minor=amount, processed_at=OLD + number))
    return made


@st.composite
def movements(draw: st.DrawFn) -> list[Movement]:
    """Rows of the list: each reference of the gateway once."""
    rows = []
    for number, ref in enumerate(draw(st.lists(st.sampled_from(REFS), unique=True))):
        ours = draw(st.sampled_from((*map(key, NAMES), None)))
        status = draw(st.sampled_from(("succeeded", "failed")))
        amount = draw(st.sampled_from((100, 200)))
        rows.append(Movement(ref, "charge", status, amount, "EUR", OLD + number % 2, ours, None, "ann"))
    return rows


@st.composite
def lines(draw: st.DrawFn) -> list[Line]:
    """Settlement lines and payouts."""
    rows = []
    for _ in range(draw(st.integers(0, 5))):
        kind = draw(st.sampled_from(("charge", "refund", "dispute", "adjustment", "payout")))
        gross, fee = draw(st.sampled_from((100, 200, -100))), draw(st.sampled_from((0, 3)))
        ref = draw(st.sampled_from((*REFS, "g9"))) if kind in ("charge", "refund", "dispute") else None
        payout = draw(st.sampled_from(("po_1", "po_2", None)))
        money = gross, fee, gross - fee, "EUR"
        rows.append(Line(kind, "simulated", None, ref, None, None, *money, payout, OLD))
    return rows


books = st.tuples(*(results_of(name) for name in NAMES))


@given(books, movements())
@settings(deadline=None)
def test_the_breaks_are_those_of_a_naive_model(made: tuple[list[bytes], ...], listed: list[Movement]) -> None:
    """Property 1."""
    found, _ = reconciled([one for some in made for one in some], listed)
    assert naive(made, listed) == classes(found)


@given(books, movements(), lines(), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_the_order_of_the_inputs_changes_nothing(
    made: tuple[list[bytes], ...], listed: list[Movement], settled: list[Line], random: Any
) -> None:
    """Property 2; the results of one user keep their order, as they do on Kafka."""
    results = [one for some in made for one in some]
    first = reconciled(results, listed, settled)
    groups, rows, more = list(made), list(listed), list(settled)
    for some in (groups, rows, more):
        random.shuffle(some)
    second = reconciled([one for group in groups for one in group], rows, more)
    assert as_text(first[0]) == as_text(second[0])
    assert [one.amounts for one in first[1]] == [one.amounts for one in second[1]]


@given(books, movements(), lines())
@settings(deadline=None)
def test_every_money_column_adds_up(
    made: tuple[list[bytes], ...], listed: list[Movement], settled: list[Line]
) -> None:
    """Property 3."""
    _, found = reconciled([one for some in made for one in some], listed, settled)
    assert [] == [problem for one in found for problem in one.problems()]


@dataclass
class Ours:
    """A payment of our books, folded."""

    name: str
    status: str
    amount: int
    ref: str | None
    at: int
    moved: int
    pair: Movement | None = None
    twin: bool = False


def folded(name: str, results: list[bytes]) -> Ours | None:
    """The last word of a payment."""
    told = [orjson.loads(one) for one in results]
    if not told:
        return None
    succeeded = [one for one in told if one["status"] == "succeeded"]
    final = [one for one in told if one["status"] != "unknown"]
    last = (succeeded or final or told[-1:])[0]
    return Ours(
        name, last["status"], last["amount_minor"], last["gateway_ref"], last["processed_at"], len(succeeded)
    )


def naive(made: tuple[list[bytes], ...], listed: list[Movement]) -> list[tuple[str, str]]:
    """Every pair, in the passes of the design."""
    ours = [one for name, some in zip(NAMES, made, strict=True) if (one := folded(name, some)) is not None]
    for moved in listed:
        wanting = [one for one in ours if one.ref == moved.gateway_ref and one.status != "rejected"]
        wanting.sort(key=lambda one: (one.status != "succeeded", one.at, one.name))
        for place, one in enumerate(wanting):
            one.twin, one.pair = place > 0, moved if place == 0 else None
    for one in ours:
        if one.pair is None and not one.twin and one.status != "rejected":
            taken = [other.pair.gateway_ref for other in ours if other.pair is not None]
            left = [row for row in listed if row.ref == key(one.name) and row.gateway_ref not in taken]
            left.sort(key=lambda row: (row.status != "succeeded", row.created_ms, row.gateway_ref))
            one.pair = left[0] if left else None
    breaks = [found for one in ours for found in breaks_of(one)]
    return sorted(breaks + unknown_to(ours, listed))


def breaks_of(one: Ours) -> list[tuple[str, str]]:
    """What is wrong with a payment of our books."""
    found = []
    if one.moved > 1 or (one.twin and one.moved):
        found.append(("duplicate_internal", one.ref or one.name))
    if one.twin:
        return found
    if one.pair is None:
        if one.moved:
            found.append(("missing_external", one.ref or one.name))
        elif one.status == "unknown":
            found.append(("unknown_aged", one.ref or one.name))
        return found
    there = one.pair.status == "succeeded"
    if one.pair.amount_minor != one.amount:
        return found + [("amount_mismatch", one.pair.gateway_ref)] * bool(one.moved or there)
    if one.status == "unknown":
        return [*found, ("missing_internal" if there else "status_mismatch", one.pair.gateway_ref)]
    return found + [("status_mismatch", one.pair.gateway_ref)] * (bool(one.moved) != there)


def unknown_to(ours: list[Ours], listed: list[Movement]) -> list[tuple[str, str]]:
    """Movements that are nobody's."""
    pairs = {one.pair.gateway_ref for one in ours if one.pair is not None}
    left = [row for row in listed if row.status == "succeeded" and row.ref and row.gateway_ref not in pairs]
    found = []
    for row in left:
        owner = next((one for one in ours if key(one.name) == row.ref), None)
        earlier = [one for one in left if one.ref == row.ref and (one.created_ms, one.gateway_ref) < (
            row.created_ms, row.gateway_ref)]  # fmt: skip
        double = earlier or (owner is not None and owner.pair is not None)
        found.append(("duplicate_external" if double else "missing_internal", row.gateway_ref))
    return found


def test_every_class_is_found_in_planted_books() -> None:
    """The settlement classes apart: those have files (the integration test has them all)."""
    made = PlantedBooks(seed=3)
    made.normal(120)
    made.plant_refunds("simulated")
    found, _ = reconciled([value for _, value, _ in made.results], made.listed["simulated"])
    there = {(one["class"], one["gateway_ref"]) for one in found if one["gateway"] == "simulated"}
    assert {(class_, ref) for class_, _, ref in made.expected} <= there


def test_a_charge_is_under_way_until_the_oldest_unhandled_event_of_its_partition() -> None:
    """Made before it: missing. Made at the same moment or later: its event may be one of those."""
    old = Movement("g0", "charge", "succeeded", 100, "EUR", OLD - 1, key("p0"), "p0", "ann")
    new = Movement("g1", "charge", "succeeded", 100, "EUR", OLD, key("p1"), "p1", "ann")
    found, _ = reconciled([], [old, new], rules=Rules(as_of=AS_OF, told_by=lambda _: OLD))
    assert [("missing_internal", "g0"), ("timing", "g1")] == classes(found)


def test_a_proposal_names_what_could_be_the_missing_one_and_says_when_several_could() -> None:
    """Same amount, currency and time; nothing is matched by it."""
    near = [Movement(f"g{n}", "charge", "succeeded", 100, "EUR", OLD + n, None) for n in range(2)]
    found, _ = reconciled([result("p0")], near)
    assert [("missing_external", "ch_p0")] == classes(found)
    assert ["tie"] == found[0]["tags"]
    assert "g0, g1" in found[0]["detail"]


def test_a_line_of_a_charge_before_the_list_is_held_against_our_books() -> None:
    """With `--since` the list begins later than the files: nothing is missing, amounts still count."""
    def line(ref: str, gross: int) -> Line:
        return Line("charge", "simulated", None, ref, None, None, gross, 0, gross, "EUR", None, OLD)

    rules = Rules(as_of=AS_OF, told_by=lambda _: AS_OF, since=AS_OF - DAY)
    results = [result("p0"), result("p1")]
    found, _ = reconciled(results, [], [line("ch_p0", 100), line("ch_p1", 10_000)], rules)
    assert [("amount_mismatch", "ch_p1")] == classes(found)
    assert ["exponent_suspect"] == found[0]["tags"]


def test_a_charge_that_is_settled_twice_is_a_duplicate_of_the_file() -> None:
    """Two lines of the whole amount; one line of twice the amount is another amount."""
    listed = [Movement(f"ch_p{n}", "charge", "succeeded", 100, "EUR", OLD, key(f"p{n}")) for n in range(2)]
    once = Line("charge", "simulated", None, "ch_p0", None, None, 100, 0, 100, "EUR", None, OLD)
    double = once._replace(gateway_ref="ch_p1", gross=200, net=200)
    found, _ = reconciled([result("p0"), result("p1")], listed, [once, once, double])
    assert [("amount_mismatch", "ch_p1"), ("duplicate_external", "ch_p0")] == classes(found)


def test_a_charge_is_unsettled_from_the_first_settled_one_on() -> None:
    """What was settled before any file was kept is no break; nor is what is not two business days old."""
    ages = {"ch_p0": 30 * DAY, "ch_p1": 20 * DAY, "ch_p2": 10 * DAY, "ch_p3": DAY}
    listed = [
        Movement(ref, "charge", "succeeded", 100, "EUR", AS_OF - age, key(ref[3:]))
        for ref, age in ages.items()
    ]
    line = Line("charge", "simulated", None, "ch_p1", None, None, 100, 0, 100, "EUR", None, AS_OF - 20 * DAY)
    found, _ = reconciled([result(ref[3:]) for ref in ages], listed, [line])
    assert [("unsettled_aged", "ch_p2")] == classes(found)


def test_only_a_reference_that_belongs_to_its_payment_is_repaired() -> None:
    """Metadata that somebody has changed by hand must not book one user's money to another."""
    listed = [
        Movement("g0", "charge", "succeeded", 100, "EUR", OLD, key("p0"), "p0", "ann"),
        Movement("g1", "charge", "succeeded", 100, "EUR", OLD, key("p1"), "p1", "bob"),
    ]
    found, _ = reconciled([], listed)
    assert [("missing_internal", "g0"), ("missing_internal", "g1")] == classes(found)
    action = {one["gateway_ref"]: one["action"] for one in found}
    assert action["g0"].startswith("repair: the event rec_brk_")
    assert action["g1"].startswith("by hand: ")


def test_what_a_retry_has_just_charged_is_under_way() -> None:
    """The payment has been open for days, the charge is a minute old: its result comes by itself."""
    moved = Movement("g0", "charge", "succeeded", 100, "EUR", AS_OF - 60_000, key("p0"), "p0", "ann")
    found, _ = reconciled([result("p0", "unknown", gateway_ref=None)], [moved])
    assert [("timing", "g0")] == classes(found)


def test_a_dispute_that_was_won_leaves_nothing_open() -> None:
    """Taken and given back, in our books as at the gateway; only the gateway has it back: a break."""
    external = {"origin": "external", "action": "refund", "gateway_ref": "dp_1", "refund_of": "p0"}
    taken = result("x1_a", reason="dispute", **external)
    won = result("x1_b", reason="dispute_won", **(external | {"action": "charge"}))
    listed = [
        Movement("ch_p0", "charge", "succeeded", 100, "EUR", OLD, key("p0"), "p0", "ann"),
        Movement("dp_1", "dispute", "failed", 100, "EUR", OLD, charge_ref="ch_p0"),
    ]
    assert [] == reconciled([result("p0"), taken, won], listed)[0]
    found, _ = reconciled([result("p0"), taken], listed, rules=RULES)
    assert [("dispute_unbooked", "dp_1")] == classes(found)


def test_business_days_leave_out_weekends() -> None:
    """Two business days after a Friday noon is Tuesday noon; a Saturday's first one is Monday."""
    assert AS_OF + 4 * DAY == business_days_later(AS_OF, 2)
    assert AS_OF + 3 * DAY == business_days_later(AS_OF + DAY, 1)
