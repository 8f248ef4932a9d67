"""The records on the topics: reading, refusing, writing, identity.

Operations: any bytes, any JSON value or a valid event with one change is read as a payment event.
Checked properties:
1. reading ends with an event or with BadInput, never with another exception;
2. what was read is written to the same event again;
3. an event that was read holds only allowed values;
4. no text of a refusal and no masked dead letter holds a card number.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faust_exactly_once import partition_of
from streamsocial_billing.domain.card_numbers import holds_card, holds_card_in_id, mask_card_numbers
from streamsocial_billing.domain.events import PaymentEvent, RetryTrigger, _checked, _converted, _read_at_once
from streamsocial_billing.domain.foreign_fields import BadInput, object_of
from streamsocial_billing.domain.payment_identity import fingerprint, gateway_key
from streamsocial_billing.domain.results import charge_result, payment_metric, requested_metric

NOW = 1_764_600_000_000
DEFAULTED = ("action", "business_ref", "refund_of")
CARD = "4242424242424242"
FIELDS: dict[str, Any] = {
    "payment_id": "p1",
    "user_id": "u1",
    "action": "charge",
    "product": "subscription",
    "amount_minor": 1299,
    "currency": "USD",
    "payment_method": "pm_card_visa",
    "gateway": "simulated",
    "business_ref": "sub:42:2026-12",
    "refund_of": None,
    "requested_at": NOW,
}


def read(data: Mapping[str, Any], key: bytes | None = b"u1") -> PaymentEvent:
    return PaymentEvent.from_bytes(orjson.dumps(data), key=key, now_ms=NOW)


def refusal(value: bytes | None, key: bytes | None = b"u1") -> BadInput:
    with pytest.raises(BadInput) as caught:
        PaymentEvent.from_bytes(value, key=key, now_ms=NOW)
    return caught.value


def refused(**changes: Any) -> str:
    """The reason why the event with these changes is refused."""
    return refusal(orjson.dumps(FIELDS | changes)).reason


EVENT = read(FIELDS)


# ---- reading


def test_a_full_event_is_read_field_by_field() -> None:
    """What the producer wrote is what the agent sees."""
    assert FIELDS == {name: getattr(EVENT, name) for name in FIELDS}


def test_only_action_and_optional_fields_have_defaults() -> None:
    """Absent and null mean the same; unknown fields are ignored."""
    short = {name: FIELDS[name] for name in FIELDS if name not in DEFAULTED}
    event = read(short | {"note": "hello", "n": [1, {"a": None}]})

    assert ("charge", None, None) == (event.action, event.business_ref, event.refund_of)
    assert event == read(short | {"action": None, "business_ref": None, "refund_of": None})


def test_a_refund_names_its_charge() -> None:
    """Refunds are read now, so that the decision can refuse them with a result."""
    assert "p0" == read(FIELDS | {"action": "refund", "refund_of": "p0"}).refund_of


@pytest.mark.parametrize("name", [name for name in FIELDS if name not in DEFAULTED])
def test_each_required_field_is_missed(name: str) -> None:
    """No field that decides about money has a silent default."""
    value = orjson.dumps({key: FIELDS[key] for key in FIELDS if key != name})

    assert ("missing_field", True) == (refusal(value).reason, name in refusal(value).detail)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "empty"),
        (b"", "empty"),
        (b" ", "not_json"),
        (b"{", "not_json"),
        (b"\xff\xfe", "not_json"),
        (b'{"a":"\xc3\x28"}', "not_json"),
        (b'{"a":"\\ud800"}', "not_json"),
        (b'{"a":"\x00"}', "not_json"),
        (b'{"amount_minor":NaN}', "not_json"),
        (b'{"amount_minor":1e999}', "not_json"),
        (b"[" * 50_000, "not_json"),
        (b"[" * 65_537, "too_large"),
        (b"null", "not_an_object"),
        (b"[]", "not_an_object"),
        (b'"text"', "not_an_object"),
        (b"12", "not_an_object"),
    ],
)
def test_what_is_no_json_object_is_told_apart(value: bytes | None, reason: str) -> None:
    """Broken bytes become a dead letter with a reason, whatever is broken."""
    assert reason == refusal(value).reason


@pytest.mark.parametrize(
    ("value", "place"), [(b"not json", 0), (b'{"a":}', 5), (b'{"a":1}x', 7), (b"[1,]", 2), (b"\xff", 0)]
)
def test_bytes_that_are_not_json_are_refused_in_our_words(value: bytes, place: int) -> None:
    """Where it breaks; nothing of the parser's rules."""
    with pytest.raises(BadInput, match=rf"^not_json: this is not valid JSON, from character {place} on$"):
        PaymentEvent.from_bytes(value, key=b"u", now_ms=1)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        *((name, 5, "wrong_type") for name in FIELDS if name not in ("amount_minor", "requested_at")),
        *((name, None, "wrong_type") for name in ("payment_id", "user_id", "gateway", "amount_minor")),
        *((name, ["x"], "wrong_type") for name in FIELDS),
        ("payment_id", "", "bad_id"),
        ("payment_id", "a" * 65, "bad_id"),
        ("payment_id", "a/b", "bad_id"),
        ("payment_id", "a.b", "bad_id"),
        ("payment_id", "a\n", "bad_id"),
        ("payment_id", "a\x00", "bad_id"),
        ("payment_id", "\u00e4", "bad_id"),
        ("user_id", "u 1", "bad_id"),
        ("action", "Charge", "unknown_action"),
        ("product", "book", "unknown_product"),
        ("amount_minor", 0, "bad_amount"),
        ("amount_minor", -1, "bad_amount"),
        ("amount_minor", 12.0, "bad_amount"),
        ("amount_minor", 10**12 + 1, "bad_amount"),
        ("amount_minor", 2**64 - 1, "bad_amount"),
        ("amount_minor", True, "wrong_type"),
        ("amount_minor", "12", "wrong_type"),
        ("currency", "usd", "unknown_currency"),
        ("currency", "XTS", "unknown_currency"),
        ("payment_method", "", "bad_id"),
        ("payment_method", "pm card", "bad_id"),
        ("payment_method", "x" * 129, "bad_id"),
        ("gateway", "square", "unknown_gateway"),
        ("business_ref", "", "bad_business_ref"),
        ("business_ref", "sub 42", "bad_business_ref"),
        ("business_ref", "x" * 129, "bad_business_ref"),
        ("refund_of", "p0", "bad_refund_of"),
        ("requested_at", NOW + 300_001, "requested_in_future"),
        ("requested_at", 1.5, "wrong_type"),
        ("requested_at", True, "wrong_type"),
        ("requested_at", -1, "wrong_type"),
    ],
)
def test_each_bad_value_has_its_reason(name: str, value: object, reason: str) -> None:
    """One wrong field is enough, its code says which rule it broke."""
    assert reason == refused(**{name: value})


