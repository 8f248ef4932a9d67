"""Which gateway a payment goes to that names none: one rule for every intake."""

from __future__ import annotations

import io
from itertools import product
from pathlib import Path
from typing import Any

import orjson
import pytest
from support.asked_gateway import AskedGateway
from support.one_task import OneTask
from support.scripted_gateway import ScriptedGateway

from streamsocial_billing.domain.events import GATEWAYS, PaymentEvent
from streamsocial_billing.domain.foreign_fields import BadInput
from streamsocial_billing.gateways.configured import configured_gateways
from streamsocial_billing.gateways.routing import (
    NEEDED,
    default_problem,
    gateways_set_up,
    participation,
    with_gateway,
)
from streamsocial_billing.intake import submit
from streamsocial_billing.intake.http import read_payment
from streamsocial_billing.settings import Settings
from streamsocial_billing.subscriptions.commands import subscription_command

NOW = 1_764_600_000_000
SET_UP: dict[str, dict[str, str]] = {
    "simulated": {"gateway_url": "http://127.0.0.1:1"},
    "stripe": {"stripe_api_key": "sk_test_x"},
    "paypal": {"paypal_client_id": "id", "paypal_client_secret": "secret"},
}
FIELDS = {
    "payment_id": "p1", "user_id": "alice", "product": "gift", "amount_minor": 1, "currency": "EUR",
    "payment_method": "pm",
}  # fmt: skip
SETS = [
    tuple(sorted(name for name, there in zip(SET_UP, chosen, strict=True) if there))
    for chosen in product((False, True), repeat=3)
]


def settings_of(names: tuple[str, ...], default: str | None = None) -> Settings:
    """With these gateways set up."""
    chosen: dict[str, Any] = {field: value for name in names for field, value in SET_UP[name].items()}
    return Settings(default_gateway=default, **chosen)


@pytest.mark.parametrize("names", SETS, ids="+".join)
@pytest.mark.parametrize("default", [None, *sorted(GATEWAYS)])
@pytest.mark.parametrize("override", [None, *sorted(GATEWAYS)])
@pytest.mark.parametrize("named", [None, *sorted(GATEWAYS)])
def test_the_first_of_payment_option_default_and_only_gateway_decides(
    names: tuple[str, ...], default: str | None, override: str | None, named: str | None
) -> None:
    """All combinations; where nothing decides it is refused, and the line names the setting."""
    settings = settings_of(names, default)
    only = names[0] if len(names) == 1 else None
    expected = named or override or default or only
    payment = FIELDS | {"gateway": named}
    if expected is not None:
        assert payment | {"gateway": expected} == with_gateway(payment, settings, override)
        return
    with pytest.raises(BadInput, match="BILLING_DEFAULT_GATEWAY") as refused:
        with_gateway(payment, settings, override)
    assert "missing_field" == refused.value.reason
    assert all(name in refused.value.detail for name in names)


def test_a_payment_that_leaves_its_gateway_out_or_null_names_none() -> None:
    """What came in is not changed; another wrong value is for the checks of the event."""
    settings = settings_of(("stripe",))
    assert FIELDS | {"gateway": "stripe"} == with_gateway(FIELDS, settings)
    assert FIELDS | {"gateway": ""} == with_gateway(FIELDS | {"gateway": ""}, settings)
    assert "gateway" not in FIELDS


@pytest.mark.parametrize("names", SETS, ids="+".join)
def test_what_is_set_up_is_what_a_worker_has(names: tuple[str, ...]) -> None:
    """The names that the rule counts are those of the gateways that are made."""
    settings = settings_of(names)
    assert names == gateways_set_up(settings) == tuple(sorted(configured_gateways(settings)))


def test_without_settings_no_gateway_takes_part() -> None:
    """The simulated one takes part where its URL is set, nowhere else."""
    assert () == gateways_set_up(Settings.from_environment({}))
    assert () == gateways_set_up(Settings.from_environment({"BILLING_GATEWAY_URL": ""}))
    assert ("simulated",) == gateways_set_up(Settings.from_environment({"BILLING_GATEWAY_URL": "http://h"}))


