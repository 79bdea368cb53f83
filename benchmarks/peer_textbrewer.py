"""Distillation beside TextBrewer (airaria, 2023), on equal terms: score on GermEval 2018 and seconds per step.

Both get the same teacher (a seed's fine-tuned baseline), the same student (its bottom six layers), the same batches in
the same order, AdamW with the same groups, learning rates and clipping, and the same loss: task, logits at a
temperature, and the mean squared error of hidden states on the uniform layer map, in fp32. TextBrewer leaves out T² and
sums over layers where plankwise averages, so its weights are multiplied and divided by that; its cross-entropy differs
from the divergence by a constant. Neither selects weights on the development split: the last ones count.

TextBrewer is not a dependency. Install it into a folder of its own; it runs unpatched on Transformers 5:

    pip install --no-deps --target peer textbrewer        # it also wants tqdm, and tensorboard or tensorboardX
    python benchmarks/peer_textbrewer.py --peer peer [--seeds 1 2 3] [--epochs 3] [--rounds 5] [--threads 1]
             [--data FOLDER] [--baselines FOLDER with baseline-SEED/baseline]

Seconds per step are from one loss to the next, loading of batches included, in rounds where both take turns; `bf16` is
plankwise's own default on machines that multiply it, which TextBrewer has no switch for. The last line is one JSON
document.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainerCallback,
    get_linear_schedule_with_warmup,
)

from plankwise.core.hardware import environment, fixed_threads
from plankwise.core.seeds import mix_seed
from plankwise.data.batching.examples import Collator, encode, lengths_of
from plankwise.data.batching.inputs import Batch
from plankwise.data.task import TEST, TRAIN, Task
from plankwise.data.tasks.germeval import GermEval2018
from plankwise.data.truncation import Truncation
from plankwise.encoder.anatomy import layers_of
from plankwise.encoder.checkpoint import load_trained
from plankwise.encoder.surgery import rebuild
from plankwise.encoder.tokenizer import load_tokenizer
from plankwise.evaluation.comparison import Pair, retained_performance
from plankwise.evaluation.intervals import score_interval
from plankwise.methods.distillation import Distillation, Student
from plankwise.methods.method import Job
from plankwise.training.distillation.config import DistillationConfig
from plankwise.training.distillation.layer_mapping import hidden_pairs
from plankwise.training.fit import Training, planned_steps
from plankwise.training.objectives.registry import objective_of
from plankwise.training.prediction import predict
from plankwise.training.trainer import LengthGrouped
from results import ROOT, parser_of
from workbench import SHARED

LAYERS, METRIC, RESAMPLES = 6, "macro_f1", 4000
STEPS = 15  # in a timed round; the first only starts the clock
TEACHER = DistillationConfig(task=0.5, logits=0.5, temperature=2.0, hidden=0.5, layer_map="uniform", cache="none")
TRUNCATION = Truncation(max_length=128)
Clock = list[float]


@dataclass(frozen=True)
class Side:
    """The inputs of both sides.

    Attributes:
        task: with all its splits; the test split is read at the end alone.
        teacher: fine-tuned.
        tokenizer: of teacher and student.
        training: settings.
        seed: of batches and dropout.
    """

    task: Task
    teacher: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    training: Training
    seed: int


class Batches:
    """The batches of `fit`, in its order: an iteration is an epoch."""

    def __init__(self, side: Side) -> None:
        self._examples = encode(side.task.splits[TRAIN], side.tokenizer, TRUNCATION)
        self._collate, self._size, self._epoch = Collator(side.tokenizer), side.training.batch_size, 0
        self._order = LengthGrouped(lengths_of(self._examples), self._size, side.seed)

    def __iter__(self) -> Iterator[Batch]:
        self._order.set_epoch(self._epoch)
        self._epoch += 1
        indices = list(self._order)
        for start in range(0, len(indices), self._size):
            yield self._collate([self._examples[index] for index in indices[start : start + self._size]])


class ReadsClock(TrainerCallback):  # type: ignore[misc]
    """Reads the clock at the beginning of each step."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Append the time."""
        self._clock.append(time.perf_counter())


def by_plankwise(side: Side, clock: Clock) -> PreTrainedModel:
    """Distil by plankwise, as a run would; the clock is read at each step."""
    settings = Distillation(student=Student(layers=LAYERS, keep="bottom"), teacher=TEACHER, training=side.training)
    with tempfile.TemporaryDirectory() as folder:
        job = Job(
            task=side.task.without_test(),
            tokenizer=side.tokenizer,
            truncation=TRUNCATION,
            objective=objective_of(side.task.kind),
            callbacks=(ReadsClock(clock),),
            seed=side.seed,
            folder=Path(folder),
        )
        return settings.compress(side.teacher, job).model


def by_textbrewer(side: Side, clock: Clock) -> PreTrainedModel:
    """Distil with TextBrewer's GeneralDistiller; the clock is read where its adaptor gets the student's outputs."""
    student = rebuild(side.teacher, [(layer,) for layer in range(LAYERS)]).train()
    steps = planned_steps(len(side.task.splits[TRAIN]), side.training)
    schedule = {"num_warmup_steps": round(side.training.warmup * steps), "num_training_steps": steps}

    def adapted(batch: Batch, outputs: Any) -> dict[str, Any]:
        mask = batch["attention_mask"]
        return {"logits": outputs.logits, "hidden": outputs.hidden_states, "inputs_mask": mask, "losses": outputs.loss}

    def clocked(batch: Batch, outputs: Any) -> dict[str, Any]:
        clock.append(time.perf_counter())
        return adapted(batch, outputs)

    torch.manual_seed(side.seed)
    with tempfile.TemporaryDirectory() as folder:
        distiller = _distiller(side, student, folder, steps, adapted, clocked)
        with distiller:
            distiller.train(
                _optimizer(student, side.training),
                Batches(side),
                num_steps=steps,
                scheduler_class=get_linear_schedule_with_warmup,
                scheduler_args=schedule,
                max_grad_norm=side.training.max_grad_norm,
                output_hidden_states=True,
            )
    return student.eval()