def test_an_integer_beyond_64_bit_is_a_bad_amount() -> None:
    """The JSON reader turns it into a float: it is refused, not rounded."""
    value = orjson.dumps(FIELDS).replace(b":1299,", b":" + b"9" * 30 + b",")

    assert "bad_amount" == refusal(value).reason


def test_a_refund_without_its_charge_is_refused() -> None:
    """There is nothing to look up for it."""
    assert "bad_refund_of" == refused(action="refund")
    assert "bad_refund_of" == refused(action="refund", refund_of="a b")


@pytest.mark.parametrize("key", [None, b"", b"u2", b'"u1"', b"\xff"])
def test_the_record_key_must_be_the_user(key: bytes | None) -> None:
    """A record under another key could sit in another partition than its user's state."""
    assert "key_mismatch" == refusal(orjson.dumps(FIELDS), key=key).reason


def test_the_bounds_themselves_are_allowed() -> None:
    """Limits belong to what is allowed."""
    edge = {
        "payment_id": "p" * 64,
        "amount_minor": 10**12,
        "payment_method": "~" * 128,
        "business_ref": "/" * 128,
        "requested_at": NOW + 300_000,
    }

    assert 10**12 == read(FIELDS | edge).amount_minor


def test_intake_fills_what_the_caller_left_out() -> None:
    """A caller of our own intake needs neither a route nor a clock."""
    left_out = ("action", "gateway", "requested_at", "business_ref", "refund_of")
    short = {name: FIELDS[name] for name in FIELDS if name not in left_out}

    event = PaymentEvent.from_mapping(short, now_ms=NOW, default_gateway="simulated")

    assert read(FIELDS | {"business_ref": None}) == event
    assert "gateway" not in short
    with pytest.raises(BadInput, match="missing_field: gateway"):
        PaymentEvent.from_mapping(short, now_ms=NOW)


