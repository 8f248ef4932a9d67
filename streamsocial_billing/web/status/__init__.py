"""How the whole system is now: what is wrong, since when, what to do."""
