"""The answers that every route gives."""

from __future__ import annotations

from aiohttp import web

from streamsocial_billing.gateways.simulator.shapes import BadRequest, error_body

JSON = {"Content-Type": "application/json"}
PAGE = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
}
"""Of what people look at: nothing is loaded, and no other page frames it."""
JSON_REPLAYED = {**JSON, "Idempotent-Replayed": "true"}
BUSY = error_body("idempotency_key_in_use", "The first request with this key is under way.", "api_error")
RATE_LIMITED = error_body("rate_limit", "Too many requests.", "rate_limit_error")
GONE = error_body("request_cut", "The request did not arrive whole.", "invalid_request_error")
BROKEN = error_body("api_error", "Something went wrong here; nothing was charged.", "api_error")


def json_answer(body: bytes, status: int = 200, headers: dict[str, str] = JSON) -> web.Response:
    """JSON that was written already."""
    return web.Response(body=body, status=status, headers=headers)


def refusal_of(error: BadRequest) -> web.Response:
    """What a request that is not right is told."""
    return json_answer(error.body, error.status)
