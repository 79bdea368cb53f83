"""Objectives on texts and pairs of texts that are truncated one by one: everything but head, loss and metrics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from plankwise.core.errors import ModelError
from plankwise.core.seeds import mix_seed
from plankwise.data.batching.examples import (
    Collator,
    Example,
    encode,
    encode_and_count,
    flatten,
    lengths_of,
)
from plankwise.data.batching.inputs import Batch, log_texts_read
from plankwise.data.batching.token_budget import token_budget_batches
from plankwise.data.task import DEVELOPMENT, TRAIN, Task
from plankwise.data.truncation import Pooling
from plankwise.evaluation.metrics import METRICS, Array, Floats
from plankwise.training.objectives.losses import Loss, over_windows
from plankwise.training.objectives.objective import Distill, FewRows, Job, Objective, Prepared, Sample, Scored
from plankwise.training.prediction import predict_logits, warn_of_one_answer
from plankwise.training.trainer import LengthGrouped, TrainingData

SAMPLE_TOKENS = 2048  # of a batch that a method observes a model on, padding included
SAMPLED_TEXTS = 2000  # whose lengths stand for those of all


@dataclass(frozen=True)
class TextObjective(Objective):
    """Texts in, one row of logits for each out, and a label beside it."""

    def metrics(self, labels: Array, logits: Floats, names: Sequence[str]) -> dict[str, float]:
        """Compute the named metrics; up is better.

        Args:
            labels: of a split, [examples, ...].
            logits: [examples, outputs].
            names: among the task's metrics.
        """
        return {name: METRICS[name](labels, logits) for name in names}

    def losses(self, labels: Array, logits: Floats) -> dict[str, float]:
        """Compute what is scored beside the metrics, by names that end in `_loss`; down is better."""
        del labels, logits
        return {}

    def check_predictions(self, labels: Array, logits: Floats, task: Task, split: str) -> None:
        """Warn of predictions that are worth nothing, whatever their score: the same for all texts."""
        warn_of_one_answer(labels, logits, task, split)

    def check_tokenizer(self, tokenizer: PreTrainedTokenizerBase, source: str) -> None:
        """Refuse a tokenizer that cannot pad."""
        if tokenizer.pad_token_id is None:
            raise ModelError(
                f"the tokenizer of {source} has no pad_token; texts of different lengths cannot share a batch"
            )

    @contextmanager
    def training_data(self, model: PreTrainedModel, job: Job, distill: Distill) -> Iterator[Prepared]:
        """Encode both splits; the first metric on development selects the weights."""
        examples, read = encode_and_count(job.task.splits[TRAIN], job.tokenizer, job.truncation)
        development, also_read = encode_and_count(job.task.splits[DEVELOPMENT], job.tokenizer, job.truncation)
        texts_read = {TRAIN: read, DEVELOPMENT: also_read}
        for split, each in texts_read.items():
            log_texts_read(f"{job.folder.name}, {split}", each)
        labels = job.task.splits[DEVELOPMENT].with_format("numpy")["label"][:]
        pooling = _pooling(job)

        def evaluate(current: PreTrainedModel) -> float:
            logits = predict_logits(current, job.tokenizer, development, pooling)
            self.check_predictions(labels, logits, job.task, DEVELOPMENT)
            return self.metrics(labels, logits, job.task.metrics[:1])[job.task.metrics[0]]

        with distill(examples) as taught:
            numbered = [{**each, "example": at} for at, each in enumerate(examples)]
            data = TrainingData(
                numbered if taught.needs_example_numbers else examples,
                Collator(job.tokenizer),
                taught.loss if pooling is None else over_windows(taught.loss, pooling),
                evaluate=evaluate,
            )
            yield Prepared(data, taught, texts_read)

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
        """Compute all metrics of the task, and its losses."""
        rows = job.task.splits[split]
        examples, read = encode_and_count(rows, job.tokenizer, job.truncation)
        logits, labels = predict_logits(model, job.tokenizer, examples, _pooling(job)), np.asarray(rows["label"][:])
        self.check_predictions(labels, logits, job.task, split)
        return Scored({**self.metrics(labels, logits, job.task.metrics), **self.losses(labels, logits)}, read)

    def count_examples(self, job: Job) -> int:
        """Count the texts of train."""
        return len(job.task.splits[TRAIN])

    def few_rows(self, job: Job, *, batch_size: int, batches: int, examples: int) -> FewRows:
        """Choose the batches whose padded tokens are nearest to the mean of all batches."""
        train = job.task.splits[TRAIN].shuffle(seed=0)
        some = train.select(range(min(len(train), SAMPLED_TEXTS)))
        chosen, scale = usual_rows(encode(some, job.tokenizer, job.truncation), batch_size, batches)
        return FewRows(some.select(chosen), development=2, scale=scale)


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
