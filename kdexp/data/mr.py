"""MR: sentences of film reviews, negative or positive, 10,662 (Pang & Lee 2005, "Seeing Stars")."""

from kdexp.contracts import Source
from kdexp.data.texts import labelled_lines, split_lines


def load(data_dir: str) -> Source:
    """Load it; a tenth, stratified by class, is test, since nobody has published a part for it.

    Args:
        data_dir: see `kdexp.data.texts.labelled_lines`.

    Returns:
        (N, L) int32 code points and int64 class numbers.

    Raises:
        FileNotFoundError: the files are not there.
        ValueError: a file is damaged.
    """
    return split_lines(*labelled_lines(data_dir, "rt-polarity.all", "mr"))