def test_intake_keeps_what_the_caller_said() -> None:
    """Defaults never overwrite."""
    said = FIELDS | {"gateway": "stripe", "requested_at": 5}

    event = PaymentEvent.from_mapping(said, now_ms=NOW, default_gateway="simulated")

    assert ("stripe", 5) == (event.gateway, event.requested_at)


def test_intake_refuses_huge_python_integers() -> None:
    """Python's own integers have no limit, messages about them do."""
    with pytest.raises(BadInput, match="bad_amount"):
        PaymentEvent.from_mapping(FIELDS | {"amount_minor": 10**10_000}, now_ms=NOW)


def test_triggers_are_read_as_they_were_written() -> None:
    """A trigger says whose payment to look at, no more."""
    trigger = RetryTrigger(user_id="u1", payment_id="p1")

    assert b'{"user_id":"u1","payment_id":"p1"}' == trigger.to_bytes()
    assert trigger == RetryTrigger.from_bytes(trigger.to_bytes())
    other = RetryTrigger("u1", "sub-7", "subscription")
    assert other == RetryTrigger.from_bytes(other.to_bytes())
    with pytest.raises(BadInput, match="unknown_kind"):
        RetryTrigger.from_bytes(b'{"user_id":"u1","payment_id":"p1","kind":"x"}')
    with pytest.raises(BadInput, match="missing_field"):
        RetryTrigger.from_bytes(b'{"user_id":"u1"}')
    with pytest.raises(BadInput, match="empty"):
        RetryTrigger.from_bytes(None)


# ---- any input at all

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


def survives(value: bytes) -> PaymentEvent | None:
    try:
        event = PaymentEvent.from_bytes(value, key=b"u1", now_ms=NOW)
    except BadInput as error:
        assert error.reason and error.detail
        assert not holds_card(error.detail)
        return None
    assert event == PaymentEvent.from_bytes(event.to_bytes(), key=b"u1", now_ms=NOW)
    assert 0 < event.amount_minor <= 10**12
    return event


@given(st.binary())
def test_any_bytes_are_read_or_refused(value: bytes) -> None:
    """Nothing on the topic can stop a worker."""
    survives(value)
    mask_card_numbers(value)


@given(json_values)
def test_any_json_is_read_or_refused(value: object) -> None:
    """Nor can any JSON, whatever its shape."""
    survives(json.dumps(value).encode())


@given(st.sampled_from(sorted(FIELDS)), json_values)
@settings(max_examples=300)
def test_any_value_in_any_field_is_read_or_refused(name: str, value: object) -> None:
    """A valid event with one field replaced is either fine again or refused."""
    survives(json.dumps(FIELDS | {name: value}).encode())


CHANGES = st.fixed_dictionaries({}, optional={
    "payment_id": st.sampled_from(["p1\n", "", CARD, "p" * 65, "\u0661"]),
    "action": st.sampled_from(["charge", "refund", "Charge", None]),
    "product": st.sampled_from(["gift", "gifts"]),
    "amount_minor": st.sampled_from([0, 1, 10**12, 10**12 + 1, 5.0, True, "5", 2**64, -1]),
    "currency": st.sampled_from(["EUR", "eur", "XXZ", "USD "]),
    "payment_method": st.sampled_from(["tok", f"x{CARD}", "", "a b", "t" * 129, "tok\n"]),
    "gateway": st.sampled_from(["stripe", "other", None]),
    "business_ref": st.sampled_from([None, "", "a b", "sub:1\n", f"order:{CARD}", "r" * 129]),
    "refund_of": st.sampled_from([None, "c1", "", CARD]),
    "requested_at": st.sampled_from([0, -1, NOW + 300_000, NOW + 300_001, 1.0, False]),
    "more": st.sampled_from([None, 1, CARD]),
})  # fmt: skip


