import csv
import threading

from kdexp.atomic import training_lock, write_rows


def test_who_comes_later_says_that_it_waits_and_goes_on_when_the_first_is_done(tmp_path, monkeypatch, caplog):
    order, waits = [], threading.Event()
    # The handler is that of all tests of this process: what is not put back would silence the others.
    monkeypatch.setattr(caplog.handler, "emit", lambda record: (order.append(record.getMessage()), waits.set()))

    def later():
        with training_lock(tmp_path / "new" / "lock", "assistant"):
            order.append("the second")

    thread = threading.Thread(target=later)
    with caplog.at_level("INFO", "kdexp.atomic"), training_lock(tmp_path / "new" / "lock", "assistant"):
        thread.start()
        assert waits.wait(10)
        order.append("the first")
    thread.join(10)
    assert order == ["assistant: waiting for another process that is training it", "the first", "the second"]


def test_a_table_of_somebody_elses_words_is_no_program(tmp_path):
    write_rows(tmp_path / "t.csv", [{"=a": "=cmd()", "lr": -0.1, "typed": "-0.1", "error": "x\x1b[2J"}, {"lr": None}])
    with (tmp_path / "t.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [
            ["'=a", "lr", "typed", "error"], ["'=cmd()", "-0.1", "-0.1", r"x\x1b[2J"], ["", "", "", ""],
        ]  # fmt: skip
