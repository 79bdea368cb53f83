"""Files of a domain experiment in small: `domain.yaml` has one variant, `variants.yaml` several."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForMaskedLM

import tiny

LANGUAGE_MODEL = """
name: lm
task: {{name: corpus, files: [{corpus}], held_out: 0.1}}
model: {{source: {model}, max_length: 16}}
baseline: {{epochs: 0.5, batch_size: 16, learning_rate: 1.0e-2}}
steps: {steps}
"""
THESEUS = "{method: theseus, modules: 2, training: {epochs: 0.5, batch_size: 16, learning_rate: 5.0e-3}}"
DOMAIN = """
name: small
language_model: {language_model}
contamination: drop
tasks:
  - name: mood
    task: {{name: table, train: {data}}}
    max_length: 32
    fine_tuning: {{epochs: 1, batch_size: 16, learning_rate: 1.0e-2, evaluations_per_epoch: 2}}
seeds: {seeds}
evaluation: {{bootstrap: 100, rounds: 3, threads: 1, onnx_baseline: false}}
{more}
"""
VARIANTS = """
variants:
  halved: {{steps: [{theseus}]}}
  plain: {{adapted: false}}
  plain-shallow: {{adapted: false, at_task: [{subset}]}}
  shallow: {{at_task: [{subset}]}}
prepare: [{{method: vocabulary, minimum_count: 2}}]
"""
SUBSET = "{method: layer_subset, layers: 1, training: {epochs: 1, batch_size: 16}}"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("domain")
    torch.manual_seed(0)
    AutoModelForMaskedLM.from_config(tiny.model().config).save_pretrained(folder / "source")
    tiny.tokenizer().save_pretrained(folder / "source")
    corpus = folder / "corpus.txt"
    corpus.write_text("\n\n".join(str(row["text"]) for row in tiny.rows(300)))
    for name, steps in (("lm.yaml", f"[{THESEUS}]"), ("bare.yaml", "[]")):
        filled = LANGUAGE_MODEL.format(corpus=corpus, model=folder / "source", steps=steps)
        (folder / name).write_text(filled)
    data, more = tiny.write_table(folder, 120), VARIANTS.format(theseus=THESEUS, subset=SUBSET)
    one = DOMAIN.format(language_model="lm.yaml", data=data, seeds=[1, 2], more="")
    several = DOMAIN.format(language_model="bare.yaml", data=data, seeds=[1], more=more)
    (folder / "domain.yaml").write_text(one)
    (folder / "variants.yaml").write_text(several)
    return folder
