"""An analytics consumer to copy: revenue by minute, product, currency, exactly once (docs/analytics.md)."""
