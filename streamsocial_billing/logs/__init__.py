"""The log of the long-running commands: one format, no secrets, no floods (docs/operations.md)."""
