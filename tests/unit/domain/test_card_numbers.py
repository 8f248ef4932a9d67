"""Card numbers are found however they are written, and what we make ourselves is never taken for one."""

from __future__ import annotations

import random
import time
import uuid
from string import ascii_letters, digits
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamsocial_billing.domain.card_numbers import (
    holds_card,
    holds_card_in_id,
    holds_security_code,
    mask_card_numbers,
)
from streamsocial_billing.domain.events import MAX_EVENT_BYTES, PaymentEvent
from streamsocial_billing.domain.foreign_fields import BadInput
from streamsocial_billing.domain.payment_identity import gateway_key_of

CARD = "4242424242424242"
BRANDS = {
    "visa": CARD, "mastercard": "5555555555554444", "mastercard 2": "2223003122003222",
    "amex": "378282246310005", "discover": "6011111111111117", "diners": "30569309025904",
    "diners 36": "36227206271667", "diners of 16": "3056930009020004", "jcb": "3566002020360505",
    "unionpay": "6200000000000005", "unionpay of 19": "6205500000000000004", "maestro": "6759649826438453",
    "maestro uk": "6304000000000000",
}  # fmt: skip
"""The brands' own test numbers, and Stripe's."""
SEPARATORS = {
    ".": ".", "/": "/", "_": "_", ":": ":", ",": ",", " ": " ", "no-break": "\u00a0", "narrow": "\u202f",
    "thin": "\u2009", "zero width": "\u200b", "soft hyphen": "\u00ad", "en dash": "\u2013", "minus": "\u2212",
    "full-width dash": "\uff0d", "middle dot": "\u00b7", "two": ", ", "list": '","',
}  # fmt: skip
NOW = 1_790_000_000_000
FIELDS: dict[str, Any] = {
    "payment_id": "p1", "user_id": "u1", "product": "gift", "amount_minor": 499, "currency": "USD",
    "payment_method": "pm_card_visa", "gateway": "simulated", "requested_at": NOW,
}  # fmt: skip


def refused(**changes: Any) -> str | None:
    """The reason why a payment with these fields is refused; None: it is taken."""
    fields = FIELDS | changes
    try:
        PaymentEvent.from_bytes(orjson.dumps(fields), key=str(fields["user_id"]).encode(), now_ms=NOW)
    except BadInput as bad:
        return bad.reason
    return None


@pytest.mark.parametrize("separator", SEPARATORS.values(), ids=SEPARATORS.keys())
@pytest.mark.parametrize("escaped", [False, True])
def test_any_sign_may_stand_between_the_groups(separator: str, escaped: bool) -> None:
    """A card number in groups is refused, and masked in its dead letter; bytes keep their places."""
    text = separator.join(["4242"] * 4)
    value = orjson.dumps(FIELDS | {"note": text})
    if escaped:
        value = value.replace(
            orjson.dumps(text), b'"' + b"".join(b"\\u%04x" % ord(sign) for sign in text) + b'"'
        )

    masked, found = mask_card_numbers(value)

    assert "card_number" == refused(note=text)
    assert found
    assert len(value) == len(masked)
    assert not holds_card(orjson.loads(masked)["note"])
    assert orjson.loads(masked)["note"].endswith("4242")


@pytest.mark.parametrize("number", BRANDS.values(), ids=BRANDS.keys())
@pytest.mark.parametrize("name", ["payment_id", "user_id"])
@pytest.mark.parametrize("dress", ["{}", "u{}", "cus_{}", "{}-123", "card-{}-x"])
def test_an_id_that_holds_a_card_number_is_refused(number: str, name: str, dress: str) -> None:
    """Whatever the brand, also behind a letter, with the security code beside it."""
    assert "card_number" == refused(**{name: dress.format(number)})


@pytest.mark.parametrize("number", BRANDS.values(), ids=BRANDS.keys())
def test_a_number_of_any_brand_is_found_in_a_text(number: str) -> None:
    """In unknown fields, references, methods."""
    for name in ("note", "business_ref", "payment_method"):
        assert "card_number" == refused(**{name: f"x{number}"})
    groups = ".".join(number[at : at + 4] for at in range(0, len(number), 4))
    assert "card_number" == refused(note=groups)


def test_digits_of_any_alphabet_are_digits() -> None:
    """Full-width and Arabic digits make a card number, too."""
    for zero in ("\uff10", "\u0660"):
        text = "".join(chr(ord(zero) + int(digit)) for digit in CARD)
        assert "card_number" == refused(note=text)
        assert not holds_card(mask_card_numbers(text.encode())[0].decode())


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (f"{CARD} 123", "************4242 ***"),
        ("4242 4242 4242 4242 123", "**** **** **** 4242 ***"),
        (f"{CARD} 12/27 123", "************4242 12/27 ***"),
        (f"{CARD},1227,1234", "************4242,1227,****"),
        ('{"cvc": "123"}', '{"cvc": "***"}'),
        ("CVV2=1234;", "CVV2=****;"),
    ],
)
def test_the_security_code_beside_it_is_masked(text: str, kept: str) -> None:
    """PCI DSS 4.0, 3.3.1: it is kept by nobody."""
    assert (kept.encode(), True) == mask_card_numbers(text.encode())


