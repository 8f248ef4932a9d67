"""POST /webhooks/{gateway} at real workers: from the gateway's signature to the record in Kafka."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from support.patient_worker import PATIENT
from support.system import CALM, System
from support.topics import committed
from support.until import until
from support.web_client import Answer, get, post
from support.webhook_payloads import (
    CHARGE_KEY,
    METADATA,
    PAID,
    PAYPAL_HEADERS,
    SECRET,
    USER,
    paypal_case,
    paypal_event,
    paypal_refund,
    stripe_charge,
    stripe_dispute,
    stripe_event,
    stripe_refund,
    stripe_signature,
)
from support.wiremock_server import WireMock

from faust_exactly_once import partition_of
from streamsocial_billing.domain.gateway_events import GatewayEvent
from streamsocial_billing.settings import GATEWAY_EVENTS

CAPTURE = "/v2/payments/captures/42311647XV020574X"
VERIFY = "/v1/notifications/verify-webhook-signature"
PAYPAL = {name.replace("-", "_"): value for name, value in PAYPAL_HEADERS.items()}


@pytest.fixture(scope="module")
def system(broker: str, wiremock: WireMock, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """Two workers whose webhooks are set up."""
    folder = tmp_path_factory.mktemp("webhooks")
    secrets = folder / "secrets"
    secrets.write_text(f"whsec_old\n{SECRET}\n")
    options: dict[str, Any] = {
        "BILLING_STRIPE_API_KEY": "sk_test_x", "BILLING_STRIPE_ACCOUNT": "acct_1",
        "BILLING_STRIPE_URL": wiremock.url, "BILLING_STRIPE_WEBHOOK_SECRETS_FILE": secrets,
        "BILLING_PAYPAL_CLIENT_ID": "client", "BILLING_PAYPAL_CLIENT_SECRET": "geheim",
        "BILLING_PAYPAL_URL": wiremock.url, "BILLING_PAYPAL_WEBHOOK_ID": "WEB1",
        # webhooks need their signature, not the token
        "BILLING_API_TOKEN": "a-token-that-nobody-guesses", **CALM,
    }  # fmt: skip
    with System(broker, folder, f"webhooks-{time.time_ns()}", workers=2, partitions=4, **options) as system:
        for worker in system.workers:
            worker.program = PATIENT
        system.start()
        yield system


@pytest.fixture(autouse=True)
def answers(wiremock: WireMock) -> None:
    """The charge is known, PayPal verifies; a test changes what it is about."""
    wiremock.reset()
    wiremock.stub("GET", "/v1/charges/ch_1", stripe_charge())
    wiremock.stub("POST", "/v1/oauth2/token", {"access_token": "t-1", "expires_in": 3600})
    wiremock.stub("POST", VERIFY, {"verification_status": "SUCCESS"})
    wiremock.stub("GET", CAPTURE, {"id": "42311647XV020574X", "custom_id": f"{CHARGE_KEY}:{USER}:{PAID}"})


def to_stripe(system: System, message: object, *, worker: int = 0, **changed: Any) -> Answer:
    """Send a message as Stripe signs it."""
    body = orjson.dumps(message)
    signature = stripe_signature(body, **changed)
    port = system.workers[worker].web_port
    return post(port, "/webhooks/stripe", body, Stripe_Signature=signature)


def to_paypal(system: System, message: object) -> Answer:
    """Send a message with PayPal's headers."""
    return post(system.worker.web_port, "/webhooks/paypal", orjson.dumps(message), **PAYPAL)


def records(system: System, event_id: str) -> list[GatewayEvent]:
    """What is on `gateway-events` of a message, read as its reader does, from its user's partition."""
    found = []
    for message in committed(system.settings, GATEWAY_EVENTS):
        event = GatewayEvent.from_bytes(message.value(), key=message.key())
        assert partition_of(message.key() or b"", 4) == message.partition()
        found += [event] if event.event_id == event_id else []
    return found


def counted(system: System, gateway: str, outcome: str) -> float:
    """`billing_webhooks_total` over all workers."""
    total = 0.0
    for worker in system.workers:
        text = get(worker.web_port, "/metrics").body.decode()
        for family in text_string_to_metric_families(text):
            for one in family.samples:
                if one.name == "billing_webhooks_total" and one.labels == {
                    "gateway": gateway, "outcome": outcome,
                }:  # fmt: skip
                    total += one.value
    return total


