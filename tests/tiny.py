"""Tiny random models of every supported architecture, a tiny tokenizer and a tiny learnable task, made on the spot."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    TrainerCallback,
)

from plankwise import cli
from plankwise.data.task import LabelledText, Task, build_task
from plankwise.data.truncation import Truncation
from plankwise.methods.method import Job, ModelSpec
from plankwise.training.objectives.registry import objective_of

GOOD = ["fine", "lovely", "sweet", "bright", "kind", "warm"]
BAD = ["awful", "nasty", "grim", "bitter", "cruel", "cold"]
PLAIN = [
    "the",
    "a",
    "day",
    "house",
    "tree",
    "walk",
    "river",
    "stone",
    "under",
    "over",
    "with",
    "without",
    "again",
    "never",
    "often",
]
LABELS = ("bad", "good")
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]

SIZES: dict[str, dict[str, Any]] = {
    "bert": {},
    "roberta": {"type_vocab_size": 1},
    "xlm-roberta": {"type_vocab_size": 1},
    "camembert": {"type_vocab_size": 1},
    "distilbert": {"dim": 16, "n_heads": 2, "hidden_dim": 32},
    "electra": {"embedding_size": 8},
    "mpnet": {},
    "deberta-v2": {
        "relative_attention": True,
        "position_buckets": 8,
        "pos_att_type": ["p2c", "c2p"],
        "norm_rel_ebd": "layer_norm",
        "conv_kernel_size": 3,
        "type_vocab_size": 0,
    },
    "modernbert": {"local_attention": 8, "cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3},
    "eurobert": {"num_key_value_heads": 1, "head_dim": 8, "bos_token_id": 2, "eos_token_id": 3, "mask_token_id": 4},
    "ernie": {},
    "rembert": {"input_embedding_size": 8, "output_embedding_size": 8},
    "gte": {},
    "nomic_bert": {},
    "jina_embeddings_v3": {"type_vocab_size": 1},
}
ARCHITECTURES = tuple(kind for kind in SIZES if kind in CONFIG_MAPPING)  # older versions of Transformers lack the last
SAME = ("xlm-roberta", "camembert", "ernie", "nomic_bert")  # RoBERTa's structure, BERT's, GTE's without biases
STRUCTURES = tuple(kind for kind in ARCHITECTURES if kind not in SAME)
FOUR_HEADS: dict[str, dict[str, Any]] = {
    **{kind: {"num_attention_heads": 4} for kind in ARCHITECTURES},
    "distilbert": {"n_heads": 4},
    "eurobert": {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4},
}


def tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {word: index for index, word in enumerate([*SPECIAL, *GOOD, *BAD, *PLAIN])}
    model = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    model.normalizer = normalizers.Lowercase()
    model.pre_tokenizer = pre_tokenizers.Whitespace()
    model.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    }
    made = PreTrainedTokenizerFast(tokenizer_object=model, model_max_length=64, **names)
    made.model_input_names = ["input_ids", "attention_mask"]
    return made


def model(kind: str = "bert", layers: int = 4, labels: int = 2, seed: int = 0, **changes: Any) -> PreTrainedModel:
    """Build a model of width 16; its parameters are jittered, so that no two layers are alike."""
    common = {
        "vocab_size": 48,
        "hidden_size": 16,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 72,
        "pad_token_id": 0,
        "num_hidden_layers": layers,
    }
    if kind == "distilbert":
        common = {key: common[key] for key in ("vocab_size", "max_position_embeddings", "pad_token_id")}
        common["n_layers"] = layers
    config = AutoConfig.for_model(kind, **{**common, **SIZES[kind], **changes})
    config.num_labels = labels
    config.problem_type = "single_label_classification"
    return _jittered(AutoModelForSequenceClassification, config, seed)


def masked_lm(kind: str = "bert", layers: int = 2, seed: int = 0, **changes: Any) -> PreTrainedModel:
    """Build the same with a masked-LM head."""
    return _jittered(AutoModelForMaskedLM, model(kind, layers, **changes).config, seed)


def _jittered(factory: Any, config: PreTrainedConfig, seed: int) -> PreTrainedModel:
    torch.manual_seed(seed)
    made: PreTrainedModel = factory.from_config(config)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return made.eval()


def rows(count: int, seed: int = 0) -> list[LabelledText]:
    """Sentences whose label says whether they hold more kind words or more unkind ones."""
    draw = random.Random(seed)
    made: list[LabelledText] = []
    for number in range(count):
        good = draw.random() < 0.5
        words = draw.choices(PLAIN, k=draw.randint(2, 9)) + draw.choices(GOOD if good else BAD, k=draw.randint(1, 3))
        draw.shuffle(words)
        made.append({"id": f"{seed}-{number}", "text": " ".join(words), "label": "good" if good else "bad"})
    return made


def task(train: int = 96, other: int = 32) -> Task:
    splits = {"train": rows(train, 1), "development": rows(other, 2), "test": rows(other, 3)}
    return build_task("tiny", splits, ("macro_f1", "accuracy"))


def job(folder: Path, **changes: Any) -> Job:
    """Make a job on the tiny task; its objective is that of the task."""
    made = {"tokenizer": tokenizer(), "truncation": Truncation(max_length=32), "seed": 1, "folder": folder, **changes}
    of = made.setdefault("task", task().without_test())
    made.setdefault("objective", objective_of(of.kind))
    return Job(**made)


class Kill(TrainerCallback):  # type: ignore[misc]
    """Interrupts the process in the second half of the training whose folder has this name."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if Path(args.output_dir).name == self._folder and state.global_step > state.max_steps / 2:
            raise KeyboardInterrupt


def spec(of: PreTrainedModel | PreTrainedConfig | None = None, kind: str = "single_label", **changes: Any) -> ModelSpec:
    """Describe a model of the tiny tokenizer before it is loaded; the tiny one by default."""
    config = (model() if of is None else of).config if not isinstance(of, PreTrainedConfig) else of
    return ModelSpec(**{"config": config, "tokenizer": tokenizer(), "objective": objective_of(kind), **changes})


def batch(size: int = 4, length: int = 12, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, 32, (size, length), generator=generator)
    mask = torch.ones_like(ids)
    mask[0, length // 2 :] = 0
    ids[mask == 0] = 0
    return {"input_ids": ids, "attention_mask": mask}


def hooks_of(model: PreTrainedModel) -> int:
    """Count the forward hooks on all modules."""
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in model.modules())


def write_table(folder: Path, count: int = 120) -> Path:
    path = folder / "data.csv"
    lines = ["text,label", *(f"{row['text']},{row['label']}" for row in rows(count))]
    path.write_text("\n".join(lines) + "\n")
    return path


def save_source(folder: Path, kind: str = "bert", layers: int = 4) -> Path:
    """Save a tiny model, whose head knows the labels of `rows`, and tokenizer as a checkpoint to compress."""
    made = model(kind, layers)
    made.config.id2label, made.config.label2id = dict(enumerate(LABELS)), {name: at for at, name in enumerate(LABELS)}
    made.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Run the command line in this process and give its exit code."""
    monkeypatch.setattr(sys, "argv", ["plankwise", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(end.value.code or 0)
