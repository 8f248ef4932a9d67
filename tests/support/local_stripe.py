"""Starts localstripe (PyPI, GPL) on loopback: a Stripe with intents, customers who authenticate, webhooks.

It is another program, in a folder of its own: nothing of ours imports it. Its own command would listen on
every interface and keep what it knows in /tmp.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any, Final
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import ProxyHandler, Request, build_opener

from support.alone_in import alone_in
from support.announced_server import AnnouncedServer
from support.stripe_server import INSTALL_WITHIN_S

from processes import ROOT

VERSION: Final = "1.15.10"
CACHE: Final = ROOT / ".servers" / f"localstripe-{VERSION}"
SCRIPT: Final = """
import socket, sys
sys.path.insert(0, sys.argv[1])
from aiohttp import web
from localstripe import resources, server
resources.Store.dump_to_disk = lambda self: None
listening = socket.create_server(("127.0.0.1", 0))
print("port", listening.getsockname()[1], flush=True)
web.run_app(server.app, sock=listening, print=None, access_log=None)
"""
KEY: Final = "sk_test_local"
GOOD: Final = "4242424242424242"
ASKS: Final = "4000002500003155"
"""A card whose bank wants to see its customer first."""
ASKS_THEN_DECLINES: Final = "4000008260003178"
DECLINES: Final = "4000000000000341"
REFUSED: Final = "DE62370400440532013001"
"""An account (IBAN) whose bank refuses a debit, half a second later; any other has paid at once."""
ALL: Final = "1000000"


def install() -> Path:
    """The folder with the package, filled once; what it needs is here already (aiohttp, python-dateutil)."""
    done = CACHE / "installed"
    with alone_in(CACHE):
        if not done.exists():
            command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            subprocess.run(
                [*command, "--no-deps", "--upgrade", "--target", str(CACHE), f"localstripe=={VERSION}"],
                check=True, capture_output=True, timeout=INSTALL_WITHIN_S,
            )  # fmt: skip
            done.touch()
    return CACHE


def call(
    url: str, params: list[tuple[str, str]] | None = None, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, Any]]:
    """One request with a form, or a GET where `params` is None: status and body."""
    data = None if params is None else urlencode(params).encode()
    request = Request(url, data, {"Authorization": f"Bearer {KEY}", **(headers or {})})  # noqa: S310 - loopback
    try:
        with build_opener(ProxyHandler({})).open(request, timeout=120) as reply:
            return reply.status, json.loads(reply.read())
    except HTTPError as error:
        return error.code, json.loads(error.read())


class LocalStripe(AnnouncedServer):
    """One server in memory; use it in a `with`. What it lists is what happened."""

    name = "localstripe"

    def command(self) -> list[str]:
        """Its own Python."""
        return [sys.executable, "-c", SCRIPT, str(install())]

    def saved(self, number: str = GOOD) -> str:
        """A new customer with a saved card of this number, as a payment's `payment_method`."""
        card = {"number": number, "exp_month": "12", "exp_year": "2039", "cvc": "123"}
        params = [("type", "card"), *((f"card[{name}]", value) for name, value in card.items())]
        method = self._made("/v1/payment_methods", params)
        customer = self._made("/v1/customers", [("payment_method", method["id"])])
        return f"{customer['id']}/{method['id']}"

    def debited(self, iban: str) -> str:
        """A new customer with an account to debit."""
        method = self._made("/v1/payment_methods", [("type", "sepa_debit"), ("sepa_debit[iban]", iban)])
        customer = self._made("/v1/customers", [("payment_method", method["id"])])
        return f"{customer['id']}/{method['id']}"

    def tell(self, url: str, secret: str) -> None:
        """Send every webhook there from now on, signed with this secret."""
        body = json.dumps({"url": url, "secret": secret}).encode()
        request = Request(f"{self.url}/_config/webhooks/worker", body)  # noqa: S310 - loopback
        build_opener(ProxyHandler({})).open(request, timeout=60).close()

    def authenticate(self, intent: str, *, success: bool) -> tuple[int, dict[str, Any]]:
        """The customer is back: proves who they are, or fails to."""
        secret = self.rows("payment_intents")[intent]["client_secret"]
        params = [("client_secret", secret), ("success", str(success).lower())]
        return call(f"{self.url}/v1/payment_intents/{intent}/_authenticate", params)

    def rows(self, kind: str) -> dict[str, dict[str, Any]]:
        """Its own list of `charges`, `refunds` or `payment_intents`, by their ids."""
        status, said = call(f"{self.url}/v1/{kind}?limit={ALL}")
        assert status == 200, said
        return {row["id"]: row for row in said["data"]}

    def charged(self) -> Counter[str]:
        """How often each payment is in its list of charges that succeeded, by the words on its intents."""
        intents = self.rows("payment_intents")
        return Counter(
            str(intents[row["payment_intent"]]["metadata"].get("payment_id"))
            for row in self.rows("charges").values()
            if row["status"] == "succeeded" and row["captured"]
        )

    def _made(self, path: str, params: list[tuple[str, str]]) -> dict[str, Any]:
        status, said = call(self.url + path, params)
        assert status == 200, said
        return said
