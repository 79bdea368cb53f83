"""Folders that other tools leave: one line each, or put right and said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny
from plankwise.core.errors import ModelError
from plankwise.encoder.checkpoint import load_classifier, load_config, load_masked_lm, load_trained


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tiny.save_source(tmp_path / "source", layers=2)


def edit(source: Path, **changes: Any) -> None:
    path = source / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("told", "by"),
    [
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "bitsandbytes"),
        ({"quant_method": "gptq", "bits": 4}, "gptq"),
        ({"quant_method": "torchao", "quant_type": {}}, "torchao"),
        ({"load_in_4bit": True}, "another tool"),
    ],
)
def test_quantized_weights_are_refused_by_name(source: Path, told: dict[str, Any], by: str) -> None:
    edit(source, quantization_config=told)
    with pytest.raises(ModelError, match=rf"source were quantized by {by} \(quantization_config\); allowed: floating"):
        load_config(str(source))


def test_a_quantized_folder_is_known_by_its_files_too(source: Path) -> None:
    weights = load_file(source / "model.safetensors")
    name = "bert.encoder.layer.1.output.dense.weight"
    save_file({**weights, name: weights[name].to(torch.int8)}, source / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=rf"{name} is quantized, to I8; allowed: floating-point weights"):
        load_trained(str(source))
    (source / "quantize_config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"quantized by another tool \(quantize_config.json\)"):
        load_config(str(source))


def test_an_attention_that_is_not_there_is_replaced_and_that_is_said(
    source: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = load_trained(str(source))(**tiny.batch()).logits
    edit(source, _attn_implementation="flash_attention_2")
    loaded = load_trained(str(source))
    assert torch.equal(loaded(**tiny.batch()).logits, expected)
    assert loaded.config._attn_implementation == "sdpa"
    load_config(str(source))
    assert [record.getMessage().partition("source ")[2] for record in caplog.records] == [
        "requests the attention 'flash_attention_2'; the default of Transformers, sdpa or eager, is used"
    ]


def test_code_of_its_own_is_not_run_unless_transformers_holds_it(source: Path) -> None:
    edit(source, auto_map={"AutoModel": "modeling_bert.BertModel", "AutoConfig": "some/one--configuration.BertConfig"})
    load_config(str(source))
    edit(source, auto_map={"AutoModel": "modeling.JinaBertModel"}, model_type="unheard-of")
    with pytest.raises(ModelError, match=r"the model of .* needs code of its own .* names JinaBertModel"):
        load_config(str(source))
    edit(source, auto_map={"AutoConfig": "Alibaba-NLP/new-impl--configuration.NewConfig"}, model_type="new")
    with pytest.raises(ModelError, match="such as the same one converted to its architecture 'gte'"):
        load_config(str(source))


class TestUnusedWeights:
    @pytest.mark.parametrize("kind", tiny.ARCHITECTURES)
    def test_more_layers_than_the_configuration_are_refused(self, tmp_path: Path, kind: str) -> None:
        source = tiny.save_source(tmp_path / "m", kind, 3)
        key, types = ("n_layers" if kind == "distilbert" else "num_hidden_layers"), {}
        stored = json.loads((source / "config.json").read_text())
        if "layer_types" in stored:
            types = {"layer_types": stored["layer_types"][:2]}
        edit(source, **{key: 2}, **types)
        for load in (load_trained, load_masked_lm, lambda place: load_classifier(place, ("a", "b", "c"))):
            with pytest.raises(ModelError, match=rf"hold .*2\..* more that its .* has no place for, with {key} 2"):
                load(str(source))

    def test_of_an_encoder_saved_alone_as_well(self, tmp_path: Path) -> None:
        tiny.model(layers=3).base_model.save_pretrained(tmp_path)
        edit(tmp_path, num_hidden_layers=2)
        with pytest.raises(ModelError, match=r"hold encoder.layer.2.* no place for"):
            load_classifier(str(tmp_path), ("a", "b"))

    def test_other_weights_of_the_encoder_are_said_and_heads_and_counters_are_not(
        self, source: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        weights = load_file(source / "model.safetensors")
        weights |= {"bert.embeddings.position_ids": torch.arange(72), "cls.predictions.bias": torch.zeros(48)}
        save_file(weights, source / "model.safetensors", {"format": "pt"})
        load_trained(str(source))
        assert not caplog.records
        save_file({**weights, "bert.embeddings.gate": torch.ones(2)}, source / "model.safetensors", {"format": "pt"})
        load_trained(str(source))
        assert "embeddings.gate and 0 more weights of its encoder are not used" in caplog.text