@given(CHANGES, st.lists(st.tuples(st.integers(0, 300), st.integers(0, 255)), max_size=2))
@settings(max_examples=400)
def test_what_is_read_at_once_is_what_every_check_lets_pass(
    changes: dict[str, Any], flips: list[tuple[int, int]]
) -> None:
    """The short way takes no event that the long one refuses, reads it alike, and takes nearly all."""
    value = bytearray(orjson.dumps(FIELDS | changes) if 2**64 not in changes.values() else b"{}")
    for place, byte in flips:
        value[place % len(value)] = byte
    quick = _read_at_once(bytes(value), NOW)
    try:
        slow = _checked(object_of(bytes(value)), NOW)
    except BadInput:
        slow = None

    assert quick is None or quick == slow
    assert quick is not None or slow is None or flips or {"action", "more"} & changes.keys()


@given(CHANGES)
@settings(max_examples=400)
def test_fields_are_converted_only_where_every_check_lets_them_pass(changes: dict[str, Any]) -> None:
    """The same of fields that came over HTTP: what is taken on the short way is what the long one takes."""
    data = FIELDS | changes
    quick = _converted(data, NOW)
    try:
        slow = _checked(dict(data), NOW)
    except BadInput:
        slow = None

    assert quick is None or quick == slow
    assert quick is not None or slow is None or {"action", "more"} & changes.keys()


@given(json_values)
def test_any_unknown_field_is_ignored_or_refused(value: object) -> None:
    """Unknown fields never change an event."""
    event = survives(json.dumps(FIELDS | {"more": value}).encode())

    assert event in (None, EVENT)


def test_nesting_deeper_than_pythons_recursion_is_read() -> None:
    """The search for card numbers keeps no recursion."""
    deep = b"[" * 1000 + b'"' + CARD.encode() + b'"' + b"]" * 1000
    value = orjson.dumps(FIELDS)[:-1]

    assert "card_number" == refusal(value + b',"x":' + deep + b"}").reason
    assert "wrong_type" == refusal(orjson.dumps(FIELDS).replace(str(NOW).encode(), deep)).reason


# ---- card numbers


@pytest.mark.parametrize(
    "text",
    [
        CARD,
        "4242 4242 4242 4242",
        "4242-4242-4242-4242",
        "4 2 4 2 4 2 4 2 4 2 4 2 4 2 4 2",
        "pm_4242424242424242",
        "card4242424242424242!",
        "378282246310005",
        "3782 822463 10005",
        "4222222222222",
        "6304000000000000000",
        "4242 4242 4242 4242 12 27 123",
        "12 4242  -  4242 4242 4242",
        "\u20144242424242424242\u2014",
    ],
)
@pytest.mark.parametrize("escaped", [False, True])
@pytest.mark.parametrize("name", ["payment_method", "business_ref", "note"])
def test_a_card_number_is_refused_in_any_dress(name: str, text: str, escaped: bool) -> None:
    """It neither reaches the table nor, unmasked, the dead letters."""
    value = json.dumps(FIELDS | {name: text}).encode()
    if escaped:
        dressed = "".join(f"\\u{ord(sign):04x}" for sign in text)
        value = value.replace(json.dumps(text).encode(), f'"{dressed}"'.encode())
    error = refusal(value)
    masked, found = mask_card_numbers(value)

    assert "card_number" == error.reason
    assert not holds_card(error.detail)
    assert found
    assert len(value) == len(masked)
    assert not holds_card(orjson.loads(masked)[name])
    assert mask_card_numbers(masked) == (masked, False)


def test_names_and_nested_strings_are_searched() -> None:
    """A card number does not hide in a corner of an unknown field."""
    assert "card_number" == refused(note={"a": [{"b": CARD}]})
    assert "card_number" == refused(note={CARD: 1})
    assert "card_number" == refused(**{CARD: 1})


def test_payment_method_takes_any_luhn_number() -> None:
    """Where a card number would be sent by mistake, no first digit excuses it."""
    assert "card_number" == refused(payment_method="1234567812345670")
    assert mask_card_numbers(b'{"payment_method": "1234567812345670"') == (
        b'{"payment_method": "************5670"',
        True,
    )


@pytest.mark.parametrize(
    "text",
    ["4242424242424241", "424242424242", "42424242424242424242", "1764600000004", "4242x424242424242"],
)
def test_other_numbers_are_no_card_numbers(text: str) -> None:
    """A wrong check digit, another length or a time stamp is let through."""
    assert text == read(FIELDS | {"business_ref": text}).business_ref


