"""The last line of a process, and the one that nobody would read."""

import os

import pytest

from kdexp.config import exits


def left(stdout, monkeypatch):
    monkeypatch.setattr("sys.stdout", stdout)
    try:
        raise BrokenPipeError("broken pipe")
    except OSError as error:
        with pytest.raises(SystemExit) as end:
            exits.leave(exits.WRONG_INPUT, str(error))
    return end.value.code


def test_a_reader_that_has_seen_enough_is_no_error(monkeypatch, capsys):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stdout:
        assert left(stdout, monkeypatch) == 141  # what a shell says of a program that SIGPIPE ended
        stdout.write("more")
    assert capsys.readouterr().err == ""


def test_a_pipe_that_broke_elsewhere_is_an_error(monkeypatch, capsys, tmp_path):
    with (tmp_path / "out").open("w") as stdout:
        assert left(stdout, monkeypatch) == 2
    assert capsys.readouterr().err == "error: broken pipe\n"
