"""Loading and saving: heads may be new, encoder weights never are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertForMaskedLM, BertModel

import tiny
from plankwise.core.errors import ModelError
from plankwise.encoder.checkpoint import load_classifier, load_masked_lm, load_trained, save
from plankwise.encoder.tokenizer import load_tokenizer


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tiny.save_source(tmp_path / "source")


def test_labels_and_kind_reach_the_configuration(source: Path) -> None:
    model = load_classifier(str(source), ("a", "b", "c"), "multi_label")
    assert model.config.id2label == {0: "a", 1: "b", 2: "c"}
    assert model.config.problem_type == "multi_label_classification"
    assert model.classifier.out_features == 3


def test_a_new_head_follows_the_seed_and_the_encoder_is_the_checkpoints(source: Path) -> None:
    made = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        made.append(load_classifier(str(source), ("a", "b", "c")))
    assert torch.equal(made[0].classifier.weight, made[1].classifier.weight)
    assert not torch.equal(made[0].classifier.weight, made[2].classifier.weight)
    saved = load_file(source / "model.safetensors")
    for name, value in made[0].bert.encoder.state_dict().items():
        assert torch.equal(value, saved[f"bert.encoder.{name}"])


def test_a_masked_lm_can_become_a_classifier_and_back(tmp_path: Path) -> None:
    config = tiny.model().config
    save(BertForMaskedLM(config), tiny.tokenizer(), tmp_path / "lm")
    assert load_masked_lm(str(tmp_path / "lm")).config.num_hidden_layers == 4
    assert load_classifier(str(tmp_path / "lm"), ("a", "b")).config.num_labels == 2
    save(BertModel(config), tiny.tokenizer(), tmp_path / "bare")
    assert load_classifier(str(tmp_path / "bare"), ("a", "b")).config.num_labels == 2


def test_missing_or_misfitting_encoder_weights_are_refused(source: Path) -> None:
    path = source / "model.safetensors"
    whole = load_file(path)
    name = "bert.encoder.layer.2.attention.self.query.weight"
    save_file({key: value for key, value in whole.items() if key != name}, path, {"format": "pt"})
    with pytest.raises(ModelError, match=r"lack or misfit bert\.encoder\.layer\.2\.attention"):
        load_classifier(str(source), ("a", "b"))
    save_file({**whole, name: torch.zeros(8, 16)}, path, {"format": "pt"})
    with pytest.raises(ModelError, match="lack or misfit"):
        load_classifier(str(source), ("a", "b"))


def test_a_trained_model_is_loaded_exactly_or_not_at_all(tmp_path: Path) -> None:
    save(BertModel(tiny.model().config), tiny.tokenizer(), tmp_path / "bare")
    with pytest.raises(ModelError, match=r"is a BertModel, not a classifier"):
        load_trained(str(tmp_path / "bare"))
    model = tiny.model()
    save(model, tiny.tokenizer(), tmp_path / "whole")
    assert torch.equal(load_trained(str(tmp_path / "whole"))(**tiny.batch()).logits, model(**tiny.batch()).logits)


def test_unreadable_places_are_refused_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"there is no model folder \./gone"):
        load_classifier("./gone", ("a", "b"))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match="cannot read a model configuration"):
        load_classifier(str(tmp_path), ("a", "b"))
    with pytest.raises(ModelError, match="cannot read a model configuration"):
        load_tokenizer(str(tmp_path))
