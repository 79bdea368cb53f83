"""YAML that was made to hang or to overflow a reader is refused at once."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from plankwise.core.documents import parse_yaml, read_yaml
from plankwise.core.errors import RecipeError

LAUGHS = "a: &a [x, x]\n" + "".join(
    f"{n}: &{n} [{'*' + p + ','} {'*' + p}]\n"
    for p, n in zip("abcdefghijklmnopqrstuvw", "bcdefghijklmnopqrstuvwx", strict=True)
)
MERGES = "a: &a {k: 1}\n" + "".join(
    f"{n}: &{n} {{<<: [*{p}, *{p}]}}\n"
    for p, n in zip("abcdefghijklmnopqrstuvw", "bcdefghijklmnopqrstuvwx", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LAUGHS, "more than 100,000 values with aliases expanded"),
        (MERGES, "more than 100,000 values with aliases expanded"),
        ("a: &a [*a]", "nested more than 50 deep"),
        ("a: " + "[" * 60 + "]" * 60, "nested more than 50 deep"),
        ("a: " + "[" * 50_000, "nested more than 50 deep"),
        ("{" * 5_000, "nested more than 50 deep"),
        ("- " * 5_000, "nested more than 50 deep"),
        ('a: "\\ud800"', "recipe:1: not valid YAML: one half of a surrogate pair"),
        ("a:\n  - b: {c: 1, c: 2}", "recipe:2: the key 'c' appears twice"),
    ],
)
def test_a_bomb_is_refused_at_once(text: str, message: str) -> None:
    began = time.process_time()
    with pytest.raises(RecipeError, match=message):
        parse_yaml(text, "recipe")
    assert time.process_time() - began < 1


def test_aliases_and_surrogate_pairs_as_people_use_them() -> None:
    _, found = parse_yaml('base: &b {x: 1, y: 2}\nother: {<<: *b, y: 3}\nname: "\\ud83d\\ude00"', "recipe")
    assert found == {"base": {"x": 1, "y": 2}, "other": {"x": 1, "y": 3}, "name": "\N{GRINNING FACE}"}


def test_what_is_no_file_or_too_large_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_text("#" * 1_000_001)
    (tmp_path / "latin").write_bytes("ä: 1".encode("latin-1"))
    reasons = {
        tmp_path / "pipe": "it is a named pipe; allowed: a file",
        Path("/dev/zero"): "it is a device; allowed: a file",
        tmp_path: "Is a directory",
        tmp_path / "large": "it has 1,000,001 bytes; allowed: up to 1,000,000",
        tmp_path / "gone": "No such file or directory",
        Path("a\0b"): "it is not a file name: embedded null byte",
    }
    for path, reason in reasons.items():
        with pytest.raises(RecipeError) as caught:
            read_yaml(path)
        assert str(caught.value) == f"cannot read the recipe {path}: {reason}"
    with pytest.raises(RecipeError, match=r"cannot read the recipe .*latin: .*utf-8"):
        read_yaml(tmp_path / "latin")
