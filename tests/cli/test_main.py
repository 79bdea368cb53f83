"""What the command line says to wrong options, and what it keeps from the user unless asked."""

from __future__ import annotations

import logging
import warnings

import pytest

import tiny
from plankwise.core import progress

WRONG = {
    ("frobnicate",): "no such command 'frobnicate'; see plankwise --help",
    ("data", "nope"): "no such command 'nope'; see plankwise data --help",
    ("run",): "missing argument 'RECIPE'; see plankwise run --help",
    ("run", "x"): "missing option '--out'; see plankwise run --help",
    ("run", "x", "--out"): "option '--out' requires an argument",
    ("run", "x", "--otu", "y"): "no such option: --otu (Possible options: --out, --set); see plankwise run --help",
    ("export", "m", "--out", "x", "--max-length", "lots"): "invalid value 'lots' for '--max-length'",
    ("bench", "m", "--rounds", "1"): "invalid value '1' for '--rounds'",
    ("report", "a", "b", "--nope"): "no such option: --nope",
}


@pytest.mark.parametrize("arguments", WRONG, ids=" ".join)
def test_a_wrong_option_is_one_line(arguments, monkeypatch, capsys):
    assert tiny.call(monkeypatch, *arguments) == 2
    seen = capsys.readouterr()
    assert seen.out == ""
    (line,) = seen.err.splitlines()
    assert line.startswith(f"plankwise: {WRONG[arguments]}")


def test_help_is_what_it_was(monkeypatch, capsys):
    assert tiny.call(monkeypatch, "run", "--help") == 0
    assert "Usage: plankwise run [OPTIONS]" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["data"]])
def test_without_a_verb_there_is_help(arguments, monkeypatch, capsys):
    assert tiny.call(monkeypatch, *arguments) == 2
    seen = capsys.readouterr()
    assert "Commands" in seen.out
    assert "plankwise:" not in seen.err


def test_an_interruption_is_one_line(monkeypatch, capsys):
    def interrupted(**_):
        raise KeyboardInterrupt

    monkeypatch.setattr("plankwise.run.recipe.json_schema", interrupted)
    monkeypatch.setattr("plankwise.run.recipe.json_schema", lambda: interrupted())
    assert tiny.call(monkeypatch, "schema") == 130
    assert capsys.readouterr().err == "plankwise: interrupted; --resume continues a run\n"


@pytest.mark.parametrize("place", ["before", "after", None])
def test_others_are_heard_only_where_the_user_wants_them(place, monkeypatch, capfd):
    def noisy():
        logging.getLogger("some.library").warning("notice of a library")
        logging.getLogger("plankwise.study").warning("our own")
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("advice of a library", stacklevel=1)
        seen.append(progress._verbose)
        return {}

    seen: list[bool] = []
    handler = logging.StreamHandler()
    logging.getLogger().addHandler(handler)
    monkeypatch.setattr("plankwise.run.recipe.json_schema", noisy)
    levels = [logging.getLogger(name).level for name in (None, "plankwise", "py.warnings")]
    arguments = {"before": ["--verbose", "schema"], "after": ["schema", "--verbose"], None: ["schema"]}[place]
    try:
        assert tiny.call(monkeypatch, *arguments) == 0
    finally:
        logging.getLogger().removeHandler(handler)
    err = capfd.readouterr().err
    assert "our own" in err
    assert ("notice of a library" in err) == ("advice of a library" in err) == seen[0] == (place is not None)
    assert [logging.getLogger(name).level for name in (None, "plankwise", "py.warnings")] == levels
    assert not progress._verbose