@pytest.mark.parametrize("worker", [0, 1])
def test_a_signed_message_is_on_the_topic_when_it_is_answered(system: System, worker: int) -> None:
    """Any worker takes it; the record is exactly what the table makes of it; nobody is asked."""
    event_id = f"evt_here_{worker}"
    message = stripe_event("charge.succeeded", stripe_charge(metadata=METADATA), id=event_id)
    assert 200 == to_stripe(system, message, worker=worker).status
    expected = GatewayEvent(
        event_id=event_id, gateway="stripe", kind="charge", status="succeeded", gateway_ref="ch_1",
        ref=CHARGE_KEY, user_id=USER, payment_id=PAID, amount_minor=999, currency="EUR",
        occurred_at=1_764_600_000_000,
    )  # fmt: skip
    assert [expected] == records(system, event_id)


def test_each_secret_of_the_file_counts_while_they_rotate(system: System) -> None:
    """The old one, the new one, no other."""
    for number, (secret, status) in enumerate([("whsec_old", 200), (SECRET, 200), ("whsec_gone", 400)]):
        message = stripe_event("charge.succeeded", stripe_charge(), id=f"evt_rotated_{number}")
        assert status == to_stripe(system, message, secret=secret).status
        assert (status == 200) == (len(records(system, f"evt_rotated_{number}")) == 1)


def test_an_old_message_is_refused_and_counted(system: System) -> None:
    """400, nothing in Kafka; a copy that somebody kept is worth nothing after 5 minutes."""
    before = counted(system, "stripe", "bad_signature")
    message = stripe_event("charge.succeeded", stripe_charge(), id="evt_old")
    assert 400 == to_stripe(system, message, at=time.time() - 310).status
    assert [] == records(system, "evt_old")
    assert 1 == counted(system, "stripe", "bad_signature") - before


def test_a_dispute_is_keyed_by_its_charges_user(system: System, wiremock: WireMock) -> None:
    """The charge is asked for; while it cannot be, Stripe is told to send again."""
    message = stripe_event("charge.dispute.funds_withdrawn", stripe_dispute(), id="evt_dispute")
    wiremock.stub("GET", "/v1/charges/ch_1", {"error": {"type": "api_error"}}, 500)
    answer = to_stripe(system, message)
    assert (503, "1") == (answer.status, answer.headers["Retry-After"])
    assert [] == records(system, "evt_dispute")
    wiremock.stub("GET", "/v1/charges/ch_1", stripe_charge())
    assert 200 == to_stripe(system, message).status
    found = records(system, "evt_dispute")
    assert [(USER, PAID, "dispute")] == [(one.user_id, one.charge_id, one.kind) for one in found]


@pytest.mark.parametrize(
    ("status", "body"),
    [(200, {**stripe_charge(), "metadata": {}}), (404, {"error": {"code": "resource_missing"}})],
)
def test_a_charge_of_somebody_else_is_counted(
    system: System, wiremock: WireMock, status: int, body: object
) -> None:
    """2xx, no record."""
    before = counted(system, "stripe", "foreign")
    wiremock.stub("GET", "/v1/charges/ch_1", body, status)
    message = stripe_event("charge.dispute.created", stripe_dispute(), id="evt_foreign")
    assert 200 == to_stripe(system, message).status
    assert (1, []) == (counted(system, "stripe", "foreign") - before, records(system, "evt_foreign"))


def test_what_is_not_ours_need_not_be_readable(system: System, wiremock: WireMock) -> None:
    """A status that we do not know: 200 and counted on another shop's refund, 422 on one of ours."""
    before = counted(system, "stripe", "foreign")
    message = stripe_event("refund.updated", stripe_refund(status="new", metadata={}), id="evt_new")
    assert 422 == to_stripe(system, message).status
    wiremock.stub("GET", "/v1/charges/ch_1", {**stripe_charge(), "metadata": {}})
    assert 200 == to_stripe(system, message).status
    assert (1, []) == (counted(system, "stripe", "foreign") - before, records(system, "evt_new"))


def test_a_dispute_that_was_reinstated_in_part_is_two_records_in_their_order(system: System) -> None:
    """What was withdrawn in all, then what came back in all; an inquiry moved nothing."""
    rows = [{"amount": amount, "currency": "eur", "fee": 0} for amount in (-500, 200)]
    lost = stripe_dispute(status="lost", amount=500, balance_transactions=rows)
    assert 200 == to_stripe(system, stripe_event("charge.dispute.closed", lost, id="evt_part")).status
    inquiry = stripe_dispute(status="warning_closed", balance_transactions=[])
    assert 200 == to_stripe(system, stripe_event("charge.dispute.closed", inquiry, id="evt_inquiry")).status
    assert [("succeeded", 500)] == [(one.status, one.amount_minor) for one in records(system, "evt_part")]
    assert [("declined", 200)] == [
        (one.status, one.amount_minor) for one in records(system, "evt_part:returned")
    ]
    assert ["pending"] == [one.status for one in records(system, "evt_inquiry")]