@pytest.mark.parametrize("name", ["payment_id", "user_id"])
def test_ids_that_are_numbers_are_refused_only_as_brands_cards(name: str) -> None:
    """A user with a number for an id is not refused by the chance of one in ten."""
    snowflake = "412345678901234561"
    assert holds_card(snowflake)

    key = snowflake.encode() if name == "user_id" else b"u1"
    assert snowflake == getattr(read(FIELDS | {name: snowflake}, key=key), name)
    for card in (CARD, "4242-4242-4242-4242", "5555555555554444", "378282246310005", "2223003122003222"):
        assert "card_number" == refused(**{name: card})
    assert not holds_card_in_id("4242424242424241")


def test_a_refusal_shows_values_without_card_numbers() -> None:
    """Logs and dead-letter headers carry `detail`: long values are cut, cards masked before the cut."""
    cut = refusal(orjson.dumps(FIELDS | {"currency": "x" * 70 + CARD})).detail

    assert cut.endswith("x******...")
    assert "************4242" in refusal(orjson.dumps(FIELDS), key=CARD.encode()).detail
    assert len(refusal(orjson.dumps(FIELDS | {"product": "y" * 10_000})).detail) < 200


def test_masking_leaves_other_bytes_alone() -> None:
    """A dead letter without a card number holds the original bytes."""
    value = orjson.dumps(FIELDS) + b"\xff\x00 junk \\"

    assert (value, False) == mask_card_numbers(value)


def test_masking_works_on_bytes_that_are_no_json() -> None:
    """A record that cannot be read may still hold a card number."""
    assert (b"\xff{************4242", True) == mask_card_numbers(b"\xff{" + CARD.encode())


@given(st.integers(10**11, 10**18 - 1), st.text("x :;,", max_size=4), st.text("x :;,", max_size=4))
def test_every_luhn_number_of_a_card_is_found(stem: int, before: str, after: str) -> None:
    """The search agrees with the textbook's sum for every length from 13 to 19."""
    digits = f"4{stem}"
    doubled = [int(c) * 2 if place % 2 == 0 else int(c) for place, c in enumerate(reversed(digits))]
    check = -sum(d - 9 if d > 9 else d for d in doubled) % 10
    text = before + digits + str(check) + after

    assert (13 <= len(digits) + 1 <= 19) == holds_card(text)
    wrong = before + digits + str((check + 1) % 10) + after
    assert not holds_card(wrong)


# ---- identity


def test_the_fingerprint_is_pinned() -> None:
    """Stored entries hold it: another value would refuse every re-sent event."""
    canonical = (
        b'fingerprint:1:{"action":"charge","amount_minor":1299,"business_ref":"sub:42:2026-12","currency":"USD",'
        b'"gateway":"simulated","payment_method":"pm_card_visa","product":"subscription","refund_of":null,'
        b'"user_id":"u1"}'
    )

    assert hashlib.sha256(canonical).hexdigest() == fingerprint(EVENT)
    assert "7a5b362f8480205ae4220fa13b1ade9cdb418db39e6fc5a3b5a1de675e8af241" == fingerprint(EVENT)


@pytest.mark.parametrize(
    ("name", "value", "same"),
    [
        ("payment_id", "p2", True),
        ("requested_at", 5, True),
        ("action", "refund", False),
        ("product", "gift", False),
        ("amount_minor", 1300, False),
        ("currency", "EUR", False),
        ("payment_method", "pm_2", False),
        ("gateway", "stripe", False),
        ("business_ref", None, False),
    ],
)
def test_the_fingerprint_covers_exactly_what_a_payment_is(name: str, value: object, same: bool) -> None:
    """Another time is the same payment sent again, another amount is not."""
    more = {"refund_of": "p0"} if value == "refund" else {}

    assert same == (fingerprint(EVENT) == fingerprint(read(FIELDS | {name: value} | more)))


