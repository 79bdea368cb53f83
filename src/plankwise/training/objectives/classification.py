"""Classification of texts and pairs: one label each, or any number."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from typing_extensions import Self

from plankwise.core.errors import ModelError
from plankwise.core.seeds import mix_seed
from plankwise.core.texts_read import TextsRead
from plankwise.data.batching.examples import (
    Collator,
    Example,
    encode,
    encode_and_count,
    flatten,
    lengths_of,
    token_budget_batches,
)
from plankwise.data.batching.inputs import Batch, log_texts_read
from plankwise.data.task import DEVELOPMENT, TRAIN, Task
from plankwise.data.truncation import Pooling
from plankwise.encoder.checkpoint import load_classifier, load_trained
from plankwise.encoder.classifier_head import check_classifier
from plankwise.encoder.shapes import new_model
from plankwise.evaluation.metrics import METRICS
from plankwise.training.distillation.losses import Form, logits_loss
from plankwise.training.objectives.losses import Loss, balanced_weights, over_windows, task_loss
from plankwise.training.objectives.masking import Masking
from plankwise.training.objectives.objective import Distill, FewRows, Job, Objective, Sample, Scored
from plankwise.training.objectives.settings import ObjectiveSettings
from plankwise.training.prediction import predict, predict_logits, warn_of_one_answer
from plankwise.training.trainer import LengthGrouped, TrainingData

logger = logging.getLogger(__name__)
SAMPLE_TOKENS = 2048  # of a batch that a method observes a model on, padding included
SAMPLED_TEXTS = 2000  # whose lengths stand for those of all


@dataclass(frozen=True)
class _Classification(Objective):
    """What the two kinds of classification share."""

    class_weights: Literal["none", "balanced"] = "none"

    @classmethod
    def from_settings(cls, settings: ObjectiveSettings, masking: Masking) -> Self:
        """Make the objective of a recipe's settings."""
        return cls(settings.class_weights)

    def load(self, source: str, labels: Sequence[str], new_head: bool = True) -> PreTrainedModel:
        """Load an encoder with a classification head; labels are matched by name, as `load_classifier` says."""
        return load_classifier(source, labels, self.kind)

    def load_trained(self, folder: str) -> PreTrainedModel:
        """Load a fine-tuned classifier exactly as it was saved."""
        return load_trained(folder)

    def new_model(self, config: PreTrainedConfig, labels: Sequence[str]) -> PreTrainedModel:
        """Build a classifier with random weights from the current torch seed."""
        config = copy.deepcopy(config)
        config.num_labels = len(labels)
        made: PreTrainedModel = new_model(AutoModelForSequenceClassification._model_mapping[type(config)], config)
        return made

    def check_tokenizer(self, tokenizer: PreTrainedTokenizerBase, source: str) -> None:
        """Refuse a tokenizer that cannot pad."""
        if tokenizer.pad_token_id is None:
            raise ModelError(
                f"the tokenizer of {source} has no pad_token; texts of different lengths cannot share a batch"
            )

    def check_teacher(self, config: PreTrainedConfig, source: str) -> None:
        """Refuse a teacher that is no classifier."""
        check_classifier(config, source)

    def loss(self, task: Task) -> Loss:
        """Make the cross-entropy of the task, its classes weighed as the settings say."""
        if self.class_weights == "none":
            return task_loss(self.kind)
        labels = task.splits[TRAIN]["label"][:]
        return task_loss(self.kind, balanced_weights(labels, self.kind, len(task.labels)))

    def logits_loss(self, student: Tensor, teacher: Tensor, temperature: float, form: Form = "kl") -> Tensor:
        """Compute the divergence of the student's probabilities from the teacher's, or the error of its logits."""
        return logits_loss(student, teacher, self.kind, temperature, form)

    @contextmanager
    def training_data(
        self, model: PreTrainedModel, job: Job, distill: Distill
    ) -> Iterator[tuple[TrainingData, dict[str, TextsRead]]]:
        """Encode both splits; the first metric on development selects the weights."""
        examples, read = encode_and_count(job.task.splits[TRAIN], job.tokenizer, job.truncation)
        development, also_read = encode_and_count(job.task.splits[DEVELOPMENT], job.tokenizer, job.truncation)
        texts_read = {TRAIN: read, DEVELOPMENT: also_read}
        for split, each in texts_read.items():
            log_texts_read(f"{job.folder.name}, {split}", each)
        labels = job.task.splits[DEVELOPMENT].with_format("numpy")["label"][:]
        metric, pooling = METRICS[job.task.metrics[0]], _pooling(job)

        def evaluate(current: PreTrainedModel) -> float:
            logits = predict_logits(current, job.tokenizer, development, pooling)
            warn_of_one_answer(labels, logits, job.task, DEVELOPMENT)
            return metric(labels, logits)

        with distill(examples) as taught:
            yield (
                TrainingData(
                    [{**each, "example": at} for at, each in enumerate(examples)] if taught.numbered else examples,
                    Collator(job.tokenizer),
                    taught.loss if pooling is None else over_windows(taught.loss, pooling),
                    evaluate=evaluate,
                ),
                texts_read,
            )

    @contextmanager
    def sample(
        self, model: PreTrainedModel, job: Job, examples: int, *, loss: Loss | None = None, tokens: int | None = None
    ) -> Iterator[Sample]:
        """Draw texts; of several windows of a text the loss sees the pooled logits."""
        own, pooling = self.loss(job.task) if loss is None else loss, _pooling(job)
        rows = encode(drawn(job.task.splits[TRAIN], job, examples), job.tokenizer, job.truncation)
        if tokens is not None:
            rows = rows[: max(1, int(np.searchsorted(np.cumsum(lengths_of(rows)), tokens, side="right")))]
        collate = Collator(job.tokenizer)
        # Windows of a text share a batch, so that a text counts with all of them at the length of the longest.
        longest = [max(lengths_of(flatten([row])[0])) * len(row.get("windows", [row])) for row in rows]
        groups = token_budget_batches(longest, SAMPLE_TOKENS)

        def batches() -> Iterator[Batch]:
            for group in groups:
                yield {name: value.to(model.device) for name, value in collate([rows[at] for at in group]).items()}

        yield Sample(batches, own if pooling is None else over_windows(own, pooling), len(rows))

    def score(self, model: PreTrainedModel, job: Job, split: str) -> Scored:
        """Compute all metrics of the task."""
        found = predict(model, job.tokenizer, job.task, split, job.truncation)
        return Scored(found.scores(job.task.metrics), found.read)

    def count_examples(self, job: Job) -> int:
        """Count the texts of train."""
        return len(job.task.splits[TRAIN])

    def few_rows(self, job: Job, *, batch_size: int, batches: int, examples: int) -> FewRows:
        """Choose the batches whose padded tokens are nearest to the mean of all batches."""
        train = job.task.splits[TRAIN].shuffle(seed=0)
        some = train.select(range(min(len(train), SAMPLED_TEXTS)))
        chosen, scale = usual_rows(encode(some, job.tokenizer, job.truncation), batch_size, batches)
        return FewRows(some.select(chosen), development=2, scale=scale)


