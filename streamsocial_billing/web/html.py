"""Renders the pages for people, and decides who gets one instead of JSON."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from functools import cache, partial
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

import orjson
from aiohttp.web import Response
from markupsafe import Markup, escape

from streamsocial_billing.domain.english import counted, lasting, listed
from streamsocial_billing.domain.money import MINUS, shown_amount
from streamsocial_billing.domain.times import iso_to_the_second
from streamsocial_billing.intake.http_replies import JSON, PROBLEM

if TYPE_CHECKING:
    from jinja2 import Environment

HTML: Final = "text/html"
_TEMPLATES: Final = files("streamsocial_billing.web").joinpath("templates")


def page(
    template: str, status: int = 200, headers: Mapping[str, str] | None = None, **values: Any
) -> Response:
    """A page from a template of `templates/`; everything in it is escaped."""
    text = environment().get_template(template).render(values)
    given = dict(headers or {}) | {"Content-Security-Policy": policy(), "Vary": "Accept"}
    return Response(status=status, text=text, content_type=HTML, charset="utf-8", headers=given)


def for_people(request: Any, answer: Response, template: str, **values: Any) -> Response:
    """The JSON answer as a page, if a person's browser asks; else as it is.

    The template gets the answer's body as `body`. A refusal becomes a page too, with the same status. What
    the owner answered before the rolling upgrade reached it lacks fields of a page: it stays JSON.
    """
    answer.headers["Vary"] = "Accept"
    if answer.content_type not in (JSON, PROBLEM) or not prefers_html(request):
        return answer
    body = orjson.loads(answer.body) if isinstance(answer.body, bytes) else {}
    kept = {name: value for name, value in answer.headers.items() if not name.startswith("Content-")}
    chosen = template if answer.status < 400 else "refusal.html"
    from jinja2 import UndefinedError

    try:
        return page(chosen, answer.status, kept, body=body, path=request.path, **values)
    except UndefinedError:
        return answer


def prefers_html(request: Any) -> bool:
    """True if the header Accept wants HTML rather than JSON (RFC 9110, 12.5.1); `*/*` or none: JSON."""
    wanted = accepted(request.headers.get("Accept", ""))
    html = max(wanted.get(HTML, 0.0), wanted.get("application/xhtml+xml", 0.0))
    return html > wanted.get(JSON, 0.0) and html >= wanted.get("*/*", 0.0)


def accepted(header: str) -> dict[str, float]:
    """The media types of an Accept header with their weights, 0 to 1; nonsense counts as not there."""
    found: dict[str, float] = {}
    for part in header.split(","):
        name, *parameters = (word.strip() for word in part.split(";"))
        weights = [word[2:] for word in parameters if word[:2] in ("q=", "Q=")]
        try:
            weight = float(weights[0]) if weights else 1.0
        except ValueError:
            continue
        if name and 0.0 <= weight <= 1.0:
            found[name.lower()] = weight
    return found


@cache
def environment() -> Environment:
    """Where templates come from, with what they may call. The first page loads Jinja, no command does."""
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    made = Environment(
        loader=PackageLoader("streamsocial_billing.web"), autoescape=select_autoescape(default=True),
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    made.filters |= {
        "iso": moment, "money": partial(shown_amount, minus=MINUS), "counted": counted, "lasting": lasting,
        "listed": listed, "words": words, "code": code,
    }  # fmt: skip
    return made


def moment(at_ms: int) -> Markup:
    """Ms since the epoch as an ISO 8601 time in UTC, to the second."""
    return Markup('<time datetime="{0}">{0}</time>').format(iso_to_the_second(at_ms))


def code(text: str) -> Markup:
    """A sentence with what stands in backquotes as code."""
    parts = text.split("`")
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if number % 2 else escape(part)
        for number, part in enumerate(parts)
    )


def script() -> Markup:
    """The script of the dashboard, as it is hashed in `policy`."""
    return Markup(_TEMPLATES.joinpath("refresh.js").read_text(encoding="utf-8"))  # noqa: S704 - a file of ours


def words(name: str) -> str:
    """A field's name as a label: `gateway_ref` is `gateway ref`."""
    return name.replace("_", " ")


@cache
def policy() -> str:
    """Nothing is loaded from elsewhere; the only script is our own, by its hash (CSP level 2)."""
    script = _TEMPLATES.joinpath("refresh.js").read_bytes()
    digest = base64.b64encode(hashlib.sha256(script).digest()).decode()
    return (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
