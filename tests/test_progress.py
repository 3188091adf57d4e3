"""A bar while one waits, and nothing afterwards."""

import itertools

import pytest

from ood_helpers import progress


@pytest.fixture
def outputs(monkeypatch):
    """The texts that an output of a notebook's cell has shown, one after the other."""
    shown = []

    class Handle:
        def update(self, bundle, raw):
            shown.append(bundle["text/plain"])

    def display(bundle, raw, display_id):
        shown.append(bundle["text/plain"])
        return Handle()

    clock = itertools.count()  # a second goes by at each look
    monkeypatch.setattr(progress, "get_ipython", lambda: type("Shell", (), {"kernel": True}))
    monkeypatch.setattr(progress, "display", display)
    monkeypatch.setattr("tqdm.std.time", lambda: next(clock))
    monkeypatch.setattr("tqdm.std.tqdm.monitor_interval", 0)
    return shown


def test_a_bar_says_how_far_it_is_and_leaves_an_empty_output(outputs):
    assert list(progress.progress(iter("abcdef"), 6, "training")) == list("abcdef")
    assert outputs[0].startswith("training") and "/6" in outputs[0] and "█" in outputs[0]
    assert outputs[-1] == ""


def test_an_interrupted_bar_leaves_an_empty_output(outputs):
    def steps():
        yield from range(4)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(progress.progress(steps(), 9, "training"))
    assert len(outputs) > 1 and outputs[-1] == ""


def test_a_bar_inside_another_leaves_nothing_either(outputs):
    for _ in progress.progress(range(3), 3, "widths"):
        list(progress.progress(range(4), 4, "training"))
    assert {shown.partition(":")[0] for shown in outputs} == {"widths", "training", ""} and outputs[-1] == ""


def test_what_takes_less_than_a_second_shows_nothing(outputs, monkeypatch):
    monkeypatch.setattr("tqdm.std.time", lambda: 0.0)
    list(progress.progress(range(5), 5, "training"))
    assert outputs == []


def test_without_a_notebook_the_bar_goes_to_the_terminal(capsys, outputs, monkeypatch):
    monkeypatch.setattr(progress, "get_ipython", lambda: None)
    list(progress.progress(range(5), 5, "training"))
    assert outputs == [] and "training" in capsys.readouterr().err
