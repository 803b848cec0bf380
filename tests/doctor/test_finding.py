"""How numbers are written in the doctor's table."""

import pytest

from kdexp.doctor.finding import format_bytes, format_count, format_duration


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.5, "0.5 s"), (90, "90 s"), (600, "10 min"), (3 * 3600, "3 h"), (4 * 86400, "4 days")]
)
def test_durations_are_in_words(seconds, words):
    assert format_duration(seconds) == words


def test_counts_and_bytes_have_units():
    assert [format_count(count) for count in (999, 4810, 2.5e6, 3e9)] == ["999", "4.81k", "2.5M", "3G"]
    assert [format_bytes(count) for count in (57_700, 2.5e6, 3e9)] == ["57.7 kB", "2.5 MB", "3 GB"]
