"""Settlement files: what a gateway says it paid out, line by line."""
