"""Payments under a seeded storm of faults, judged by what is left behind: `python -m torture`."""
