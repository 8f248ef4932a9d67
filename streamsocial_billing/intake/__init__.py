"""How payments come in."""
