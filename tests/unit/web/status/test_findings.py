"""What leads the page: the worst thing that is true now."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import click
import pytest
from faust.cli.faust import cli as faust_cli
from hypothesis import given
from hypothesis import strategies as st

from processes import ROOT
from streamsocial_billing.audit.live import INVARIANTS, Break
from streamsocial_billing.cli import commands as cli_commands  # noqa: F401 - registers the commands
from streamsocial_billing.web.status.finding import CRITICAL, OK, SEVERITIES, WARNING, Finding
from streamsocial_billing.web.status.findings import BACKLOG_LATE_S, CODES, OPEN_LATE_S, findings
from streamsocial_billing.web.status.state import (
    CALLABLE,
    NO_WORKER,
    NOT_KNOWN,
    RUNNING,
    BrokerAway,
    GatewayState,
    Group,
    Partition,
    State,
    Stuck,
    Worker,
)

NOW = 1_790_000_000_000
ONE, TWO = "http://one:6066", "http://two:6066"


def partition(number: int, owner: str | None = ONE, state: str = RUNNING, **more: Any) -> Partition:
    """A partition whose books were checked this second."""
    return Partition(number, owner, state, checked_ms=NOW - 900, **more)


WELL = State(
    NOW, ONE, 4,
    (Worker(ONE, partitions=(0, 1)), Worker(TWO, partitions=(2, 3))),
    (partition(0), partition(1), partition(2, TWO), partition(3, TWO)),
    (GatewayState("paypal"), GatewayState("stripe")),
)  # fmt: skip
"""Two workers share four partitions, two gateways are called."""


def changed(state: State = WELL, **changes: Any) -> list[Finding]:
    """What is found once this is different."""
    return findings(replace(state, **changes))


def with_partition(number: int, **changes: Any) -> tuple[Partition, ...]:
    """The partitions, one of them changed."""
    return tuple(replace(one, **changes) if one.number == number else one for one in WELL.partitions)


def with_gateway(**changes: Any) -> tuple[GatewayState, ...]:
    """The gateways, Stripe changed."""
    return WELL.gateways[0], replace(WELL.gateways[1], **changes)


def test_a_system_without_a_fault_is_well() -> None:
    """One finding, the only one with severity OK."""
    (found,) = findings(WELL)
    assert (OK, "all_well", "2 workers, 4 partitions, every gateway is available.") == (
        found.severity, found.code, found.detail,
    )  # fmt: skip


def test_payments_that_are_open_are_said_though_nothing_is_wrong_yet() -> None:
    """A gateway that hangs: each call times out, and its breaker opens only after some of them."""
    headline = changed(unknown=Group(16, NOW - 9_000))[0]
    assert (OK, "2 workers, 4 partitions. 16 payments have no final outcome yet, the oldest for 9 s.") == (
        headline.severity, headline.detail,
    )  # fmt: skip
    assert "open_late" == changed(unknown=Group(1, NOW - 61_000))[0].code


CASES: list[tuple[str, dict[str, Any], str, str, int | None]] = [
    (
        "books_differ", {"breaks": {2: (Break("charged", "EUR", 700, 699),)}}, CRITICAL,
        "The books are wrong: counters and tables differ.", None,
    ),
    (
        "books_differ", {"breaks": {0: (Break("answered", "", 8, 7),)}}, CRITICAL,
        "The books are wrong: 1 payment without a result.", None,
    ),
    (
        "books_differ", {"breaks": {0: (Break("answered", "", 7, 9),)}}, CRITICAL,
        "The books are wrong: 2 results too many.", None,
    ),
    (
        "kafka_unreachable",
        {"workers": tuple(replace(one, kafka_lost_ms=NOW - 9000) for one in WELL.workers)}, CRITICAL,
        "Kafka does not answer: no payment is handled.", NOW - 9000,
    ),
    (
        "kafka_unreachable",
        {"workers": (replace(WELL.workers[0], kafka_lost_ms=NOW - 9000), WELL.workers[1])}, CRITICAL,
        "Kafka does not answer 1 worker.", NOW - 9000,
    ),
    (
        "kafka_broker_unreachable", {"brokers": (BrokerAway(2, "k2:9092", NOW - 9000, (ONE, TWO), (1, 3)),)},
        WARNING, "Kafka broker 2 (k2:9092) is not reachable.", NOW - 9000,
    ),
    (
        "kafka_broker_unreachable", {"brokers": (BrokerAway(0, "", NOW - 9000, (TWO,)),)},
        WARNING, "Kafka broker 0 (address not known) is not reachable from 1 worker.", NOW - 9000,
    ),
    (
        "worker_silent", {"workers": (WELL.workers[0], Worker(TWO, False, NOW - 4000, (2, 3)))}, CRITICAL,
        "A worker does not answer: payments of 2 partitions wait.", NOW - 4000,
    ),
    (
        "worker_gone",
        {"workers": (*WELL.workers, Worker("http://3:1", False, NOW - 60_000, (1,), assigned=False))},
        WARNING,
        "A worker is gone; others have taken over its partitions.", NOW - 60_000,
    ),
    (
        "partition_without_worker", {"partitions": with_partition(1, owner=None, state=NO_WORKER)},
        CRITICAL, "Payments of 1 partition wait: no worker has them.", None,
    ),
    (
        "partition_blocked", {"partitions": with_partition(1, state="blocked", why="no space left")},
        CRITICAL, "1 partition is blocked.", None,
    ),
    (
        "partition_starting", {"partitions": with_partition(1, state="recovering")}, WARNING,
        "1 partition is being started.", None,
    ),
    ("starting", {"partitions": (), "total": 0, "workers": (Worker(ONE),)}, WARNING,
     "No partition is assigned yet.", None),
    (
        "event_stuck", {"partitions": with_partition(3, stuck=Stuck("payments", 31, "handler", 65.2))},
        CRITICAL, "An event has not finished for 65 s.", NOW - 65_200,
    ),
    ("no_gateway", {"gateways": ()}, CRITICAL, "No gateway is set up: no payment can be charged.", None),
    (
        "gateway_failing", {"gateways": with_gateway(state="open", since_ms=NOW - 5, reason="unreachable")},
        CRITICAL, "Gateway stripe fails: no payment can be charged there.", NOW - 5,
    ),
    (
        "gateway_failing", {"gateways": with_gateway(state="half_open", since_ms=NOW - 5)}, CRITICAL,
        "Gateway stripe fails: no payment can be charged there.", NOW - 5,
    ),
    (
        "gateway_stopped",
        {"gateways": with_gateway(state="stopped", since_ms=NOW - 7, actor="ann", reason="a drill")}, WARNING,
        "Gateway stripe is stopped: no payment is charged there.", NOW - 7,
    ),
    (
        "gateway_account_changed", {"gateways": with_gateway(state="account_changed", since_ms=NOW - 7)},
        CRITICAL, "Gateway stripe is not called: its account has changed.", NOW - 7,
    ),
    (
        "gateway_not_set_up", {"gateways": with_gateway(state="not_configured", waiting=2)}, CRITICAL,
        "Gateway stripe is not set up, and open payments wait for it.", None,
    ),
    ("parked", {"parked": Group(1, NOW - 5)}, WARNING, "1 payment waits for a person.", NOW - 5),
    (
        "backlog_late", {"backlog": Group(1200, NOW - BACKLOG_LATE_S * 1000 - 1)}, WARNING,
        "1,200 payments wait to be handled.", NOW - BACKLOG_LATE_S * 1000 - 1,
    ),
    (
        "open_late", {"unknown": Group(2, NOW - OPEN_LATE_S * 1000 - 1)}, WARNING,
        "2 payments have no final outcome yet.", NOW - OPEN_LATE_S * 1000 - 1,
    ),
    ("figures_old", {"partitions": with_partition(0, checked_ms=None)}, WARNING,
     "3 of 4 partitions report.", None),
]  # fmt: skip


@pytest.mark.parametrize(("code", "changes", "severity", "headline", "since_ms"), CASES)
def test_each_fault_leads_with_its_own_headline(
    code: str, changes: dict[str, Any], severity: str, headline: str, since_ms: int | None
) -> None:
    """One thing wrong: it leads, in plain words, with since when and what to do."""
    found = changed(**changes)[0]
    assert (severity, code, headline, since_ms) == (
        found.severity, found.code, found.headline, found.since_ms,
    )  # fmt: skip
    assert found.action


def test_every_code_has_a_case() -> None:
    """None is there for show."""
    assert set(CODES) == {code for code, *_ in CASES} | {"all_well"}


@pytest.mark.parametrize("invariant", INVARIANTS)
def test_every_invariant_of_the_live_audit_turns_the_page_red(invariant: str) -> None:
    """Whatever is wrong with the books leads before everything else."""
    stopped = with_gateway(state="stopped", since_ms=NOW)
    found = changed(breaks={0: (Break(invariant, "", 5, 6),)}, gateways=stopped)
    assert ["books_differ", "gateway_stopped"] == [one.code for one in found]


def test_a_stop_of_every_gateway_is_critical() -> None:
    """Nothing can be charged anywhere: no warning any more, but what the page is red for."""
    every = tuple(replace(one, state="stopped", since_ms=NOW, actor="ann") for one in WELL.gateways)
    found = changed(gateways=every)
    assert [(CRITICAL, "gateway_stopped")] * 2 == [(one.severity, one.code) for one in found]


def test_who_stopped_a_gateway_and_why_stands_in_the_finding() -> None:
    """And how many payments wait for it."""
    stopped = with_gateway(state="stopped", since_ms=1, actor="ann", reason="a drill", waiting=1)
    one = changed(gateways=stopped)
    assert 'Stopped by ann: "a drill". 1 payment waits for it.' == one[0].detail


def test_kafka_away_hides_what_it_causes() -> None:
    """Every partition is blocked then: that is one finding, not five."""
    cut_off = tuple(replace(one, kafka_lost_ms=NOW - 9000) for one in WELL.workers)
    blocked = tuple(replace(one, state="blocked", why="no answer") for one in WELL.partitions)
    assert ["kafka_unreachable"] == [one.code for one in changed(workers=cut_off, partitions=blocked)]


def test_one_broker_of_several_is_amber_and_names_what_waits_for_it() -> None:
    """The others serve; the only broker of a cluster, or all of them, is Kafka itself, which has its line."""
    away = BrokerAway(2, "k2:9092", NOW - 9000, (ONE, TWO), (1, 3))
    (found,) = changed(brokers=(away,))
    assert f"Partitions 1, 3 wait for another leader. Asked by {ONE}, {TWO}." == found.detail
    assert ["all_well"] == [one.code for one in changed(brokers=(replace(away, brokers=1),))]
    cut_off = tuple(replace(one, kafka_lost_ms=NOW - 9000) for one in WELL.workers)
    assert ["kafka_unreachable"] == [one.code for one in changed(workers=cut_off, brokers=(away,))]


def test_a_worker_that_was_killed_leads_and_its_figures_are_called_old() -> None:
    """Nobody reads smaller sums as money that vanished."""
    dead = Worker(TWO, False, NOW - 4000, (2, 3))
    silent = tuple(
        replace(one, state=NOT_KNOWN) if one.owner == TWO else one for one in WELL.partitions
    )  # fmt: skip
    found = changed(workers=(WELL.workers[0], dead), partitions=silent)
    assert [(CRITICAL, "worker_silent"), (WARNING, "figures_old")] == [(o.severity, o.code) for o in found]
    assert "The figures of partitions 2-3 are missing or old." == found[1].detail


NUMBERS = st.integers(0, 3)
TIMES = st.none() | st.integers(NOW - 10**7, NOW)
STATES = st.builds(
    State,
    at_ms=st.just(NOW), url=st.just(ONE), total=st.just(4),
    workers=st.lists(
        st.builds(
            Worker, st.sampled_from((ONE, TWO)), st.booleans(), TIMES, st.just((1,)), st.booleans(), TIMES
        ),
        max_size=3,
    ).map(tuple),
    partitions=st.tuples(*(
        st.builds(
            Partition, st.just(number), st.sampled_from((None, ONE, TWO)),
            st.sampled_from((RUNNING, "blocked", "fencing", "closed", NO_WORKER, NOT_KNOWN)),
            st.text(max_size=5), st.none() | st.builds(Stuck, st.just("payments"), NUMBERS, st.just("agent"),
            st.floats(0, 1e6)), TIMES,
        ) for number in range(4)
    )),
    gateways=st.lists(
        st.builds(
            GatewayState, st.sampled_from(("stripe", "paypal")),
            st.sampled_from(("closed", "open", "half_open", "stopped", "account_changed")), TIMES,
            st.text(max_size=5), st.text(max_size=5), NUMBERS,
        ),
        max_size=3,
    ).map(tuple),
    breaks=st.dictionaries(
        NUMBERS, st.lists(
            st.builds(Break, st.sampled_from(INVARIANTS), st.just("EUR"), NUMBERS, NUMBERS), max_size=2,
        ).map(tuple), max_size=2,
    ),
    backlog=st.builds(Group, NUMBERS, TIMES), unknown=st.builds(Group, NUMBERS, TIMES),
    parked=st.builds(Group, NUMBERS, TIMES),
)  # fmt: skip


def is_wrong(state: State) -> bool:
    """What nobody may read under a green headline."""
    return (
        any(state.breaks.values())
        or any(not one.answers or one.kafka_lost_ms is not None for one in state.workers)
        or any(one.state not in CALLABLE for one in state.gateways)
        or not state.gateways
        or any(one.state != RUNNING or one.stuck for one in state.partitions)
        or bool(state.parked.count)
    )


@given(STATES)
def test_nothing_that_is_wrong_is_ever_green(state: State) -> None:
    """Whatever comes together: green is alone, and only where nothing is wrong."""
    found = findings(state)
    greens = [one for one in found if one.severity == OK]
    assert greens == (found if greens else [])
    assert not (greens and is_wrong(state))


@given(STATES)
def test_the_worst_comes_first_in_words_that_can_be_read(state: State) -> None:
    """By severity, then by code; a sentence each; `1 payments` nowhere."""
    found = findings(state)
    ranks = [(SEVERITIES.index(one.severity), CODES.index(one.code)) for one in found]
    assert sorted(ranks) == ranks
    for one in found:
        assert re.fullmatch(r"[A-Z0-9].+\.", one.headline)
        assert not re.search(r"(?<![\d,])1 (payment|partition|worker|result)s", one.headline + one.detail)


def test_every_code_is_explained() -> None:
    """A row in docs/operations.md for each."""
    page = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
    assert [] == [code for code in CODES if f"| `{code}` |" not in page]


NAMED_COMMAND = re.compile(r"`streamsocial-billing ([^`]+)`")
OPERANDS = {"USER/PAYMENT": "alice/demo-1", "STATUS": "declined", "ACCOUNT": "acct_1", '"..."': "a reason"}


def test_every_command_that_a_finding_names_is_complete() -> None:
    """Who copies it from the page at night, and fills in the capitals, gets no usage error."""
    files = sorted((ROOT / "streamsocial_billing/web/status").glob("finding*.py"))
    text = "".join(file.read_text() for file in files)
    named = NAMED_COMMAND.findall(re.sub(r"[\"\']\n\s+f?[\"\']", "", text).replace("{one.name}", "stripe"))
    assert {"audit", "gateways start", "resolve"} == {re.split(r" [A-Z-]| stripe", one)[0] for one in named}
    for command in named:
        command = command.replace('"..."', "REASON")
        words = [OPERANDS.get(word, word) for word in command.split()]
        group: click.Command = faust_cli
        while isinstance(group, click.Group) and words and words[0] in group.commands:
            group = group.commands[words.pop(0)]
        group.make_context(command, words)
