"""What the README says can be done, can be done.

Blocks marked `console runnable` are run as they stand; `console system` against a real system; of `console
services`, which never end, and of plain `console`, which set up machines, each command and option must exist.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from support.system import CALM, System, free_port
from support.until import until

from processes import ROOT
from streamsocial_billing.settings import Settings

README = (ROOT / "README.md").read_text(encoding="utf-8")
BIN = Path(sys.executable).parent
OURS = "streamsocial-billing"


def commands(kind: str) -> list[str]:
    """The lines of all blocks of a kind."""
    blocks = re.findall(rf"^```console{kind}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
    found = [line for block in blocks for line in block.splitlines() if line.strip()]
    assert found, kind
    return found


def run(line: str, cwd: Path, **environment: str) -> str:
    """Run a line of the README in a shell; its stdout."""
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", line], cwd=cwd, env={**os.environ, **environment, "PATH": path, "COLUMNS": "200"},
        capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip
    assert 0 == done.returncode, f"{line}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("line", commands(" runnable"))
def test_a_runnable_line_runs(line: str, tmp_path: Path) -> None:
    """As it stands, with this environment's console script in place of that of `.venv`."""
    assert line.startswith(".venv/bin/")
    assert run(line.removeprefix(".venv/bin/"), tmp_path)


def test_the_lines_for_a_system_do_what_the_text_says(broker: str, tmp_path: Path, unique_name: str) -> None:
    """A payment submitted twice: one charge, its replay, an audit without a difference.

    Nothing is left in the checkout but what git ignores and `make clean` removes.
    """
    checkout = empty_checkout(tmp_path / "checkout")
    with System(broker, tmp_path, unique_name, partitions=2, **CALM) as system:
        system.start()
        chosen = {k: v for k, v in system.worker.environment.items() if k.startswith("BILLING_")}
        outputs = []
        for line in commands(" system"):
            outputs.append(run(line, checkout, **chosen))
            system.wait_answered("".join(outputs).count("1 accepted, 0 refused"))
        said = "".join(outputs)
        assert 2 == said.count("1 accepted, 0 refused")
        results = [line for line in said.splitlines() if line.startswith('{"payment_id"')]
        assert [False, True] == [json.loads(one)["replayed"] for one in results]
        system.stop_workers()
    assert "" == left_behind(checkout)
    assert {".git", ".gitignore", "data"} == {one.name for one in checkout.iterdir()}
    assert re.search(r"^\trm -rf data ", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)


def empty_checkout(folder: Path) -> Path:
    """A repository that holds our .gitignore and nothing else."""
    folder.mkdir()
    (folder / ".gitignore").write_bytes((ROOT / ".gitignore").read_bytes())
    for arguments in (["init", "-q"], ["add", "."]):
        subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True)
    who = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    subprocess.run(["git", *who, "commit", "-q", "-m", "x"], cwd=folder, check=True, capture_output=True)
    return folder


def left_behind(checkout: Path) -> str:
    """What git sees there besides what it holds."""
    done = subprocess.run(
        ["git", "status", "--porcelain"], cwd=checkout, check=True, capture_output=True, text=True
    )
    return done.stdout


def test_the_services_of_the_readme_leave_nothing_behind(tmp_path: Path) -> None:
    """The simulated gateway with its default ledger: the file is where git ignores it."""
    checkout = empty_checkout(tmp_path / "checkout")
    with subprocess.Popen(
        [str(BIN / OURS), "gateway", "--port", str(free_port())], cwd=checkout, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as gateway:  # fmt: skip
        try:
            until(lambda: (checkout / "data" / "gateway.sqlite").exists(), "the ledger is made")
        finally:
            gateway.terminate()
    assert "" == left_behind(checkout)
    assert {".git", ".gitignore", "data"} == {one.name for one in checkout.iterdir()}


def test_the_client_library_is_used_as_the_readme_does(
    broker: str, tmp_path: Path, unique_name: str
) -> None:
    """The block in Python appends its payment, which is then charged."""
    (block,) = re.findall(r"^```python\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
    with System(broker, tmp_path, unique_name, partitions=1, **CALM) as system:
        system.start()
        done = subprocess.run(
            [sys.executable, "-c", block], cwd=tmp_path, env=system.worker.environment,
            capture_output=True, text=True, check=False, timeout=150,
        )  # fmt: skip
        assert (0, "") == (done.returncode, done.stderr)
        system.wait_answered(1)
        assert ["succeeded"] == [one["status"] for one in system.results_of("demo-2")]


@pytest.mark.parametrize("line", [line for line in commands(" services") if line.startswith(OURS)])
def test_a_service_takes_the_options_that_the_readme_gives(line: str, tmp_path: Path) -> None:
    """Parsed up to the end, where --help ends it."""
    assert "Usage:" in run(f"{line} --help", tmp_path)


def test_every_make_target_of_the_readme_exists() -> None:
    """In blocks and in the text."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = set(re.findall(r"`(?:KAFKA=host:port )?make ([a-z]+)`", README))
    named |= {line.split()[1] for line in commands("") + commands(" services") if line.startswith("make ")}
    assert {"run", "test", "up", "install", "kafka"} <= named
    assert named <= targets


def test_the_commands_of_the_table_exist_with_their_options(tmp_path: Path) -> None:
    """Each command, each option in its row."""
    table = README.split("## Commands")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `([a-z]+)(.*?)` \|", table, flags=re.MULTILINE)
    assert {
        "worker", "submit", "results", "audit", "dlq", "gateway", "gateways", "lab", "reconcile", "resolve",
        "subscriptions",
    } == {name for name, _ in rows}  # fmt: skip
    for name, rest in rows:
        text = run(f"{OURS} {name} --help", tmp_path)
        assert [] == [option for option in re.findall(r"--[a-z]+", rest) if option not in text]


def test_the_table_of_settings_is_complete_and_true() -> None:
    """Every field of Settings with its default; nothing else."""
    rows = re.findall(r"^\| `BILLING_(\w+)` \| (.+?) \|", README, flags=re.MULTILINE)
    told = {name.lower(): text.strip("`") for name, text in rows}
    usual = Settings()
    expected = {}
    for field in fields(Settings):
        value = getattr(usual, field.name)
        text = f"{value:g}" if isinstance(value, float) else str(value)
        expected[field.name] = "unset" if value is None else text
    expected["topic_prefix"] = "empty"
    expected["replication"] = "the brokers' `default.replication.factor"  # 0: theirs
    assert expected == told


PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", [str(page.relative_to(ROOT)) for page in PAGES])
def test_links_inside_the_project_lead_somewhere(page: str) -> None:
    """Files and headings."""
    file = ROOT / page
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", file.read_text(encoding="utf-8")):
        path, _, anchor = target.partition("#")
        there = file if not path else file.parent / path
        assert there.exists(), f"{page}: {target}"
        if anchor:
            heads = re.findall(r"^#+ (.+)$", there.read_text(encoding="utf-8"), flags=re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}
