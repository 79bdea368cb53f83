"""A fine-tuned head goes by the names of its labels; what cannot be used of it is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForTokenClassification

import tiny
from plankwise.core.errors import ModelError
from plankwise.encoder.checkpoint import load_classifier, load_fine_tuned, load_trained, save
from plankwise.encoder.classifier_head import check_classifier, labels_of

LABELS = ("bad", "good", "so")
OUTPUT = dict.fromkeys(
    ("roberta", "xlm-roberta", "camembert", "electra", "mpnet", "jina_embeddings_v3"), "classifier.out_proj"
)


def saved(folder: Path, kind: str = "bert", labels: tuple[str, ...] = LABELS, **config: Any) -> str:
    model = tiny.model(kind, 1, labels=len(labels))
    model.config.id2label, model.config.label2id = dict(enumerate(labels)), {each: at for at, each in enumerate(labels)}
    for name, value in config.items():
        setattr(model.config, name, value)
    save(model, tiny.tokenizer(), folder)
    return str(folder)


@pytest.mark.parametrize("kind", tiny.ARCHITECTURES)
def test_labels_in_another_order_keep_their_answers(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    source = saved(tmp_path / "m", kind)
    own, moved = load_trained(source), load_classifier(source, ("so", "bad", "good"))
    batch = tiny.batch()
    assert torch.equal(moved(**batch).logits, own(**batch).logits[:, [2, 0, 1]])
    assert "its head is kept; its labels were put into the task's order" in caplog.text


@pytest.mark.parametrize("kind", tiny.ARCHITECTURES)
def test_a_head_for_other_labels_starts_again_from_the_seed(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    source, name = saved(tmp_path / "m", kind), OUTPUT.get(kind, "classifier")
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(load_classifier(source, ("bad", "good", "neither")).get_submodule(name))
    assert torch.equal(found[0].weight, found[1].weight)
    assert not torch.equal(found[0].weight, found[2].weight)
    assert not torch.equal(found[0].weight, load_trained(source).get_submodule(name).weight)
    assert found[0].weight.std() < 0.04  # the architecture's own start
    assert "its head for 3 labels (bad, good, so) is not used" in caplog.text


def test_generic_names_and_other_sizes_and_kinds_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    load_classifier(saved(tmp_path / "generic", labels=("LABEL_0", "LABEL_1")), ("bad", "good"))
    load_classifier(saved(tmp_path / "ranker", labels=("LABEL_0",), problem_type=None), ("bad", "good"))
    AutoModelForTokenClassification.from_config(tiny.model("modernbert", 1).config).save_pretrained(tmp_path / "names")
    load_classifier(str(tmp_path / "names"), ("bad", "good"))
    said = [record.getMessage().partition(": ")[2] for record in caplog.records]
    assert said == [
        "its head for 2 labels (LABEL_0, LABEL_1) is not used; the task's labels are others",
        "its head for 1 label (score) is not used; the task has 2",
        "its head, of a ModernBertForTokenClassification, is not used",
    ]


def test_a_head_that_fits_and_a_model_without_one_need_no_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = saved(tmp_path / "m")
    assert torch.equal(load_classifier(source, LABELS).classifier.weight, load_trained(source).classifier.weight)
    save(tiny.masked_lm(), tiny.tokenizer(), tmp_path / "lm")
    load_classifier(str(tmp_path / "lm"), LABELS)
    assert not caplog.records


def test_a_model_of_one_number_is_no_classifier(tmp_path: Path) -> None:
    for config in ({"problem_type": None}, {"problem_type": "regression"}):
        loaded = load_trained(saved(tmp_path / "m", labels=("LABEL_0",), **config))
        assert labels_of(loaded.config) == ("score",)
        with pytest.raises(ModelError, match="m answers with one number, as rerankers and regressors do"):
            check_classifier(loaded.config, "m")
    with pytest.raises(ModelError, match="m answers with 3 numbers"):
        load_trained(saved(tmp_path / "m", problem_type="regression"))
    one = saved(tmp_path / "m", labels=("toxic",), problem_type="multi_label_classification")
    assert load_trained(one).config.num_labels == 1


def test_two_labels_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="m names two of its labels 'bad'; allowed"):
        load_trained(saved(tmp_path / "m", labels=("bad", "good", "bad")))


def test_a_model_with_another_head_is_no_classifier(tmp_path: Path) -> None:
    AutoModelForTokenClassification.from_config(tiny.model("modernbert", 1).config).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="is a ModernBertForTokenClassification, not a classifier of texts"):
        load_trained(str(tmp_path))


@pytest.mark.parametrize("kind", tiny.ARCHITECTURES)
def test_a_fine_tuned_model_keeps_its_answers_in_the_order_of_the_task(tmp_path: Path, kind: str) -> None:
    source = saved(tmp_path / "m", kind, problem_type=None)
    own, taken = load_trained(source), load_fine_tuned(source, ("so", "bad", "fine"), names={"good": "fine"})
    batch = tiny.batch()
    assert torch.equal(taken(**batch).logits, own(**batch).logits[:, [2, 0, 1]])
    assert taken.config.id2label == {0: "so", 1: "bad", 2: "fine"}
    assert taken.config.label2id == {"so": 0, "bad": 1, "fine": 2}
    assert taken.config.problem_type == "single_label_classification"


def test_a_fine_tuned_model_never_gets_a_new_head(tmp_path: Path) -> None:
    source = saved(tmp_path / "m")
    with pytest.raises(ModelError, match=r"has 3 labels \(bad, good, so\), the task 3 labels \(bad, good, nice\)"):
        load_fine_tuned(source, ("bad", "good", "nice"))
    with pytest.raises(ModelError, match="'single_label_classification', the task is of 'multi_label_classification'"):
        load_fine_tuned(source, LABELS, "multi_label")
