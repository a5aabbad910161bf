"""What the command line needs of every input before a record is: torch and dataclasses are far."""

POINT_KINDS = ("uniform", "centre", "border", "extreme", "jitter")


class InputError(ValueError):
    """Bad input from outside: its text is the one line a user gets, naming file and cause."""


def one_line(text: str) -> str:
    """Text for a terminal: what would break the line or steer the terminal is written out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
