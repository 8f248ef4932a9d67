"""What was planted in records is in no line."""

from __future__ import annotations

import importlib.util
import json
import logging
import sys
from typing import Any

import pytest

from streamsocial_billing.logs.lines import TextFormatter
from streamsocial_billing.logs.masking import Mask, secrets_of
from streamsocial_billing.settings import Settings

CARD = "4242424242424242"
PRINTED = "4242 4242-4242 4242"
SETTINGS = Settings(
    api_token='t0k"en\\1', stripe_api_key="stripekey123", stripe_webhook_secrets="hook-one;hook-two",
    paypal_client_id="app", paypal_client_secret="pp+secret/1", kafka_security_protocol="SASL_PLAINTEXT",
    kafka_sasl_mechanism="PLAIN", kafka_sasl_username="me", kafka_sasl_password="pässword".encode().hex(),
)  # fmt: skip
PLANTED = [
    *secrets_of(SETTINGS), CARD, PRINTED, "Bearer abc.def-123", "authorization: bearer ABCDEF",
    "sk_live_abc123456", "whsec_0123456789ab", "https://user:hunter2@proxy.example/x", "pp%2Bsecret%2F1",
    't0k\\"en\\\\1', "https://user:p@ss@proxy.example/x", '{"access_token": "A21AAxyz"}',
    "client_secret=abcd1234&", "sasl.password: hunter22", "https://hunter2token@proxy.example/x",
    "Authorization: ABCDEF-1234", "x-api-key: k3y-abcd", "4242.4242.4242.4242", "4242_4242_4242_4242",
    "4242\u00a04242\u00a04242\u00a04242",
]  # fmt: skip


def formatters() -> list[logging.Formatter]:
    """Every format that is installed."""
    if importlib.util.find_spec("pythonjsonlogger") is None:
        return [TextFormatter()]
    from streamsocial_billing.logs.json_lines import JsonFormatter

    return [TextFormatter(), JsonFormatter()]


def lines(message: object, *args: object, **fields: Any) -> list[str]:
    """The record in every format, masked."""
    found = []
    for formatter in formatters():
        made = logging.LogRecord("aiokafka.conn", logging.ERROR, "", 0, message, args, None)
        made.__dict__.update(fields)
        mask = Mask(secrets_of(SETTINGS))
        try:
            suspected = mask.suspects(formatter.format(made))
        except TypeError:  # a template that does not fit
            suspected = True
        mask.filter(made)
        found.append(formatter.format(made))
        assert suspected or "***" not in found[-1], "the quick look must see whatever is masked"
    return found


@pytest.mark.parametrize("planted", PLANTED)
def test_what_was_planted_is_in_no_line(planted: str) -> None:
    """As an argument, in the template, in a field, inside an object's repr, in a traceback."""
    try:
        raise ConnectionError(f"refused: {planted}")
    except ConnectionError as error:
        trace, repr_ = sys.exc_info(), repr(error)
    bare = planted.split("Bearer ")[-1].split("bearer ")[-1].replace("https://", "").split("@")[0]
    every = [
        *lines("said %s", planted), *lines(f"said {planted} so"), *lines("x", detail=planted),
        *lines("x", detail={"header": planted}), *lines("x %s", repr_), *lines("x", exc_info=trace),
        *lines("x", payment_id=planted, user_id=planted), *lines("x", stack_info=planted),
    ]  # fmt: skip
    forms = {bare, json.dumps(bare)[1:-1], repr(bare)[1:-1], json.dumps(json.dumps(bare)[1:-1])[1:-1]}
    assert [] == [line for line in every for form in forms if form in line]
    assert all("***" in line for line in every)


def test_what_is_no_secret_stays_readable() -> None:
    """Ids that are numbers, times in milliseconds, offsets, the masked card's last four digits."""
    text = lines("at %d: offset %d", 1_795_976_753_123, 12, payment_id="1795976753123", user_id="3" * 13)[0]
    assert "at 1795976753123: offset 12 payment_id=1795976753123 user_id=3333333333333" in text
    assert "4242" in lines("card %s", CARD)[0]
    assert "the bearer of this letter" not in lines("x")[0]


def test_a_message_that_does_not_fit_its_arguments_is_masked_too() -> None:
    """A library's mistake must not put a secret into the log, nor end it."""
    for line in lines("one %d", "stripekey123"):
        assert "stripekey123" not in line
        assert "one %d" in line


@pytest.mark.parametrize(
    "raw",
    [b"Authorization:\tBearer\tt0psecret99", b"Authorization: Bearer\x00 t0psecret99", b"Bearer: t0psecret99",
     b'{"authorization": "t0psecret99"}', b"kafka://me:t0psecret99@kafka:9092"],
)  # fmt: skip
def test_a_token_in_raw_bytes_is_in_no_line(raw: bytes) -> None:
    """As libraries quote them: a repr, in a message, in a traceback, once more escaped."""
    for said in (f"400, message: bad header {raw!r}", repr(f"{raw!r}"), raw.decode()):
        assert [] == [line for line in lines("%s", said) if "t0psecret99" in line]
