"""What people order: commands, their handling, their replies."""
