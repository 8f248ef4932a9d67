"""Processes that a checkout starts: for showcase, torture, lab, benchmarks, tests."""

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
"""The checkout."""
