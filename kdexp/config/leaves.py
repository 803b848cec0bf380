"""Settings by their dotted names."""

from collections.abc import Iterator, Mapping

from kdexp.config.require import Values


def leaves(node: Values, prefix: str = "") -> Iterator[tuple[str, object]]:
    """The values in nested mappings, named ``a.b.c``."""
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