@pytest.mark.parametrize("names", SETS, ids="+".join)
@pytest.mark.parametrize("default", sorted(GATEWAYS))
def test_a_default_that_is_not_set_up_is_named_with_what_it_lacks(
    names: tuple[str, ...], default: str
) -> None:
    """The start of a worker refuses it with this line."""
    problem = default_problem(settings_of(names, default))
    if default in names:
        assert problem is None
        return
    assert problem is not None
    assert f"BILLING_DEFAULT_GATEWAY={default}" in problem
    assert f"BILLING_{NEEDED[default][0].upper()}" in problem


def test_the_start_says_who_takes_part_who_does_not_and_why() -> None:
    """One line; nothing in it is a secret."""
    told = participation(settings_of(("simulated", "stripe")))
    assert told == (
        "gateways that take part: simulated, stripe; "
        "take no part: paypal (BILLING_PAYPAL_CLIENT_ID is not set); "
        "a payment that names none is refused (BILLING_DEFAULT_GATEWAY is not set)"
    )
    assert "a payment that names none goes to stripe" in participation(settings_of(("stripe",)))
    assert "take part: none; take no part: paypal" in participation(Settings())
    assert "sk_test_x" not in told


class Kept:
    """In place of the producer: keeps what is submitted."""

    def __init__(self, *_: Any) -> None:
        self.payments: list[PaymentEvent] = []

    def __enter__(self) -> Kept:
        return self

    def __exit__(self, *_: Any) -> None:
        KEPT[:] = self.payments

    def submit(self, payments: list[PaymentEvent]) -> int:
        """All of them."""
        self.payments += payments
        return len(payments)


KEPT: list[PaymentEvent] = []


def by_submit(settings: Settings) -> str:
    """The gateway of a line of `submit`."""
    said: list[str] = []
    line = io.BytesIO(orjson.dumps(FIELDS) + b"\n")
    accepted, refused = submit.submit_lines(settings, Path(), line, say=said.append)
    if refused:
        raise BadInput(*said[0].split(": ", 2)[1:])
    return KEPT[0].gateway


def by_http(settings: Settings) -> str:
    """The gateway of a `POST /payments`."""
    return read_payment("p1", orjson.dumps(FIELDS), NOW, settings).gateway


def by_library(settings: Settings) -> str:
    """As the README has it."""
    return PaymentEvent.from_mapping(with_gateway(FIELDS, settings), now_ms=NOW).gateway


def by_subscription(settings: Settings) -> str:
    """The gateway of an order of `subscriptions add`."""
    details = {name: FIELDS[name] for name in ("amount_minor", "currency", "payment_method")}
    command = subscription_command(
        settings, "subscribe", "alice", "ann", "new", subscription_id="s1", **details
    )
    return str(command.details["gateway"])


@pytest.mark.parametrize("intake", [by_submit, by_http, by_library, by_subscription])
def test_every_intake_asks_the_one_rule(intake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The default, the only one, and the refusal are the same at each."""
    monkeypatch.setattr(submit, "PaymentProducer", Kept)
    assert "paypal" == intake(settings_of(("simulated", "paypal"), "paypal"))
    assert "stripe" == intake(settings_of(("stripe",)))
    for names in ((), ("simulated", "stripe")):
        with pytest.raises(BadInput, match="BILLING_DEFAULT_GATEWAY") as refused:
            intake(settings_of(names))
        assert "missing_field" == refused.value.reason


@pytest.mark.parametrize("default", ["simulated", "paypal"])
def test_a_changed_default_makes_a_repeat_a_mismatch_never_a_second_charge(default: str) -> None:
    """The gateway is part of what an id stands for; the repeat of the same default is answered."""
    first, second = AskedGateway(), ScriptedGateway(name="paypal")
    before = settings_of(("simulated", "paypal"), "simulated")
    after = settings_of(("simulated", "paypal"), default)
    with OneTask(first, second) as lab:
        fields = FIELDS | {"user_id": "u1", "payment_method": "pm_card_visa"}
        for settings in (before, after):
            lab.send(PaymentEvent.from_mapping(with_gateway(fields, settings), now_ms=lab.now_ms))
        one, two = lab.results()
        assert ("succeeded", "simulated", False) == (one["status"], one["gateway"], one["replayed"])
        if default == "simulated":
            assert ("succeeded", True) == (two["status"], two["replayed"])
        else:
            assert ("rejected", "idempotency_mismatch") == (two["status"], two["reason"])
    assert (1, 0) == (len(first.calls), len(second.calls))
