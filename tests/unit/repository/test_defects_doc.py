"""The page of defects says what is tested."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
ROWS = re.findall(r"^\| (\d+) \|(.*)$", (ROOT / "docs" / "defects.md").read_text(), re.MULTILINE)


def test_every_defect_has_its_row_with_a_test_that_exists() -> None:
    """Numbers 1 to 22; each named test is a function in tests/defects."""
    code = "\n".join(path.read_text() for path in (ROOT / "tests" / "defects").glob("test_*.py"))
    assert set(range(1, 23)) == {int(number) for number, _ in ROWS}
    for number, row in ROWS:
        named = re.findall(r"`(\d\d_\w+)`", row)
        assert named, number
        for name in named:
            assert int(number) == int(name[:2])
            assert f"def test_defect_{name}(" in code, name
