"""Subj: sentences about films, subjective or objective, 10,000 (Pang & Lee 2004, "A Sentimental Education")."""

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
    return split_lines(*labelled_lines(data_dir, "subj.all", "subj"))
