"""Records the bytes that a release writes: `.venv/bin/python tests/golden/record.py v0.2.0 [FOLDER]`.

The release's own unit tests run on the release's own source, unpacked from git, with this file as a plugin of
pytest: whatever its code serialises is kept, one example of each shape (which fields, which of them null,
which words), the shortest. `tests/golden/<release>.jsonl` then holds what the releases before did not write.
For a release that is to be upgraded from, once; the tests run with the libraries of this checkout. How
releases up to 0.2.0 serialise is known here (by `orjson.dumps`, in these files); another one is taught first.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import orjson

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parents[1]
WORDS: Final = ("status", "action", "kind", "origin", "seen", "outcome", "state", "command", "via", "class")
"""Fields whose values make shapes of their own."""
MOST: Final = {"table charges": 40, "table task_counters": 12, "reconciliation-breaks": 40}
"""What has shapes without end, as its names are data."""
TOPICS: Final = {
    "charge_result": "charge-results", "payment_metric": "payment-metrics",
    "gateway_events": "gateway-events", "commands": "billing-commands", "answers": "billing-command-answers",
    "rows": "reconciliation-breaks", "append": "payments-dlq-replays", "append_once": "payments-dlq-replays",
}  # fmt: skip
"""By the function that serialises, else by its file."""

WRITERS: Final = ("run.py", "commands.py", "gateway_events.py", "answers.py", "events.py", "dead_letters.py")

Example = dict[str, Any]
"""of: the topic, or `table NAME`; value: the text; of a dead letter `headers`, too."""


def main(release: str, folder: str | None = None) -> None:
    """Run the release's tests, write its file."""
    with tempfile.TemporaryDirectory() as made:
        tree = Path(folder or made)
        source = subprocess.run(  # noqa: S603
            ["git", "-C", str(ROOT), "archive", f"{release}^{{commit}}"], capture_output=True, check=True  # noqa: S607
        ).stdout  # fmt: skip
        with tarfile.open(fileobj=BytesIO(source)) as archive:
            archive.extractall(tree, filter="data")
        environment = os.environ | {"PYTHONPATH": f"{HERE}:{tree}", "GOLDEN": str(tree)}
        words = [sys.executable, "-m", "pytest", "-q", "-p", "record", "-p", "no:cacheprovider"]
        subprocess.run([*words, "tests/unit"], cwd=tree, env=environment, check=False)  # noqa: S603
        examples = [json.loads(line) for line in (tree / "golden.jsonl").read_text().splitlines()]
    lines = (json.dumps(one, ensure_ascii=False) for one in _new(release, examples))
    (HERE / f"{release}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _new(release: str, examples: list[Example]) -> Iterator[Example]:
    """What earlier releases did not write, in order."""
    earlier = [path for path in HERE.glob("*.jsonl") if path.stem < release]
    known = {shape_of(json.loads(line)) for path in earlier for line in path.read_text().splitlines()}
    counts: dict[str, int] = {}
    for one in sorted(examples, key=lambda one: (one["of"], len(one["value"]), one["value"])):
        counts[one["of"]] = counts.get(one["of"], 0) + (shape_of(one) not in known)
        if shape_of(one) not in known and counts[one["of"]] <= MOST.get(one["of"], 1000):
            yield one


def shape_of(example: Example) -> str:
    """What makes an example unlike another."""
    if "headers" in example:
        return repr((example["of"], list(example["headers"])))
    value = json.loads(example["value"])
    words = [value.get(word) for word in WORDS if isinstance(value.get(word), str)]
    return repr((example["of"], words, _shape(value)))


def _shape(value: object) -> object:
    if isinstance(value, dict):
        return [(name, _shape(one)) for name, one in value.items()]
    if isinstance(value, list):
        return sorted({repr(_shape(one)) for one in value})
    return type(value).__name__


# ---- inside the release's tests

_found: dict[str, Example] = {}
_tree = os.environ.get("GOLDEN", "")
_dumps, _json_dumps = orjson.dumps, json.dumps


def keep(of: str, value: str, **more: Any) -> None:
    """Keep an example, unless there is a shorter one like it."""
    example = {"of": of, "value": value, **more}
    shape = shape_of(example)
    if shape not in _found or len(value) < len(_found[shape]["value"]):
        _found[shape] = example


def _recording(what: Any, *options: Any, **more: Any) -> bytes:
    """`orjson.dumps`, which looks at who calls it."""
    written = _dumps(what, *options, **more)
    frame = sys._getframe(1)  # noqa: SLF001
    file, function = Path(frame.f_code.co_filename), frame.f_code.co_name.strip("_")
    if file.is_relative_to(f"{_tree}/streamsocial_billing"):
        if file.name == "table.py" and function == "setitem":
            name = frame.f_locals["self"].name
            if Path(_tree, f"tables/{name}.py").exists():  # else a table of a test
                keep(f"table {name}", written.decode())
        elif file.name == "events.py" and function == "to_bytes":
            keep("payments" if b'"amount_minor"' in written else "payments-retry", written.decode())
        elif file.name in WRITERS and (of := TOPICS.get(function) or TOPICS.get(file.stem)) is not None:
            for one in what if isinstance(what, list) else [what]:
                repairs = isinstance(one, dict) and "event_id" in one
                keep("gateway-events" if repairs else of, _dumps(one).decode())
    return written


def _recording_counters(what: Any, *options: Any, **more: Any) -> str:
    """`json.dumps`, by which counters are written."""
    written = _json_dumps(what, *options, **more)
    if sys._getframe(1).f_code.co_filename.endswith("exactly_once/counters.py"):  # noqa: SLF001
        keep("table task_counters", written)
    return written


def pytest_collection_finish(session: Any) -> None:
    """The release is imported by now: look at its headers, too."""
    Topic: Any = import_module("streamsocial_billing.exactly_once.topic").Topic
    put = Topic.put_into_unit

    def recording(
        self: Any, key: Any, value: Any, partition: Any = None, headers: Any = None, at_ms: Any = None
    ) -> None:
        if headers and self.topics[0].endswith("payments-dlq"):
            shown = (value or b"").decode("utf-8", "backslashreplace")[:200]
            keep("payments-dlq", shown, headers=dict(headers))
        put(self, key, value, partition, headers, at_ms)

    Topic.put_into_unit = recording


def pytest_unconfigure(config: Any) -> None:
    """All tests are over: what needs a Kafka is made by hand, then everything is written down."""
    _run_record()
    _marker()
    lines = (_json_dumps(one, ensure_ascii=False) + "\n" for one in _found.values())
    Path(_tree, "golden.jsonl").write_text("".join(lines), encoding="utf-8")


def _run_record() -> None:
    report: Any = import_module("streamsocial_billing.reconciliation.report")
    legs = dict.fromkeys(("results", "movements", "lines", "unhandled"), 1)
    found = {"missing_internal": report.Found(1, {"EUR": 1234}, {"3-6 days": 1}, 1_764_600_000_000)}
    for one in ({}, found):
        told = report.Summary({"as_of": 1_764_600_000_000, "since": 0, "files": [], "cut": {}}, legs, one, [])
        keep("reconciliation-breaks", _dumps(told.as_record()).decode())


def _marker() -> None:
    dead_letters: Any = import_module("streamsocial_billing.dead_letters")
    there = SimpleNamespace(topic=lambda: "payments", partition=lambda: 3, offset=lambda: 17)
    producer = SimpleNamespace(begin_transaction=lambda: None, commit_transaction=lambda timeout: None)
    with suppress(AttributeError):
        dead_letters.send_confirmed = lambda *_: [there]
        dead_letters._append(dead_letters.Settings(), producer, "3-17", b"u1", b"{}", "ann")  # noqa: SLF001


if __name__ == "__main__":
    main(*sys.argv[1:])
elif _tree:
    orjson.dumps, json.dumps = _recording, _recording_counters  # type: ignore[assignment]
