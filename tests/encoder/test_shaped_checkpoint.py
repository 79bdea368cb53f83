"""Folders of models whose layers have sizes of their own: loaded whole by plankwise, refused by plain Transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
)

import plankwise
import tiny
from plankwise.core.errors import ModelError
from plankwise.encoder.anatomy import layers_of
from plankwise.encoder.checkpoint import load_classifier, load_masked_lm, load_trained
from plankwise.encoder.configuration import head_units
from plankwise.encoder.shapes import is_plain, prune, shapes_of

CHANGES = {**tiny.FOUR_HEADS, "deberta-v2": {**tiny.FOUR_HEADS["deberta-v2"], "share_att_key": True}}
each_kind = pytest.mark.parametrize("kind", tiny.ARCHITECTURES)
# Two kinds differ from roberta in nothing but their names, which the tests over each kind cover.
each_family = pytest.mark.parametrize(
    "kind", [kind for kind in tiny.ARCHITECTURES if kind not in ("xlm-roberta", "camembert")]
)
HEADS, NEURONS = [[0], [], [0, 1], [1]], [[3, 5, 7], [0, 31], list(range(9)), []]


def cut(kind: str = "bert") -> PreTrainedModel:
    return prune(tiny.model(kind, **CHANGES[kind]), HEADS, NEURONS)


def cut_lm(kind: str) -> PreTrainedModel:
    model = AutoModelForMaskedLM.from_config(tiny.model(kind, **CHANGES[kind]).config).eval()
    return prune(model, HEADS, NEURONS)


def save(model: PreTrainedModel, folder: Path) -> Path:
    plankwise.save(model, tiny.tokenizer(), folder)
    return folder


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model(**tiny.batch()).logits
    return found


@each_kind
def test_what_is_saved_is_loaded_and_saved_again_byte_for_byte(kind: str, tmp_path: Path) -> None:
    model = cut(kind)
    again = plankwise.load(save(model, tmp_path / "one"))
    assert torch.equal(logits(again), logits(model))
    assert shapes_of(again.config) == shapes_of(model.config)
    assert not any(module.training for module in again.modules())
    save(again, tmp_path / "two")
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert torch.equal(logits(load_trained(str(tmp_path / "one"))), logits(model))


@each_kind
def test_plain_transformers_refuses_and_names_what_loads_it(kind: str, tmp_path: Path) -> None:
    model = cut(kind)
    folder = save(model, tmp_path / "model")
    automatic = (AutoModel, AutoModelForSequenceClassification, AutoModelForMaskedLM)
    for factory in (*automatic, type(model), type(model.base_model)):
        for mismatched in (False, True):
            with pytest.raises(Exception, match=r"load this folder by plankwise\.load"):
                factory.from_pretrained(folder, ignore_mismatched_sizes=mismatched)
    assert len(AutoTokenizer.from_pretrained(folder)) == len(tiny.tokenizer())


@each_family
def test_layers_that_are_alike_again_load_plainly(kind: str, tmp_path: Path) -> None:
    model = tiny.model(kind, **CHANGES[kind])
    every = [list(range(head_units(model.config)))] * 4
    narrow = prune(model, every, [[each, each + 9, each + 20] for each in range(4)])
    wholes = [narrow]
    if kind == "eurobert":
        wholes.append(prune(narrow, [[0], [1], [1], [0]], [[0, 2]] * 4))
    for number, smaller in enumerate(wholes):
        assert is_plain(smaller.config)
        folder = save(smaller, tmp_path / str(number))
        assert torch.equal(logits(AutoModelForSequenceClassification.from_pretrained(folder)), logits(smaller))
        assert torch.equal(logits(plankwise.load(folder)), logits(smaller))


@each_family
def test_a_cut_language_model_is_whole_after_loading(kind: str, tmp_path: Path) -> None:
    model = cut_lm(kind)
    folder = save(model, tmp_path / "lm")
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    for again in (plankwise.load(folder), load_masked_lm(str(folder), head_is_new=False)):
        assert type(again) is type(model)
        assert torch.equal(logits(again), logits(model))
        assert (again.get_output_embeddings().weight is again.get_input_embeddings().weight) == tied


@each_family
def test_a_cut_encoder_gets_a_new_head_and_keeps_every_weight(kind: str, tmp_path: Path) -> None:
    lm = cut_lm(kind)
    save(lm, tmp_path / "lm")
    save(lm.base_model, tmp_path / "bare")
    for folder in (tmp_path / "lm", tmp_path / "bare"):
        made = []
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            made.append(load_classifier(str(folder), ("a", "b", "c"), "multi_label"))
        assert made[0].config.problem_type == "multi_label_classification"
        assert not made[0].training
        assert logits(made[0]).shape == (4, 3)
        assert torch.equal(logits(made[0]), logits(made[1]))
        assert not torch.equal(logits(made[0]), logits(made[2]))
        kept = lm.base_model.state_dict()
        loaded = made[0].base_model.state_dict()
        assert all(torch.equal(value, loaded[name]) for name, value in kept.items())
        assert shapes_of(made[0].config) == shapes_of(lm.config)


def test_a_head_of_another_size_is_replaced_but_never_by_load(tmp_path: Path) -> None:
    folder = save(cut(), tmp_path / "model")
    assert logits(load_classifier(str(folder), ("a", "b", "c"))).shape == (4, 3)
    same = load_classifier(str(folder), ("LABEL_0", "LABEL_1"))
    assert torch.equal(logits(same), logits(cut()))
    change(folder / "config.json", lambda stored: stored.update(id2label={"0": "a", "1": "b", "2": "c"}))
    with pytest.raises(ModelError, match=r"lack or misfit classifier\.bias and 1 more"):
        plankwise.load(folder)


@pytest.mark.parametrize(
    "name",
    [
        "bert.encoder.layer.0.attention.self.query.weight",
        "bert.encoder.layer.1.attention.output.dense.weight",  # of no columns
        "bert.encoder.layer.3.intermediate.dense.bias",  # of no rows
        "bert.embeddings.word_embeddings.weight",
    ],
)
def test_a_missing_or_misfitting_weight_is_named(name: str, tmp_path: Path) -> None:
    path = save(cut(), tmp_path / "model") / "model.safetensors"
    kept = load_file(path)
    for wrong in ({}, {name: torch.ones(5, 7)}):
        save_file({**{key: value for key, value in kept.items() if key != name}, **wrong}, path, {"format": "pt"})
        for loading in (plankwise.load, lambda folder: load_classifier(str(folder), ("a", "b"))):
            with pytest.raises(ModelError, match=rf"lack or misfit {name} and 0 more"):
                loading(tmp_path / "model")


def test_a_folder_that_transformers_wrote_loads_as_well(tmp_path: Path) -> None:
    cut().save_pretrained(tmp_path)
    assert torch.equal(logits(plankwise.load(tmp_path)), logits(cut()))


def change(path: Path, how: Any) -> None:
    stored = json.loads(path.read_text())
    how(stored)
    path.write_text(json.dumps(stored))


GOOD = {"heads": [0], "neurons": 3}
DAMAGES: dict[str, tuple[dict[str, Any], str]] = {
    "no mapping": ({"": ["x"]}, r"'plankwise' is not a mapping: \['x'\]"),
    "a word": ({"": "layers"}, "'plankwise' is not a mapping: layers"),
    "too few layers": ({"layers": [GOOD] * 3}, "layers: the model has 4, sizes are given for 3"),
    "too many layers": ({"layers": [GOOD] * 5}, "layers: the model has 4, sizes are given for 5"),
    "no layers": ({"layers": None}, "layers: the model has 4, sizes are given for 'None'"),
    "layers in a word": ({"layers": "four"}, "sizes are given for 'four'"),
    "numbers for layers": ({"layers": [GOOD, 5, GOOD, GOOD]}, "layer 1: needs heads and neurons, not 5"),
    "no heads": ({"layers": [GOOD, {"neurons": 3}, GOOD, GOOD]}, "layer 1: needs heads and neurons"),
    "a head too high": (
        {"layers": [GOOD] * 3 + [{"heads": [4], "neurons": 3}]},
        r"layer 3: heads \[4\]; allowed: .* 3,",
    ),
    "a negative head": ({"layers": [{"heads": [-1], "neurons": 3}] * 4}, r"layer 0: heads \[-1\]; allowed: .* 0 to 3"),
    "a head twice": ({"layers": [{"heads": [1, 1], "neurons": 3}] * 4}, r"heads \[1, 1\]; .* ascending"),
    "a true head": ({"layers": [{"heads": [True], "neurons": 3}] * 4}, r"heads \[True\]"),
    "heads in a word": ({"layers": [{"heads": "01", "neurons": 3}] * 4}, "heads 01; allowed"),
    "negative neurons": ({"layers": [{"heads": [0], "neurons": -3}] * 4}, "neurons -3; allowed: 0 to 32"),
    "too many neurons": ({"layers": [{"heads": [0], "neurons": 33}] * 4}, "neurons 33; allowed: 0 to 32"),
    "half a neuron": ({"layers": [{"heads": [0], "neurons": 0.5}] * 4}, "neurons 0.5; allowed"),
    "nothing hidden": ({"hidden": []}, "'plankwise' does not say what .* was before it was guarded"),
    "half of it hidden": ({"hidden": [["model_type", "bert"]]}, "does not say what num_hidden_layers was"),
    "numbers hidden": ({"hidden": 5}, "'plankwise' hides no pairs of key and value: 5"),
    "other numbers hidden": ({"hidden": [5]}, "'plankwise' hides no pairs"),
    "depth in a word": ({"hidden": [["model_type", "bert"], ["num_hidden_layers", "x"]]}, "num_hidden_layers"),
    "unknown type": (
        {"hidden": [["model_type", "albert"], ["num_hidden_layers", 4]]},
        "'albert' is not a supported encoder",
    ),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGES.values(), ids=DAMAGES.keys())
def test_damaged_sizes_are_refused_in_a_line(damage: dict[str, Any], message: str, tmp_path: Path) -> None:
    folder = save(cut(), tmp_path / "model")
    if "" in damage:
        change(folder / "config.json", lambda stored: stored.update(plankwise=damage[""]))
    else:
        change(folder / "config.json", lambda stored: stored["plankwise"].update(damage))
    for loading in (plankwise.load, lambda given: load_classifier(str(given), ("a", "b"))):
        with pytest.raises(ModelError, match=message) as caught:
            loading(folder)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "named", [None, [], "BertModel", 5, ["pipeline"], ["AutoModel"], ["RobertaModel"], ["BertConfig"], ["Gone"]]
)
def test_load_wants_the_class_of_the_model(named: Any, tmp_path: Path) -> None:
    for model in (cut(), tiny.model()):
        folder = save(model, tmp_path / "model")
        change(folder / "config.json", lambda stored: stored.update(architectures=named))
        with pytest.raises(ModelError) as caught:
            plankwise.load(folder)
        assert "\n" not in str(caught.value)


def test_a_configuration_that_is_no_mapping_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ModelError, match="cannot read a model configuration from"):
        plankwise.load(tmp_path)


def test_a_plain_models_layers_have_no_stand_ins(tmp_path: Path) -> None:
    again = plankwise.load(save(tiny.model(), tmp_path / "model"))
    assert is_plain(again.config)
    assert [type(layer) for layer in layers_of(again)] == [type(layer) for layer in layers_of(tiny.model())]
