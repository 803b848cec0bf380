"""The report page from top to bottom, a file a section: each has a ``sections`` that yields none, one or several."""
