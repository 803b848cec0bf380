import threading

from kdexp.atomic import training_lock


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
