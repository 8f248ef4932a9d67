"""What the command line says to what cannot be meant."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(sys.executable).parent / "streamsocial-billing"
RESOLVE = ("resolve", "alice/p-1", "--status", "failed", "--reason", "x")
ADD = (
    "subscriptions", "add", "alice", "sub-1", "--amount-minor", "5", "--currency", "EUR",
    "--payment-method", "pm_card_visa",
)  # fmt: skip


def said(folder: Path, *arguments: str, **settings: str) -> tuple[int, str, str]:
    """Exit code, stdout, stderr. No broker listens: what is not refused for its words ends with 1."""
    environment = {**os.environ, "BILLING_BROKER": "kafka://127.0.0.1:1", **settings}
    done = subprocess.run(
        [str(SCRIPT), *arguments], cwd=folder, env=environment, capture_output=True, text=True,
        stdin=subprocess.DEVNULL, check=False, timeout=150,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("nosuch",), "No such command 'nosuch'"),
        (("submit", "nosuch.json"), "'nosuch.json': No such file or directory"),
        (("submit", "--gateway", "nosuch"), "'nosuch' is not one of 'paypal', 'simulated', 'stripe'"),
        (("audit", "--wait", "-1"), "-1.0 is not allowed: give 0 or more"),
        (("gateways", "stop", "simulated"), "Missing option '--reason'"),
        (("gateways", "stop", "simulated", "--reason", " "), "a text of 1 to 500 characters"),
        (("gateways", "stop", "simulated", "--reason", "x" * 501), "a text of 1 to 500 characters"),
        (("gateways", "stop", "simulated", "--reason", "x", "--actor", ""), "a text of 1 to 500 characters"),
        (("gateways", "stop", "simulated", "--reason", "x", "--wait", "-1"), "give 0 or more"),
        ((*RESOLVE[:1], "alice", *RESOLVE[2:]), "USER/PAYMENT"),
        ((*RESOLVE[:1], "al ice/p-1", *RESOLVE[2:]), "USER/PAYMENT"),
        ((*RESOLVE[:1], "alice/p/1", *RESOLVE[2:]), "USER/PAYMENT"),
        ((*ADD, "--reason", ""), "a text of 1 to 500 characters"),
        ((*ADD, "--reason", "x", "--gateway", "nosuch"), "'nosuch' is not one of"),
        (("subscriptions", "list", "al ice"), "a user_id is 1-64 of"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_one_line_that_names_it(
    arguments: tuple[str, ...], text: str, tmp_path: Path
) -> None:
    """Exit code 2, nothing on stdout, the way to the help; Kafka is not asked."""
    code, out, err = said(tmp_path, *arguments)
    assert (2, "", 1) == (code, out, err.count("\n"))
    assert err.startswith("streamsocial-billing: ")
    assert text in err
    assert err.endswith(" --help)\n")


NAMES = ("SUDO_USER", "LOGNAME", "USER", "LNAME", "USERNAME")


# everything is imported first: the nameless user may have no access to this checkout
NAMELESS = (
    "import os; from streamsocial_billing.cli import main as cli; app = cli.the_app(); "
    "app.finalize(); app.worker_init();"
    "app.worker_init_post_autodiscover(); os.setuid(54_321); cli.main()"
)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user without a name")
@pytest.mark.parametrize(
    "command",
    [
        RESOLVE, (*ADD, "--reason", "x"), ("dlq", "replay", "0-0"),
        ("gateways", "stop", "simulated", "--reason", "x"),
    ],
)  # fmt: skip
def test_an_order_without_an_actor_is_refused(command: tuple[str, ...], tmp_path: Path) -> None:
    """A user without a login name, as in many containers: one line that names --actor, never "unknown"."""
    environment = {name: text for name, text in os.environ.items() if name not in NAMES}
    done = subprocess.run(
        [sys.executable, "-c", NAMELESS, *command], cwd=tmp_path, capture_output=True, text=True,
        env=environment | {"BILLING_BROKER": "kafka://127.0.0.1:1"}, check=False, timeout=150,
    )  # fmt: skip
    assert (2, "", 1) == (done.returncode, done.stdout, done.stderr.count("\n"))
    assert "give --actor NAME" in done.stderr


def test_an_order_names_its_missing_broker_whoever_gives_it(tmp_path: Path) -> None:
    """The login is who orders it, also where no variable names it."""
    code, out, err = said(tmp_path, *RESOLVE, **dict.fromkeys(NAMES, ""))
    assert (1, "", 1) == (code, out, err.count("\n"))
    assert "Kafka at 127.0.0.1:1 does not answer" in err
    assert "BILLING_BROKER" in err


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """Its name and why, without the words of the operating system's tables."""
    gateway = {"BILLING_GATEWAY_URL": "http://127.0.0.1:1"}
    code, _, err = said(tmp_path, "reconcile", "--output", "/proc/nosuch", **gateway)
    assert (2, "streamsocial-billing: /proc/nosuch: No such file or directory\n") == (code, err)


def test_each_agent_says_what_it_does(tmp_path: Path) -> None:
    """`agents` has no row without help."""
    code, out, _ = said(tmp_path, "--json", "agents")
    assert 0 == code
    assert 4 == out.count("@streamsocial_billing.app.")
    assert "<N/A>" not in out