def _distiller(side: Side, student: PreTrainedModel, folder: str, steps: int, of_teacher: Any, of_student: Any) -> Any:
    peer = importlib.import_module("textbrewer")
    pairs = hidden_pairs(TEACHER, LAYERS, len(layers_of(side.teacher)))
    matches = [  # hidden state 0 is that of the embeddings, hence + 1
        {
            "layer_S": mine + 1,
            "layer_T": theirs + 1,
            "feature": "hidden",
            "loss": "hidden_mse",
            "weight": TEACHER.hidden / len(pairs),
        }
        for mine, theirs in pairs
    ]
    distillation = peer.DistillationConfig(
        temperature=TEACHER.temperature,
        kd_loss_type="ce",
        kd_loss_weight=TEACHER.logits * TEACHER.temperature**2,
        hard_label_weight=TEACHER.task,
        intermediate_matches=matches,
    )
    training = peer.TrainingConfig(device="cpu", output_dir=folder, log_dir=None, ckpt_steps=steps)
    return peer.GeneralDistiller(training, distillation, side.teacher, student, of_teacher, of_student)


def _optimizer(student: nn.Module, training: Training) -> torch.optim.Optimizer:
    """AdamW as the Trainer makes it: fused, no decay of biases and norms."""
    matrices = [value for value in student.parameters() if value.ndim > 1]
    vectors = [value for value in student.parameters() if value.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": training.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=training.learning_rate, fused=True)


def scored(side: Side) -> Pair:
    """Train both sides and return their logits on the test split, with TextBrewer in the place of the baseline."""
    peer, own = (
        predict(train(side, []), side.tokenizer, side.task, TEST, TRUNCATION) for train in (by_textbrewer, by_plankwise)
    )
    return Pair(peer.labels, peer.logits, own.logits)


def timed(side: Side, rounds: int) -> dict[str, list[float]]:
    """Return the seconds per step of each round, in turns and in alternating order, after one untimed round.

    `core.timing` times whole calls; here a call also builds a student and its batches, so the clock is read at the
    losses instead.
    """
    few = (STEPS - 0.5) / math.ceil(len(side.task.splits[TRAIN]) / side.training.batch_size)
    short = replace(side, training=replace(side.training, epochs=few))
    bf16 = replace(short, training=replace(short.training, precision="bf16"))
    variants: dict[str, tuple[Callable[[Side, Clock], PreTrainedModel], Side]] = {
        "textbrewer": (by_textbrewer, short),
        "plankwise": (by_plankwise, short),
        "plankwise_bf16": (by_plankwise, bf16),
    }
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(rounds + 1):
        for name in list(variants)[:: 1 if number % 2 else -1]:
            train, given = variants[name]
            clock: Clock = []
            train(given, clock)
            if number:
                seconds[name].append((clock[-1] - clock[0]) / (len(clock) - 1))
    return seconds


def result_of(pairs: list[Pair], seconds: dict[str, list[float]]) -> dict[str, Any]:
    labels, peer, own = zip(*((pair.labels, pair.baseline, pair.compressed) for pair in pairs), strict=True)
    over = retained_performance(pairs, METRIC, RESAMPLES)
    assert over is not None
    ratios = {name: [a / b for a, b in zip(seconds["textbrewer"], each, strict=True)] for name, each in seconds.items()}
    return {
        "score": {
            name: score_interval(labels, each, METRIC, RESAMPLES).model_dump()
            for name, each in {"textbrewer": peer, "plankwise": own}.items()
        },
        "plankwise_over_textbrewer": over.model_dump(),
        "seconds_per_step": {name: statistics.median(each) for name, each in seconds.items()},
        "faster_than_textbrewer": {
            name: {"value": statistics.median(each), "low": min(each), "high": max(each)}
            for name, each in ratios.items()
            if name != "textbrewer"
        },
    }


def side_of(arguments: argparse.Namespace, task: Task, seed: int) -> Side:
    folder = arguments.baselines / f"baseline-{seed}" / "baseline"
    training = Training(epochs=arguments.epochs, batch_size=32, learning_rate=1.5e-4, keep="last", precision="fp32")
    return Side(task, load_trained(str(folder)), load_tokenizer(str(folder)), training, mix_seed(seed, "peer"))


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--peer", type=Path, default=ROOT / "peer", help="folder that TextBrewer was installed into")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--epochs", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--data", type=Path, default=SHARED / "data/germeval2018")
    parser.add_argument("--baselines", type=Path, default=ROOT / "runs" / "germeval2018")
    arguments = parser.parse_args()
    sys.path.insert(0, str(arguments.peer.resolve()))
    task = GermEval2018(path=arguments.data).load()
    sides = [side_of(arguments, task, seed) for seed in arguments.seeds]
    with fixed_threads(arguments.threads):
        result = result_of([scored(side) for side in sides], timed(sides[0], arguments.rounds))
    steps = planned_steps(len(task.splits[TRAIN]), sides[0].training)
    about = {"seeds": arguments.seeds, "steps": steps, "rounds": arguments.rounds, "threads": arguments.threads}
    print(json.dumps({**result, **about, "environment": environment()}))


if __name__ == "__main__":
    main()
