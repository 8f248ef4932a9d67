"""Plain HTTP to a worker on loopback: no proxy, no redirect, errors are answers too."""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass
from typing import Any

ANSWERS_WITHIN_S = 30.0
"""Far above what any answer of a worker takes, on a busy machine too."""


@dataclass(frozen=True)
class Answer:
    """Status, headers, body of an answer."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


def get(port: int, path: str, host: str = "127.0.0.1", **headers: str) -> Answer:
    """GET a path; underscores in header names become dashes."""
    connection = http.client.HTTPConnection(host, port, timeout=ANSWERS_WITHIN_S)
    try:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request("GET", path, headers=given)
        answer = connection.getresponse()
        return Answer(answer.status, answer.headers, answer.read())
    finally:
        connection.close()


def post(port: int, path: str, body: bytes, host: str = "127.0.0.1", **headers: str) -> Answer:
    """POST bytes to a path; underscores in header names become dashes."""
    connection = http.client.HTTPConnection(host, port, timeout=ANSWERS_WITHIN_S)
    try:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request("POST", path, body, given)
        answer = connection.getresponse()
        return Answer(answer.status, answer.headers, answer.read())
    finally:
        connection.close()
