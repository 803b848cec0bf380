"""How a process ends: exit codes and the last line."""

import logging
import os
import signal
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
    """End the process with one line on stderr; without it where nobody reads on (``kdexp-compare DIR | head``)."""
    if isinstance(sys.exc_info()[1], BrokenPipeError) and _nobody_reads():
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it at the end
        sys.exit(128 + signal.SIGPIPE)
    print(f"error: {printable(message)}", file=sys.stderr)
    sys.exit(code)


def _nobody_reads() -> bool:
    try:
        print(flush=True)
    except BrokenPipeError:
        return True
    return False
