"""TREC: questions by what they ask for, 6 classes, 5,452 / 500 (Li & Roth 2002, "Learning Question Classifiers")."""

from kdexp.contracts import Source
from kdexp.data.texts import labelled_lines, of_lines


def load(data_dir: str) -> Source:
    """Load the official train and test parts.

    Args:
        data_dir: see `kdexp.data.texts.labelled_lines`.

    Returns:
        (N, L) int32 code points and int64 class numbers.

    Raises:
        FileNotFoundError: the files are not there.
        ValueError: a file is damaged.
    """
    return of_lines({part: labelled_lines(data_dir, f"TREC.{part}.all", "trec") for part in ("train", "test")})