def test_a_field_with_a_security_code_is_refused() -> None:
    """However deep it lies, as text or number."""
    assert "card_number" == refused(card={"exp": "12/27", "cvc": "123"})
    assert "card_number" == refused(more=[{"security_code": 1234}])
    assert "card_number" == refused(note="cvv: 123")
    assert refused(cvc_check="pass", code="123") is None
    assert not holds_security_code("receive: 123")


def test_what_we_make_ourselves_is_never_taken_for_a_card() -> None:
    """UUIDs, our references, ids of Stripe and PayPal, offsets, times: 15 000 of each."""
    drawn = random.Random(77)

    def letters(alphabet: str, length: int) -> str:
        return "".join(drawn.choices(alphabet, k=length))

    for number in range(15_000):
        one = uuid.UUID(int=drawn.getrandbits(128), version=4)
        at_ms = drawn.randrange(1_600_000_000_000, 2_000_000_000_000)
        for made in (
            one.hex, str(one), f"pay_{one.hex}", f"pay_{number:032x}", str(at_ms), str(at_ms * 1000),
            f"ch_{one.hex[:24]}", f"user-{one.hex[:24]}", one.hex[:24], one.hex[:20], f"{one.hex[:15]}e",
            str(at_ms * 1_000_000), f"{number % 8}-{drawn.getrandbits(40)}", f"user_{number}-{at_ms}",
            gateway_key_of(f"user_{number}", "charge", one.hex), f"ch_3{letters(ascii_letters + digits, 23)}",
            f"pi_3{letters(ascii_letters + digits, 23)}", letters(digits + "ABCDEFGHJKLMNPQRSTUVWXYZ", 17),
        ):  # fmt: skip
            assert not holds_card_in_id(made), made


def test_dates_addresses_and_decimals_are_no_cards() -> None:
    """What has digits and signs between them, and stands in a field that we do not know."""
    drawn = random.Random(77)
    for _ in range(5_000):
        at = time.gmtime(drawn.randrange(1_600_000_000, 2_200_000_000))
        for form in ("%Y-%m-%d %H:%M:%S", "%Y%m%d-%H%M%S", "%d.%m.%Y %H:%M:%S", "%Y-%m-%dT%H:%M:%S"):
            text = f"{time.strftime(form, at)}.{drawn.randrange(10**6):06d}"
            assert not holds_card(text), text
        parts = ".".join(str(drawn.randrange(256)) for _ in range(4))
        assert not holds_card(f"{parts}:{drawn.randrange(65536)}"), parts
        assert not holds_card(f"{drawn.randrange(10**6)}.{drawn.randrange(10**6):06d}")


def test_few_ids_that_are_numbers_are_refused_by_chance() -> None:
    """Of random numbers of 63 bit less than one in a hundred: else their users could never pay."""
    drawn = random.Random(77)
    found = sum(holds_card_in_id(str(drawn.getrandbits(63))) for _ in range(20_000))

    assert found < 200


@given(st.text(alphabet="4 .-/x5", max_size=80) | st.text(max_size=60))
@settings(max_examples=300)
def test_masking_leaves_nothing_to_mask_and_every_length(text: str) -> None:
    """Whatever the text: bytes keep their places, and a second look finds nothing."""
    value = text.encode("utf-8", "replace")
    masked, found = mask_card_numbers(value)

    assert len(value) == len(masked)
    assert found == (masked != value)
    assert (masked, False) == mask_card_numbers(masked)


@given(st.dictionaries(st.sampled_from(["payment_id", "user_id", "payment_method", "business_ref"]),
                       st.text(alphabet="4250_-x", min_size=1, max_size=40)))  # fmt: skip
@settings(max_examples=400)
def test_the_short_way_lets_no_card_pass(changes: dict[str, str]) -> None:
    """What is read at once holds no card number in any of its texts."""
    fields = FIELDS | changes
    if refused(**changes) is None:
        assert not holds_card_in_id(fields["payment_id"])
        assert not holds_card_in_id(fields["user_id"])
        assert not holds_card(fields["payment_method"], b"0123456789")
        assert not holds_card(fields.get("business_ref", ""))


def test_what_is_too_long_is_refused_before_it_is_searched() -> None:
    """A megabyte of digits costs the event loop no more than its length."""
    value = orjson.dumps(FIELDS | {"note": "4 " * 500_000})
    began = time.process_time()
    with pytest.raises(BadInput, match="too_large"):
        PaymentEvent.from_bytes(value, key=b"u1", now_ms=NOW)

    assert time.process_time() - began < 0.1
    assert "too_large" != refused(note="x" * (MAX_EVENT_BYTES - 1000))


@pytest.mark.parametrize("filling", ["4", "4 ", "4242 ", "4.2.", "\uff14 ", "\\u0034", "4" + " " * 30])
def test_no_text_makes_the_search_slow(filling: str) -> None:
    """It grows with the length of the text, not with its square: 64 KiB in far less than ten times 8 KiB."""

    def seconds(length: int) -> float:
        value = (filling * length)[:length].encode()
        return min(_timed(value) for _ in range(3))

    assert seconds(65_536) < 30 * seconds(8_192) + 0.05


def _timed(value: bytes) -> float:
    began = time.process_time()
    mask_card_numbers(value)
    return time.process_time() - began
