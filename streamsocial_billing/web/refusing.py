"""Refusals that no page of ours makes: a path that is not there, a method, a body, an error of ours."""

import logging

from aiohttp.typedefs import Handler
from aiohttp.web import HTTPException, HTTPMethodNotAllowed, Request, StreamResponse, middleware

from streamsocial_billing.intake.http_replies import Reply, refusal
from streamsocial_billing.web.html import for_people
from streamsocial_billing.web.responding import respond

logger = logging.getLogger(__name__)


@middleware
async def in_our_words(request: Request, handler: Handler) -> StreamResponse:
    """Answer as the handler does, refusals of aiohttp and unexpected errors as problem details."""
    try:
        return await handler(request)
    except HTTPException as error:
        if error.status < 400:
            raise
        return for_people(request, respond(_of_aiohttp(error)), "refusal.html")
    except Exception:
        logger.exception("%s %s: internal error", request.method, _page(request))
        failed = refusal(500, "internal_error", "an error of ours; this worker's log says more")
        return for_people(request, respond(failed), "refusal.html")


def _of_aiohttp(error: HTTPException) -> Reply:
    if isinstance(error, HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        return refusal(405, "method_not_allowed", f"this page accepts {allowed}", {"Allow": allowed})
    if error.status == 404:
        return refusal(404, "no_such_page", "there is no page at this path")
    if error.status == 413:
        return refusal(413, "too_large", "the body is too large")
    return refusal(error.status, error.reason.lower().replace(" ", "_"), error.reason)


def _page(request: Request) -> str:
    """The page by its pattern: a path may hold a user's id."""
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else "?"
