"""What stops a reconciliation."""


class InputRefused(Exception):
    """Raised when a leg cannot be read or cannot be right: exit code 2, nothing is changed.

    The text is one line for people that names the file or the gateway, the place in it, what is wrong.
    """
