"""Every command that Faust brings: useful output, or one line on stderr with an exit code; no traceback.

No broker listens, so none of them can do harm; `worker` has tests of its own with one.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import faust.cli.faust
import pytest
from support.many_commands import run_many

from faust_exactly_once.worker_folder import folder_of_its_own
from streamsocial_billing import __version__
from streamsocial_billing.cli.inherited import REFUSED

BIN = Path(sys.executable).parent
OURS = (str(BIN / "streamsocial-billing"),)
FAUST = (str(BIN / "faust"), "-A", "streamsocial_billing")
INHERITED = {
    "agents", "clean-versions", "completion", "livecheck", "model", "models", "reset", "send", "tables",
    "worker",
}  # fmt: skip
ARGUMENTS: list[tuple[str, ...]] = [
    (), ("--help",), ("--nosuch",), ("nosuch",), ("nosuch", "more", "of", "it"), ("-x", "1"),
]  # fmt: skip
GOOD: list[tuple[str, ...]] = [
    ("--json", "agents"), ("--json", "tables"), ("agents", "--local"), ("completion", "bash"),
    ("completion", "zsh"), ("completion", "fish"), ("models", "--builtins"),
    ("model", "faust.agents.models.ReqRepRequest"), ("send", "payments", '{"payment_id":"p"}'),
    ("send", "@streamsocial_billing.app.bill", "x", "--key", "k"), ("send", "-K", "a", "b", "c"),
    ("reset", "--yes"), ("-D", "w9", "reset"), ("worker", "-l", "nosuch"), ("worker", "--web-port", "0"),
    ("worker", "--web-bind", "nosuch.invalid"), ("worker", "-p", "x"),
    ("worker", "--logfile", "/nosuch/log"),
    ("--debug", "tables"), ("--quiet", "tables"), ("--datadir", "/proc/nosuch", "agents"),
    ("--workdir", "/nosuch", "agents"),
    ("--loop",), ("--workdir",), ("--datadir",), ("nosuch",), (),
]  # fmt: skip
LOG_LINE = re.compile(r"\[?\d{4}-\d\d-\d\d[T ]")
OUR_APP: list[tuple[str, ...]] = [
    ("-A", "nosuch", "agents"), ("--app", "nosuch.app", "tables"), ("-A", "os", "agents"), ("-A",),
]  # fmt: skip


def environment(**more: str) -> dict[str, str]:
    """No setting but a broker that is not there, and these."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("BILLING_", "F_", "FAUST_"))}
    return kept | {"BILLING_BROKER": "kafka://127.0.0.1:1", "SHELL": "/bin/bash"} | more


def said(
    folder: Path, *command: str, stdin: str | None = None, **more: str
) -> subprocess.CompletedProcess[str]:
    """What a command says; without `stdin` nobody is there to answer it."""
    return subprocess.run(
        command, cwd=folder, env=environment(**more), capture_output=True, text=True, check=False,
        timeout=150, input=stdin or "",
    )  # fmt: skip


def assert_fine(code: int, out: str, err: str) -> None:
    """Output and 0, or one line that says why not and a code that is not 0."""
    assert "Traceback" not in out + err
    if code:
        lines = [line for line in err.splitlines() if not LOG_LINE.match(line)]
        assert code in (1, 2)
        assert 1 == len(lines) or lines[0].startswith("Usage: "), err  # a group without a command


def test_the_list_of_inherited_commands_is_whole() -> None:
    """A command that a newer Faust brings has to be looked at."""
    named = {one.replace("_", "-") for one in faust.cli.faust.__all__}
    assert INHERITED == named - {"call-command", "cli"}


@pytest.mark.parametrize("command", [*sorted(INHERITED), "good uses", "an app of another's"])
def test_no_inherited_command_ends_in_a_traceback(command: str, tmp_path: Path) -> None:
    """Each without arguments, with wrong ones, with good ones, with options before it."""
    commands = {"good uses": GOOD, "an app of another's": OUR_APP}.get(
        command, [(command, *more) for more in ARGUMENTS]
    )
    for words, said_of_it in zip(commands, run_many(commands, tmp_path, environment()), strict=True):
        try:
            assert_fine(*said_of_it)
        except AssertionError as error:
            raise AssertionError(f"{words}: {said_of_it}") from error


@pytest.mark.parametrize("loop", ["nosuch", "eventlet"])
def test_an_event_loop_that_is_not_installed_is_one_line(loop: str, tmp_path: Path) -> None:
    """Faust imports it before anything else."""
    done = said(tmp_path, *OURS, "--loop", loop, "agents")
    assert_fine(done.returncode, done.stdout, done.stderr)
    assert 2 == done.returncode


@pytest.mark.parametrize("command", ["agents", "completion", "model", "reset", "send"])
def test_faust_s_own_command_line_does_the_same(command: str, tmp_path: Path) -> None:
    """`faust -A streamsocial_billing` is promised to be no other."""
    ours, fausts = said(tmp_path, *OURS, command), said(tmp_path, *FAUST, command)
    assert "Traceback" not in fausts.stderr
    assert (ours.returncode, ours.stderr) == (fausts.returncode, fausts.stderr)
    assert command == "agents" or ours.stdout == fausts.stdout  # it shortens names by the module of -A