texts = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.builds(
    PaymentEvent, payment_id=texts, user_id=texts, action=texts, product=texts,
    amount_minor=st.integers(1, 10**12), currency=texts, payment_method=texts, gateway=texts,
    business_ref=st.none() | texts, refund_of=st.none() | texts, requested_at=st.integers(0, 2**62),
))  # fmt: skip
def test_a_fingerprint_is_that_of_the_sorted_fields(event: PaymentEvent) -> None:
    """Written in the order of their names without a sort, whatever texts they hold."""
    names = FIELDS.keys() - {"payment_id", "requested_at"}
    sorted_json = orjson.dumps({name: getattr(event, name) for name in names}, option=orjson.OPT_SORT_KEYS)
    assert hashlib.sha256(b"fingerprint:1:" + sorted_json).hexdigest() == fingerprint(event)


def test_a_fingerprint_of_a_newer_release_is_not_guessed() -> None:
    """A worker that was set back stops rather than refuse known payments."""
    with pytest.raises(ValueError, match="newer release"):
        fingerprint(EVENT, version=2)


def test_the_gateway_key_is_pinned() -> None:
    """Another key for the same payment would be a second charge."""
    digest = hashlib.sha256(b'[1,"u1","charge","p1"]').hexdigest()

    assert "ss1_" + digest[:56] == gateway_key(EVENT)
    assert "ss1_251da0da0c3607229e4af838817abdf84f505aac42ff17ba844183a1" == gateway_key(EVENT)


def test_the_gateway_key_joins_without_ambiguity() -> None:
    """Shifting a character from user to payment makes another key; time and amount do not."""
    one = read(FIELDS | {"user_id": "u1", "payment_id": "1p"})
    other = read(FIELDS | {"user_id": "u11", "payment_id": "p"}, key=b"u11")

    assert gateway_key(one) != gateway_key(other)
    assert gateway_key(EVENT) == gateway_key(read(FIELDS | {"requested_at": 5, "amount_minor": 7}))


@pytest.mark.parametrize(
    ("key", "hashed"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_the_partition_is_javas(key: bytes, hashed: int) -> None:
    """Values of Kafka's own UtilsTest.testMurmur2: every producer puts a user into one partition."""
    assert (hashed & 0x7FFFFFFF) % 8 == partition_of(key, 8)
    assert (hashed & 0x7FFFFFFF) % 1000 == partition_of(key, 1000)


# ---- what we write


def test_a_charge_result_has_the_documented_fields_in_their_order() -> None:
    """Readers of `charge-results` rely on these names."""
    value = charge_result(
        payment_id="p1",
        user_id="u1",
        action="charge",
        product="gift",
        status="succeeded",
        reason=None,
        replayed=False,
        amount_minor=1299,
        currency="USD",
        gateway="simulated",
        gateway_ref="ch_1",
        attempt=1,
        requested_at=1,
        processed_at=2,
        source={"topic": "payments", "partition": 3, "offset": 4},
    )

    assert (
        b'{"payment_id":"p1","user_id":"u1","action":"charge","product":"gift","status":"succeeded","reason":null,'
        b'"replayed":false,"amount_minor":1299,"currency":"USD","gateway":"simulated","gateway_ref":"ch_1",'
        b'"attempt":1,"requested_at":1,"processed_at":2,"source":{"topic":"payments","partition":3,"offset":4},'
        b'"resolves":false,"business_ref":null,"refund_of":null,"conflicts_with":null,"origin":"event"}'
    ) == value


def test_a_payment_metric_has_the_documented_fields_in_their_order() -> None:
    """So do readers of `payment-metrics`."""
    value = payment_metric(
        payment_id="p1",
        product="gift",
        action="charge",
        status="declined",
        replayed=True,
        amount_minor=1299,
        currency="USD",
        gateway="simulated",
        gateway_ms=12,
        at=5,
    )

    assert (
        b'{"payment_id":"p1","product":"gift","action":"charge","status":"declined","replayed":true,'
        b'"amount_minor":1299,"currency":"USD","gateway":"simulated","gateway_ms":12,"at":5}'
    ) == value


def test_the_requested_metric_is_one_that_called_no_gateway() -> None:
    """Intake counts what was asked for in the same form."""
    metric = orjson.loads(requested_metric(EVENT, 7))

    assert ("requested", False) == (metric["status"], metric["replayed"])
    assert (None, 7) == (metric["gateway_ms"], metric["at"])
    assert ("p1", "subscription", 1299) == (metric["payment_id"], metric["product"], metric["amount_minor"])
