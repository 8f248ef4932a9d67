"""Shows the whole system at work on one machine."""