@dataclass(frozen=True)
class SingleLabel(_Classification):
    """One label for each text."""

    kind: ClassVar[str] = "single_label"

    def own_label_loss(self, generator: torch.Generator) -> Loss:
        """Draw each text's class from the softmax."""

        def loss(outputs: Any, batch: Mapping[str, Tensor]) -> Tensor:
            logits = outputs.logits.float()
            chosen = torch.multinomial(torch.softmax(logits.detach(), dim=-1), 1, generator=generator)[:, 0]
            return functional.cross_entropy(logits, chosen)

        return loss


@dataclass(frozen=True)
class MultiLabel(_Classification):
    """Any number of labels for each text."""

    kind: ClassVar[str] = "multi_label"

    def own_label_loss(self, generator: torch.Generator) -> Loss:
        """Draw each text's labels one by one, from their sigmoids."""

        def loss(outputs: Any, batch: Mapping[str, Tensor]) -> Tensor:
            logits = outputs.logits.float()
            drawn_labels = torch.bernoulli(torch.sigmoid(logits.detach()), generator=generator)
            summed = functional.binary_cross_entropy_with_logits(logits, drawn_labels, reduction="sum")
            return summed / len(logits)

        return loss


def drawn(rows: Dataset, job: Job, examples: int) -> Dataset:
    """Draw up to `examples` rows by the job's seed."""
    draw = np.random.default_rng(mix_seed(job.seed, "sample"))
    return rows.select(draw.permutation(len(rows))[:examples])


def usual_rows(examples: Sequence[Example], batch_size: int, batches: int) -> tuple[list[int], float]:
    """Choose rows that make up batches of about the mean number of padded tokens, as training would batch them.

    Returns:
        The rows, and how many times as many tokens the mean batch has: where texts are short or long, none is near it.
    """
    lengths = lengths_of(examples)
    order = list(LengthGrouped(lengths, batch_size, seed=0))
    grouped = [order[at : at + batch_size] for at in range(0, len(order), batch_size)]
    padded = [len(batch) * max(lengths[row] for row in batch) for batch in grouped]
    mean = sum(padded) / len(padded)
    nearest = sorted(range(len(grouped)), key=lambda at: abs(padded[at] - mean))[:batches]
    return [row for at in nearest for row in grouped[at]], mean * len(nearest) / sum(padded[at] for at in nearest)


def _pooling(job: Job) -> Pooling | None:
    return None if job.truncation.windows is None else job.truncation.windows.pooling
