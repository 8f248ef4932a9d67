"""What a worker does by the clock."""