def test_paypal_says_itself_whether_it_signed(system: System, wiremock: WireMock) -> None:
    """It gets its five headers, our webhook's id, the message as it came; then the record is there."""
    message = paypal_event("PAYMENT.CAPTURE.REFUNDED", paypal_refund(), id="WH-1")
    assert 200 == to_paypal(system, message).status
    asked = orjson.loads(wiremock.requests(VERIFY)[0]["body"])
    assert ("WEB1", PAYPAL_HEADERS["PAYPAL-TRANSMISSION-SIG"], message) == (
        asked["webhook_id"], asked["transmission_sig"], asked["webhook_event"],
    )  # fmt: skip
    assert [("paypal", "refund", "r-1")] == [
        (one.gateway, one.kind, one.payment_id) for one in records(system, "WH-1")
    ]


def test_a_case_at_paypal_is_keyed_by_its_captures_user(system: System) -> None:
    """The capture is asked for."""
    assert 200 == to_paypal(system, paypal_event("CUSTOMER.DISPUTE.CREATED", paypal_case(), id="WH-2")).status
    assert [(USER, PAID)] == [(one.user_id, one.charge_id) for one in records(system, "WH-2")]


@pytest.mark.parametrize(
    ("stubbed", "status"),
    [
        ({"body": {"verification_status": "FAILURE"}}, 400),
        ({"body": {"name": "VALIDATION_ERROR"}, "status": 400}, 400),
        ({"body": {}, "status": 500}, 503),
        ({"body": {}, "status": 401}, 503),
        ({"body": {}, "fault": "CONNECTION_RESET_BY_PEER"}, 503),
        ({"body": {"verification_status": "PERHAPS"}}, 503),
    ],
)
def test_without_paypals_yes_nothing_is_taken(
    system: System, wiremock: WireMock, stubbed: dict[str, Any], status: int
) -> None:
    """Its no is 400; no answer is 503, so that PayPal sends again."""
    wiremock.stub("POST", VERIFY, **stubbed)
    answer = to_paypal(system, paypal_event("PAYMENT.CAPTURE.REFUNDED", paypal_refund(), id="WH-no"))
    assert (status, []) == (answer.status, records(system, "WH-no"))


def test_a_gateway_without_webhooks_is_404(system: System) -> None:
    """The simulator sends none."""
    for gateway in ("simulated", "adyen", "stripe%2F"):
        assert 404 == post(system.worker.web_port, f"/webhooks/{gateway}", b"{}").status


def test_a_body_that_is_too_large_is_413(system: System) -> None:
    """A mebibyte at most."""
    assert 413 == post(system.worker.web_port, "/webhooks/stripe", b" " * 1_100_000).status


def test_any_bytes_are_refused(system: System) -> None:
    """Never a 500, never a record."""
    before = len(committed(system.settings, GATEWAY_EVENTS))
    # control characters are refused by the HTTP server itself
    signs = st.text(st.characters(min_codepoint=33, max_codepoint=255, exclude_categories=["C"]), max_size=80)

    @examples(max_examples=200, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.binary(max_size=300), signs, st.sampled_from(["stripe", "paypal"]))
    def refused(body: bytes, sign: str, gateway: str) -> None:
        answer = post(system.worker.web_port, f"/webhooks/{gateway}", body, Stripe_Signature=sign)
        assert (400, "bad_signature") == (answer.status, answer.json()["error"])

    refused()
    assert before == len(committed(system.settings, GATEWAY_EVENTS))


def test_a_record_that_kafka_does_not_confirm_is_503(system: System) -> None:
    """The gateway is told to send again, until the record is there."""
    message = stripe_event("charge.succeeded", stripe_charge(), id="evt_later")
    set_topic(system, GATEWAY_EVENTS, "max.message.bytes", "1")
    until(lambda: answer_to_a_probe(system) == 503, "a broker that goes by the new limit")
    answer = to_stripe(system, message)
    assert (503, "1", []) == (answer.status, answer.headers["Retry-After"], records(system, "evt_later"))
    set_topic(system, GATEWAY_EVENTS, "max.message.bytes", "1048588")
    until(lambda: to_stripe(system, message).status == 200, "the old limit again")
    assert {"evt_later"} == {one.event_id for one in records(system, "evt_later")}


def answer_to_a_probe(system: System) -> int:
    """The status of an event that nobody looks for."""
    probe = stripe_event("charge.succeeded", stripe_charge(), id=f"evt_probe_{time.monotonic_ns()}")
    return to_stripe(system, probe).status


def set_topic(system: System, name: str, setting: str, value: str) -> None:
    """Change one setting of a topic of the app."""
    admin = AdminClient(system.settings.client_config())
    change = ConfigEntry(setting, value, incremental_operation=AlterConfigOpType.SET)
    topic = system.settings.topic(name)
    changed = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=[change])
    for done in admin.incremental_alter_configs([changed]).values():
        done.result(60)
