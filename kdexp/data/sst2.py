"""SST-2: sentences of film reviews, negative or positive, 6,920 / 872 / 1,821 (Socher et al. 2013)."""

from kdexp.contracts import Source
from kdexp.data.texts import labelled_lines, of_lines


def load(data_dir: str) -> Source:
    """Load the official train, val and test parts, whole sentences alone.

    Args:
        data_dir: see `kdexp.data.texts.labelled_lines`.

    Returns:
        (N, L) int32 code points and int64 class numbers.

    Raises:
        FileNotFoundError: the files are not there.
        ValueError: a file is damaged.
    """
    files = {"train": "stsa.binary.train", "val": "stsa.binary.dev", "test": "stsa.binary.test"}
    return of_lines({part: labelled_lines(data_dir, name, "sst2") for part, name in files.items()})
