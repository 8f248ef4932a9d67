"""What is answered over HTTP, before a web server puts it into its own words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

RETRY_AFTER_S: Final = 1
JSON: Final = "application/json"
PROBLEM: Final = "application/problem+json"
"""The content type of refusals (RFC 9457)."""
PROBLEM_TYPE: Final = "urn:problem-type:streamsocial-billing:"
"""What `type` begins with; the code follows. A name, not an address: docs/http.md explains each code."""


@dataclass(frozen=True, slots=True)
class Reply:
    """Status, a JSON body, headers."""

    status: int
    body: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = JSON


def refusal(
    status: int, error: str, detail: str, headers: Mapping[str, str] | None = None, **more: Any
) -> Reply:
    """A refusal in problem details (RFC 9457), `error` with `more` as extensions.

    `error` is a code for machines, `detail` a text for people; nothing here holds a card number.
    """
    title = error.replace("_", " ").capitalize()
    body = {
        "type": PROBLEM_TYPE + error, "title": title, "status": status, "detail": detail, "error": error,
        **more,
    }  # fmt: skip
    return Reply(status, body, headers or {}, PROBLEM)


def no_access() -> Reply:
    """Neither the API token nor a request from the machine itself (`views.access`)."""
    detail = "this needs the API token, or a request from the machine itself"
    return refusal(401, "no_access", detail, {"WWW-Authenticate": "Bearer"})


def owner_unavailable(partition: int) -> Reply:
    """503: the hop to the worker that owns the user failed."""
    detail = f"the worker that owns partition {partition} cannot be reached; ask again"
    return later("owner_unavailable", detail)


def later(error: str, detail: str) -> Reply:
    """503 with the seconds after which sending the same again makes sense."""
    return refusal(503, error, detail, {"Retry-After": str(RETRY_AFTER_S)})
