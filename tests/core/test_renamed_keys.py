"""Keys of older recipes: still read, with one warning, and never written."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from plankwise.core.errors import RecipeError
from plankwise.core.recipe import read_recipe, settings, to_plain, validate


@settings(renamed={"flour": "grain", "oven": "heat_c"})
class Bread:
    grain: str = "rye"
    heat_c: int = 250
    loaves: int = 1


@settings
class Bakery:
    bread: Bread = Bread()


def test_an_old_key_sets_the_field_and_the_new_one_is_written() -> None:
    bakery = validate({"bread": {"flour": "spelt", "loaves": 3}}, Bakery)
    assert bakery == Bakery(bread=Bread(grain="spelt", loaves=3))
    assert to_plain(bakery) == {"bread": {"grain": "spelt", "heat_c": 250, "loaves": 3}}
    assert validate(to_plain(bakery), Bakery) == bakery


def test_an_old_key_warns_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "plankwise")
    for _ in range(2):
        validate({"bread": {"oven": 230}}, Bakery)
        validate({"bread": {"heat_c": 230}}, Bakery)
    assert [each.getMessage() for each in caplog.records] == [
        "the key 'oven' is now called 'heat_c'; the old name still works"
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("  oven: hot", r"bread\.oven: input should be a valid integer.*not 'hot'"),
        ("  heat_c: hot", r"bread\.heat_c: input should be a valid integer.*not 'hot'"),
        ("  heat: 230", "unknown key 'heat'; did you mean 'heat_c'.*Allowed: grain, heat_c, loaves"),
    ],
)
def test_errors_name_the_key_and_the_line_that_the_file_has(line: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "bread.yaml").write_text(f"bread:\n  loaves: 1\n{line}\n")
    with pytest.raises(RecipeError, match=f"bread.yaml:3: {message}"):
        read_recipe(tmp_path / "bread.yaml", Bakery)


def test_both_names_at_once_are_refused() -> None:
    with pytest.raises(RecipeError, match="unknown key 'flour'"):
        validate({"bread": {"flour": "rye", "grain": "rye"}}, Bakery)
