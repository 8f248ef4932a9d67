"""Stands before localstripe and adds what it lacks; what happens, happens there and is in its own list.

First answer kept per idempotency key; off-session as Stripe documents it (402 `authentication_required`, the
intent inside the error, a failed charge beside it); metadata of an intent on its charges; lists with their
filters, newest first; search; the whole refusal of a cancel or of a refund that is too large.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

import orjson
from support.local_stripe import ALL, call
from support.loopback_server import Asked, LoopbackServer, Reply
from support.stripe_keys import Answer, Keys, Params
from support.stripe_lists import Row, listed, searched
from support.stripe_words import (
    NEEDS_CUSTOMER,
    NEEDS_CUSTOMER_TEXT,
    as_stripe_says,
    card_error,
    refusal,
    refused_intent,
    unexpected_state,
)

INTENTS: Final = "/v1/payment_intents"
ACCOUNT: Final = "acct_local"
KNOWN: Final = ("amount", "currency", "customer", "payment_method", "metadata", "confirm", "off_session",
                "capture_method", "payment_method_types")  # fmt: skip
"""What localstripe takes for an intent; of what else Stripe takes, stripe-mock has seen the shape."""
FAILS: Final = "pm_card_chargeCustomerFail"


class StripeProxy:
    """Between a worker and the localstripe at `upstream`; use it in a `with`.

    `gate` is called with each request ("POST /v1/payment_intents") before it is carried out. `asked` are the
    requests that came. Without `search` it refuses one, as Stripe does in India; without `keeps_keys` each
    request is a new one, as at localstripe alone.
    """

    def __init__(self, upstream: str, *, search: bool = True, keeps_keys: bool = True) -> None:
        self._upstream = upstream
        self._searches = search
        self._keeps_keys = keeps_keys
        self._refused: dict[str, str] = {}
        self.keys = Keys()
        self.asked: list[str] = []
        self.gate: Callable[[str], None] = lambda request: None

    def __enter__(self) -> StripeProxy:
        self._server = LoopbackServer(self._answer)
        self._server.__enter__()
        self.url = self._server.url
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.__exit__(kind, error, trace)

    def come_back(self, name: str, *, success: bool) -> Answer:
        """The customer of an intent is back, and proves who they are, or fails to."""
        if name in self._refused:
            self._change(name, "confirm", [])
        secret = str(self._one("payment_intents", name)["client_secret"])
        said = [("client_secret", secret), ("success", str(success).lower())]
        return self._change(name, "_authenticate", said)

    def _answer(self, asked: Asked) -> Reply:
        path, _, query = asked.path.partition("?")
        self.asked.append(f"{'GET' if asked.body is None else 'POST'} {path}")
        if asked.body is None:
            status, said = self._read(path, dict(parse_qsl(query)))
            return status, orjson.dumps(said)
        params, key = parse_qsl(asked.body.decode()), asked.headers.get("Idempotency-Key")
        if key is None or not self._keeps_keys:
            status, said = self._act(path, params)
            return status, orjson.dumps(said)
        (status, said), again = self.keys.once(key, path, params, lambda: self._act(path, params))
        return status, orjson.dumps(said), {"Idempotent-Replayed": "true"} if again else {}

    def _act(self, path: str, params: Params) -> Answer:
        """A POST; each is carried out once under its key."""
        self.gate(f"POST {path}")
        if path == INTENTS:
            return self._create(params)
        if path == "/v1/refunds":
            return self._refund(params)
        if path.startswith(INTENTS + "/"):
            name, _, action = path.removeprefix(INTENTS + "/").partition("/")
            return self._change(name, action, params)
        return as_stripe_says(*call(self._upstream + path, params), made=True)

    def _create(self, params: Params) -> Answer:
        kept = [(name, value) for name, value in params if name.partition("[")[0] in KNOWN]
        status, said = call(self._upstream + INTENTS, kept)
        if status == 402:
            return self._declined(said)
        if status != 200:
            return as_stripe_says(status, said, made=True)
        self._words_on_charge(said)
        asked = dict(params)
        if said["status"] == "requires_action" and asked.get("off_session") == "true":
            return self._needs_customer(said)
        return 200, self._intent(said, expand=_expanded(params))

    def _declined(self, said: Row) -> Answer:
        error = said["error"]
        charge = self._one("charges", error["charge"])
        intent = self._one("payment_intents", charge["payment_intent"])
        self._words_on_charge(intent)
        return card_error(
            error["code"], "generic_decline", error["message"], charge["id"], self._intent(intent)
        )

    def _needs_customer(self, intent: Row) -> Answer:
        """The bank refused this try, so there is a charge of it, which failed."""
        params = [(name, str(intent[name])) for name in ("amount", "currency", "customer") if intent[name]]
        _, said = call(f"{self._upstream}/v1/charges", [*params, ("source", FAILS)])
        charge = str(said["error"]["charge"])
        words = {"payment_intent": intent["id"], "failure_code": NEEDS_CUSTOMER,
                 "failure_message": NEEDS_CUSTOMER_TEXT}  # fmt: skip
        call(f"{self._upstream}/v1/charges/{charge}", [*words.items(), *_form(intent["metadata"])])
        self._refused[intent["id"]] = charge
        return card_error(NEEDS_CUSTOMER, NEEDS_CUSTOMER, NEEDS_CUSTOMER_TEXT, charge, self._intent(intent))

    def _change(self, name: str, action: str, params: Params) -> Answer:
        if action == "confirm" and name in self._refused:
            del self._refused[name]  # on session now: localstripe has it waiting for its customer
            return 200, self._intent(self._one("payment_intents", name))
        passed = params if action == "_authenticate" else []
        status, said = call(f"{self._upstream}{INTENTS}/{name}/{action}", passed)
        if status == 402:
            return self._declined(said)
        if status == 400 and action == "cancel":
            return unexpected_state(self._intent(self._one("payment_intents", name)))
        if status != 200:
            return as_stripe_says(status, said, made=False)
        self._words_on_charge(said)
        if action == "cancel":
            reason = dict(params).get("cancellation_reason")
            return 200, {**self._intent(said), "cancellation_reason": reason}
        return 200, self._intent(said)

    def _refund(self, params: Params) -> Answer:
        asked = dict(params)
        charge = self._refunded(asked)
        if charge is None:
            return refusal("resource_missing", "No such charge.")
        left = charge["amount"] - charge["amount_refunded"]
        if left == 0:
            return refusal("charge_already_refunded", f"Charge {charge['id']} has already been refunded.")
        if int(asked.get("amount", left)) > left:
            return refusal(None, f"Refund amount is greater than unrefunded amount on charge ({left}).")
        kept = [(name, value) for name, value in params if name.partition("[")[0] not in ("reason", "expand")]
        status, said = call(f"{self._upstream}/v1/refunds", kept)
        if status != 200:
            return as_stripe_says(status, said, made=True)
        return 200, {**said, "payment_intent": charge["payment_intent"]}

    def _refunded(self, asked: dict[str, str]) -> Row | None:
        charges = self._all("charges")
        return next((row for row in charges if row["status"] == "succeeded" and (
            row["id"] == asked.get("charge") or row["payment_intent"] == asked.get("payment_intent", "")
        )), None)  # fmt: skip

    def _read(self, path: str, query: dict[str, str]) -> Answer:
        self.gate(f"GET {path}")
        if path == "/v1/account":
            return 200, {"id": ACCOUNT, "object": "account"}
        _, kind, *names = path.removeprefix("/").split("/")
        if kind == "disputes":
            return 200, listed([], query, path)
        if kind not in ("charges", "payment_intents", "refunds"):
            return as_stripe_says(*call(f"{self._upstream}{path}"), made=False)
        if names == ["search"]:
            if not self._searches:
                return refusal(None, "Search is not available in your region.")
            return 200, searched(self._all(kind), query["query"], path)
        if not names:
            return 200, listed(self._all(kind), query, path)
        row = next((one for one in self._all(kind) if one["id"] == names[0]), None)
        if row is None:
            return refusal("resource_missing", f"No such object: '{names[0]}'.", 404)
        wants_charge = any(value == "latest_charge" for value in query.values())
        return 200, self._intent(self._one(kind, names[0]), expand=True) if wants_charge else row

    def _all(self, kind: str) -> list[Row]:
        status, said = call(f"{self._upstream}/v1/{kind}?limit={ALL}")
        assert status == 200, said
        rows: list[Row] = said["data"]
        if kind == "refunds":
            intents = {row["id"]: row["payment_intent"] for row in self._all("charges")}
            return [{**row, "payment_intent": intents.get(row["charge"])} for row in rows]
        return [self._intent(row) for row in rows] if kind == "payment_intents" else rows

    def _one(self, kind: str, name: str) -> Row:
        status, said = call(f"{self._upstream}/v1/{kind}/{name}")
        assert status == 200, said
        return said

    def _intent(self, raw: Row, *, expand: bool = False) -> Row:
        """As Stripe shows it: the charge by its id, unless it was asked for whole."""
        charge = self._refused.get(raw["id"])
        if charge is not None and raw["status"] in ("requires_action", "canceled"):
            shown = refused_intent(raw, charge) | ({} if raw["status"] != "canceled" else {
                "status": "canceled"})  # fmt: skip
        else:
            shown = {**raw, "latest_charge": raw["latest_charge"] and raw["latest_charge"]["id"]}
        if expand and shown["latest_charge"]:
            shown["latest_charge"] = self._one("charges", shown["latest_charge"])
        return {name: value for name, value in shown.items() if name != "charges"}

    def _words_on_charge(self, intent: Row) -> None:
        """Stripe copies an intent's metadata to each charge that it makes; localstripe does not."""
        charge: Any = intent["latest_charge"]
        if charge and intent["metadata"] and not charge["metadata"]:
            call(f"{self._upstream}/v1/charges/{charge['id']}", _form(intent["metadata"]))


def _form(metadata: dict[str, str]) -> Params:
    return [(f"metadata[{name}]", value) for name, value in metadata.items()]


def _expanded(params: Params) -> bool:
    return any(name.startswith("expand") and value == "latest_charge" for name, value in params)


def host_of(url: str) -> str:
    """host:port, for what stands between."""
    return urlsplit(url).netloc
