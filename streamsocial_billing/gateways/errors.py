"""What ends the reading of a list or file of a gateway."""


class InputRefused(Exception):
    """Raised when a leg cannot be read or cannot be right: exit code 2, nothing is changed.

    The text is one line for people that names the file or the gateway, the place in it, what is wrong.
    """

    def __init__(self, why: str) -> None:
        super().__init__(" ".join(why.splitlines()))  # it may quote what came from outside
