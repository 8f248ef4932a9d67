"""docs/openapi.yaml says what the pages do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import pytest
import yaml

from processes import ROOT
from streamsocial_billing.app import create_app
from streamsocial_billing.domain.events import PRODUCTS, PaymentEvent
from streamsocial_billing.intake.http_replies import refusal
from streamsocial_billing.intake.public_fields import PAYMENT_FIELDS
from streamsocial_billing.settings import Settings

SPEC: Final[dict[str, Any]] = yaml.safe_load((ROOT / "docs/openapi.yaml").read_text(encoding="utf-8"))
HTTP: Final = (ROOT / "docs/http.md").read_text(encoding="utf-8")
NOT_FOR_INTEGRATORS: Final = {("/", "get"), ("/users", "get"), ("/internal/known-payment", "post")}


def parts(value: Any) -> Iterator[dict[str, Any]]:
    """Every object in the description."""
    if isinstance(value, dict):
        yield value
        for one in value.values():
            yield from parts(one)
    elif isinstance(value, list):
        for one in value:
            yield from parts(one)


def test_every_page_is_described_and_nothing_else() -> None:
    """Paths with their methods, as the worker declares them."""
    routes = create_app(Settings(), {}).web.web_app.router.routes()  # type: ignore[attr-defined]
    pages = {(one.resource.canonical, one.method.lower()) for one in routes if one.method != "HEAD"}
    described = {(path, method) for path, item in SPEC["paths"].items() for method in item}
    assert pages - NOT_FOR_INTEGRATORS == described


def test_every_reference_leads_somewhere() -> None:
    """Within the file."""
    for one in parts(SPEC):
        if "$ref" in one:
            found: Any = SPEC
            for name in one["$ref"].removeprefix("#/").split("/"):
                found = found[name]


def test_a_payment_is_described_with_its_fields() -> None:
    """Those that every answer has; what is sent is what an event takes."""
    schemas = SPEC["components"]["schemas"]
    payment = schemas["Payment"]
    assert set(PAYMENT_FIELDS) == set(payment["required"])
    assert set(PAYMENT_FIELDS) == {name for name in payment["properties"] if not name.endswith("_iso")}
    assert set(PaymentEvent.__struct_fields__) == set(schemas["NewPayment"]["properties"])
    assert PRODUCTS == set(schemas["NewPayment"]["properties"]["product"]["enum"])


def test_a_refusal_is_described_with_its_fields() -> None:
    """The required ones are those of all refusals."""
    assert set(refusal(400, "x", "y").body) == set(SPEC["components"]["schemas"]["Problem"]["required"])


@pytest.mark.parametrize(
    ("path", "above"), [("/payments", set()), ("/webhooks/{gateway}", {"404"})]
)  # fmt: skip
def test_the_statuses_are_those_of_the_page_about_http(path: str, above: set[str]) -> None:
    """Row by row; `above` stands in the text before the table."""
    section = HTTP.split(f"## POST {path}\n")[1].split("\n## ")[0]
    documented = set(re.findall(r"^\| (\d{3})", section, re.MULTILINE))
    assert documented | above == set(SPEC["paths"][path]["post"]["responses"])
