"""What compressing a language model costs, step by step, and how much faster fine-tuning the result is.

Random weights, AdamW, the training's own precision (bf16 autocast where that is native), all variants in turns in
every round. Two geometries: BERT-base, and the small one of recipes/bundestag_lm.yaml. The last line is one JSON
object; for each geometry the medians of

- compression_over_plain: a Theseus step on the masked-LM objective (12 → 6 layers, embeddings and head trained too,
  replacement rates of the linear schedule) / a step of plain masked-LM training of all 12 layers
- fine_tuning_speedup: a fine-tuning step of 12 layers / one of the 6 layers that came out, on short texts

Usage: python benchmarks/domain_step.py [--rounds 5]
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForMaskedLM, BertConfig, PreTrainedModel

from plankwise.core.hardware import bf16_is_fast, environment
from plankwise.core.schedules import linear
from plankwise.encoder.surgery import rebuild
from plankwise.methods.layer_init import contiguous_modules, sources_of
from plankwise.methods.module_replacing import Replacing
from plankwise.methods.theseus import Theseus
from results import parser_of
from workbench import Step, bert_classifier, medians, repeated, seconds_per_step, step_ratio, training_step, with_draws

DRAWS = 6  # Theseus steps in a round, spread over the whole schedule
PLAIN = 2
MASKED = 0.15


@dataclass(frozen=True)
class Geometry:
    """Sizes of a model and of its batches."""

    config: BertConfig
    blocks: tuple[int, int]  # batch and tokens of language-model training
    texts: tuple[int, int]  # of fine-tuning


GEOMETRIES = {
    "bert_base": Geometry(BertConfig(), (8, 128), (8, 64)),
    "mini": Geometry(
        BertConfig(vocab_size=16000, hidden_size=128, num_attention_heads=2, intermediate_size=512), (32, 128), (32, 40)
    ),
}


def batch_of(shape: tuple[int, int], vocabulary: int) -> dict[str, Tensor]:
    ids = torch.randint(1000, vocabulary, shape, generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def masked_lm(config: BertConfig) -> PreTrainedModel:
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForMaskedLM.from_config(config)
    return model.train()


def masked_step(network: PreTrainedModel, geometry: Geometry, bf16: bool) -> Step:
    inputs = batch_of(geometry.blocks, geometry.config.vocab_size)
    chosen = torch.rand(geometry.blocks, generator=torch.Generator().manual_seed(1)) < MASKED

    def only_masked(module: Any, args: Any, output: Any) -> Any:
        output["last_hidden_state"] = output["last_hidden_state"][chosen]
        return output

    network.base_model.register_forward_hook(only_masked)
    return training_step(network, inputs, inputs["input_ids"][chosen], bf16)


def plain_round(geometry: Geometry, bf16: bool) -> Step:
    step = masked_step(masked_lm(geometry.config), geometry, bf16)
    return repeated(step, PLAIN)


def theseus_round(geometry: Geometry, bf16: bool) -> Step:
    model = masked_lm(geometry.config)
    settings = Theseus(modules=6, train_embeddings=True)
    successor = rebuild(model, sources_of(contiguous_modules(12, 6), settings.initialization))
    network, gates = settings.assemble(model, successor)
    step = masked_step(network.train(), geometry, bf16)
    replacing = Replacing(linear(settings.start, settings.full_at), gates, seed=0, mode="replace")
    return with_draws(step, replacing, DRAWS)


def fine_tuning_round(geometry: Geometry, layers: int, bf16: bool) -> Step:
    names = ("vocab_size", "hidden_size", "num_attention_heads", "intermediate_size")
    sizes = {name: getattr(geometry.config, name) for name in names}
    model = bert_classifier(num_hidden_layers=layers, **sizes).train()
    inputs = batch_of(geometry.texts, geometry.config.vocab_size)
    step = training_step(model, inputs, torch.zeros(geometry.texts[0], dtype=torch.long), bf16)
    return repeated(step, PLAIN)


def measure(geometry: Geometry, rounds: int, bf16: bool) -> dict[str, Any]:
    """Time all variants of one geometry in turns and return the medians and ratios."""
    variants = {
        "plain": (plain_round(geometry, bf16), PLAIN),
        "compression": (theseus_round(geometry, bf16), DRAWS),
        "fine_tuning_12": (fine_tuning_round(geometry, 12, bf16), PLAIN),
        "fine_tuning_6": (fine_tuning_round(geometry, 6, bf16), PLAIN),
    }
    seconds = seconds_per_step(variants, rounds)
    return {
        "compression_over_plain": step_ratio(seconds, "compression", "plain"),
        "fine_tuning_speedup": step_ratio(seconds, "fine_tuning_12", "fine_tuning_6"),
        "seconds_per_step": medians(seconds),
    }


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    bf16 = bf16_is_fast(torch.device("cpu"))
    result: dict[str, Any] = {name: measure(each, arguments.rounds, bf16) for name, each in GEOMETRIES.items()}
    print(json.dumps({**result, "bf16": bf16, "rounds": arguments.rounds, "environment": environment()}))


if __name__ == "__main__":
    main()
