"""What a user does first with a running system: the README and `make up` show the same lines."""

from __future__ import annotations

from typing import Final

PAYMENT: Final = (
    '{"payment_id":"demo-1","user_id":"alice","product":"gift",'
    '"amount_minor":999,"currency":"USD","payment_method":"pm_card_visa"}'
)
PATH: Final = "export PATH=$PWD/.venv/bin:$PATH"


def recipe(client: str = "data/up/client") -> list[str]:
    """The lines, to be typed in the checkout after PATH and the exports that `make up` prints.

    `client` is the data folder of `submit`.
    """
    submit = f"echo '{PAYMENT}' | streamsocial-billing --datadir={client} submit -"
    return [
        submit,
        submit,  # the second one is a replay
        "streamsocial-billing results",
        "streamsocial-billing audit",
        "streamsocial-billing reconcile",
    ]
