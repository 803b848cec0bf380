"""Rich's console for what comes from files: strings are text there, and nothing else."""

import sys
from typing import Any

from rich.console import Console
from rich.text import Text

from kdexp.config.untrusted import printable


class Screen(Console):
    """A console to which a string is no markup, and which shows what a terminal would obey (see `printable`)."""

    def __init__(self, width: int | None = None) -> None:
        super().__init__(markup=False, emoji=False, width=width)

    def render_str(self, text: str, **settings: Any) -> Text:
        """Turn a string (printed, in a table, a title) into what is shown."""
        return super().render_str(printable(text), **settings)


def screen(width: int = 170) -> Screen:
    """The terminal; into a file or a pipe a table is written as wide as it is, or as this."""
    return Screen() if sys.stdout.isatty() else Screen(width=width)
