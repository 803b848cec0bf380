"""How a process ends: exit codes and the last line."""

import logging
import sys
from typing import NoReturn

from kdexp.config.untrusted import printable

FAILED, WRONG_INPUT = 1, 2  # exit codes


class PlainRecord(logging.LogRecord):
    """What is logged, and so printed: names and errors in it may come from files."""

    def getMessage(self) -> str:
        """The message."""
        return printable(super().getMessage())


def leave(code: int, message: str) -> NoReturn:
    """End the process with one line on stderr."""
    print(f"error: {printable(message)}", file=sys.stderr)
    sys.exit(code)
