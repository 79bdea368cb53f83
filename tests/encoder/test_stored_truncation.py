"""A model's folder says how its texts are read, survives every way of saving, and is refused where it is malformed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import AutoModelForSequenceClassification

import plankwise
import tiny
from plankwise.core.errors import ModelError
from plankwise.data.truncation import Truncation, Windows
from plankwise.encoder.checkpoint import load_config, load_masked_lm
from plankwise.encoder.shapes import is_plain, prune
from plankwise.encoder.stored_truncation import TRUNCATION_KEY, store_truncation, stored_truncation
from plankwise.encoder.surgery import rebuild

TAIL = Truncation(max_length=20, truncation="tail")
WINDOWS = Truncation(max_length=16, windows=Windows(stride=3, pooling="max", max_windows=5))


@pytest.mark.parametrize("truncation", [TAIL, WINDOWS], ids=["tail", "windows"])
@pytest.mark.parametrize("pruned", [False, True], ids=["plain", "pruned"])
def test_it_survives_saving_loading_and_compressing(tmp_path: Path, truncation: Truncation, pruned: bool) -> None:
    model = tiny.model(layers=2)
    store_truncation(model.config, truncation)
    if pruned:
        model = prune(model, [[0], [0, 1]], [range(32), range(8)])
    assert is_plain(model.config) != pruned
    plankwise.save(model, tiny.tokenizer(), tmp_path / "one")
    again = plankwise.load(tmp_path / "one")
    assert stored_truncation(again.config) == truncation
    plankwise.save(rebuild(again, [(1,)]), None, tmp_path / "two")
    assert stored_truncation(load_config(str(tmp_path / "two"))) == truncation


def test_plain_transformers_load_and_save_such_a_folder_in_silence(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    model = tiny.model(layers=1)
    store_truncation(model.config, TAIL)
    plankwise.save(model, None, tmp_path / "one")
    AutoModelForSequenceClassification.from_pretrained(tmp_path / "one").save_pretrained(tmp_path / "two")
    assert stored_truncation(load_config(str(tmp_path / "two"))) == TAIL
    assert not caplog.text
    assert not capfd.readouterr().err


def test_nothing_is_known_of_other_models_and_it_can_be_taken_away(tmp_path: Path) -> None:
    model = tiny.model(layers=1)
    assert stored_truncation(model.config) is None
    store_truncation(model.config, None)
    store_truncation(model.config, TAIL)
    store_truncation(model.config, None)
    plankwise.save(model, None, tmp_path)
    assert TRUNCATION_KEY not in json.loads((tmp_path / "config.json").read_text())


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ("tail", "'tail' is not a mapping; allowed: the keys max_length, truncation, windows"),
        (None, "'None' is not a mapping"),
        ([8], r"'\[8\]' is not a mapping"),
        ({"max_length": "many"}, "max_length: .*valid integer.*, not 'many'"),
        ({"max_length": 2}, "max_length: .*greater than or equal to 4, not 2"),
        ({"max_length": 999}, "max_length 999 is more than the model's 72 positions"),
        ({"truncation": "middle"}, "truncation: .*'head', 'tail' or 'head_tail', not 'middle'"),
        ({"truncate": "tail"}, "unknown key 'truncate'; did you mean 'truncation'"),
        ({"truncation": "tail", "windows": {}}, "truncation 'tail' and windows exclude each other"),
        ({"windows": {"max_windows": 0}}, "windows.max_windows: .*greater than or equal to 1, not 0"),
    ],
)
def test_what_is_malformed_is_one_line(tmp_path: Path, stored: object, message: str) -> None:
    tiny.model(layers=1).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, TRUNCATION_KEY: stored}))
    with pytest.raises(ModelError, match=f"'{TRUNCATION_KEY}' in the configuration of {tmp_path}: {message}") as caught:
        plankwise.load(tmp_path)
    assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match=TRUNCATION_KEY):
        load_masked_lm(str(tmp_path))
