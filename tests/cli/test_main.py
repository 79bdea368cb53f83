"""The command line's answers to wrong options, and what it hides from the user unless asked."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import typer

import tiny
from plankwise import cli
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


def call(monkeypatch: pytest.MonkeyPatch, app: Callable[..., Any], *arguments: str) -> int:
    """Run another app in place of the command line's and return its exit code."""
    monkeypatch.setattr(sys, "argv", ["plankwise", *arguments])
    with pytest.raises(SystemExit) as end:
        cli.main(app)
    return int(end.value.code or 0)


@pytest.mark.parametrize("arguments", WRONG, ids=" ".join)
def test_a_wrong_option_is_one_line(
    arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tiny.call(monkeypatch, *arguments) == 2
    seen = capsys.readouterr()
    assert seen.out == ""
    (line,) = seen.err.splitlines()
    assert line.startswith(f"plankwise: {WRONG[arguments]}")


def test_help_is_what_it_was(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert tiny.call(monkeypatch, "run", "--help") == 0
    assert "Usage: plankwise run [OPTIONS]" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["data"]])
def test_without_a_verb_there_is_help(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tiny.call(monkeypatch, *arguments) == 2
    seen = capsys.readouterr()
    assert "Commands" in seen.out
    assert "plankwise:" not in seen.err


def app_of(verb: Callable[[], None]) -> typer.Typer:
    """Make an app with one verb, called `verb`."""
    app = typer.Typer(pretty_exceptions_enable=False)
    app.callback()(lambda: None)
    app.command("verb")(verb)
    return app


def test_an_interruption_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    assert call(monkeypatch, app_of(interrupted), "verb") == 130
    assert capsys.readouterr().err == "plankwise: interrupted; --resume continues a run\n"


def test_a_disk_that_is_full_gets_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def full() -> None:
        raise OSError(28, "No space left on device", "run/model.safetensors")

    assert call(monkeypatch, app_of(full), "verb") == 2
    expected = "plankwise: cannot use run/model.safetensors: No space left on device; --resume continues a run\n"
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize("arguments", [["--verbose", "verb"], ["verb", "--verbose"], ["verb"]], ids=" ".join)
def test_other_libraries_are_shown_only_if_verbose(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def noisy() -> None:
        logging.getLogger("some.library").warning("notice of a library")
        logging.getLogger("plankwise.study").warning("our own")
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("advice of a library", stacklevel=1)
        seen.append(progress._verbose)

    seen: list[bool] = []
    handler = logging.StreamHandler()
    logging.getLogger().addHandler(handler)
    levels = [logging.getLogger(name).level for name in (None, "plankwise", "py.warnings")]
    try:
        assert call(monkeypatch, app_of(noisy), *arguments) == 0
    finally:
        logging.getLogger().removeHandler(handler)
    err = capfd.readouterr().err
    assert "our own" in err
    assert ("notice of a library" in err) == ("advice of a library" in err) == seen[0] == ("--verbose" in arguments)
    assert [logging.getLogger(name).level for name in (None, "plankwise", "py.warnings")] == levels
    assert not progress._verbose