def test_what_makes_no_sense_here_says_what_to_use_instead(tmp_path: Path) -> None:
    """One line whatever the arguments are, exit code 2, not listed by --help; `send` names `submit`."""
    commands = [
        (name, *more) for name in sorted(REFUSED)
        for more in ((), ("--help",), ("payments", "{}", "--key=alice"))
    ]  # fmt: skip
    *refused, (_, listed, _) = run_many([*commands, ("--help",)], tmp_path, environment())
    for (name, *_), (code, out, err) in zip(commands, refused, strict=True):
        assert (2, "", 1) == (code, out, len(err.splitlines()))
        assert err.startswith(f"streamsocial-billing: {name} is refused: ")
        assert name != "send" or "use submit" in err
    rows = listed.split("Commands:")[1].splitlines()
    assert not REFUSED.keys() & {row.split()[0] for row in rows if row.strip()}


def test_a_completion_script_completes_our_commands(tmp_path: Path) -> None:
    """The script is bash's own, and what it calls answers."""
    script = said(tmp_path, *OURS, "completion", "bash")
    assert 0 == said(tmp_path, "bash", "-n", stdin=script.stdout).returncode
    (variable,) = set(re.findall(r"_STREAMSOCIAL_BILLING_COMPLETE", script.stdout))
    words = {"COMP_WORDS": "streamsocial-billing sub", "COMP_CWORD": "1"}
    done = said(tmp_path, *OURS, **{variable: "bash_complete"}, **words)
    assert {"plain,submit", "plain,subscriptions"} == set(done.stdout.split())


def test_the_version_is_the_product_s(tmp_path: Path) -> None:
    """It said "Faust 0.15.3" alone."""
    done = said(tmp_path, *OURS, "--version")
    assert 0 == done.returncode
    assert done.stdout.startswith(f"streamsocial-billing {__version__} (Faust ")


def test_the_help_of_the_worker_tells_the_truth_about_its_web_server(tmp_path: Path) -> None:
    """Loopback, not 0.0.0.0: who believes the contrary does not open it, or does not know that it is open."""
    text = " ".join(said(tmp_path, *OURS, "worker", "--help").stdout.split())
    assert re.search(r"--web-bind TEXT [^-]*127\.0\.0\.1", text)
    assert re.search(r"--web-host TEXT [^-]*127\.0\.0\.1", text)
    assert "default: 0.0.0.0" not in text


# ---- reset


def tables_in(folder: Path) -> list[Path]:
    """Make two databases of tables, one folder that is none of ours; returns the former."""
    tables = folder / "v1" / "tables"
    ours = [tables / "payments-0.db", tables / "charges-11.db"]
    for path in (*ours, tables / "others-0.db"):
        path.mkdir(parents=True)
        (path / "CURRENT").touch()
    (folder / "intake.json").touch()
    return ours


@pytest.mark.parametrize("answer", ["", "n\n", "\n", "what?\nn\n"])
def test_reset_deletes_nothing_unless_somebody_says_yes(answer: str, tmp_path: Path) -> None:
    """It deleted without asking. It names folder and tables; without an answer exit code 1."""
    ours = tables_in(tmp_path / "w1")
    done = said(tmp_path, *OURS, "--datadir=w1", "reset", stdin=answer)
    assert_fine(done.returncode, done.stdout, done.stderr)
    assert 1 == done.returncode
    assert "nothing was deleted" in done.stderr
    assert all(text in done.stdout for text in ("w1/v1/tables", "payments: 1 partition", "charges: 1 p"))
    assert all(path.exists() for path in ours)


@pytest.mark.parametrize(("answer", "options"), [("y\n", ()), ("", ("--yes",))])
@pytest.mark.parametrize("named", ["--datadir=w1", "-Dw1"])
def test_reset_deletes_tables_and_nothing_else(
    answer: str, options: tuple[str, ...], named: str, tmp_path: Path
) -> None:
    """Of this app; an intake's id stays, as it ends what a killed intake left open."""
    ours = tables_in(tmp_path / "w1")
    done = said(tmp_path, *OURS, named, "reset", *options, stdin=answer)
    assert (0, "") == (done.returncode, done.stderr)
    assert "2 databases deleted" in done.stdout
    assert not any(path.exists() for path in ours)
    assert (tmp_path / "w1/v1/tables/others-0.db").exists()
    assert (tmp_path / "w1/intake.json").exists()


def test_reset_is_refused_while_a_worker_uses_the_folder(tmp_path: Path) -> None:
    """One line that names its pid; --yes does not help."""
    ours = tables_in(tmp_path / "w1")
    with folder_of_its_own(tmp_path / "w1"):
        done = said(tmp_path, *OURS, "--datadir=w1", "reset", "--yes")
    assert (1, "") == (done.returncode, done.stdout)
    assert f"in use by the worker with pid {os.getpid()}: stop it first" in done.stderr
    assert 1 == len(done.stderr.splitlines())
    assert all(path.exists() for path in ours)


def test_agents_and_tables_are_readable_by_machines(tmp_path: Path) -> None:
    """With --json, each with its help."""
    for command, name in (("agents", "topic"), ("tables", "name")):
        rows = json.loads(said(tmp_path, *OURS, "--json", command).stdout)
        assert rows and all(row["help"] and row[name] for row in rows)
