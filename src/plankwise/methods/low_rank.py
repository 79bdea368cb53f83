"""Low rank: word embeddings and feed-forward projections as products of two thin matrices.

Hsu, Hua, Chang, Lou, Shen & Jin 2022, "Language model compression with weighted low-rank factorization", arXiv
2207.00112. A truncated SVD spends its rank on large values. Here the error in each row of a matrix is weighted by the
row's importance for the task's loss: its squared gradients, summed over examples (empirical Fisher).
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from typing import Literal

import pydantic
import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from plankwise.core.errors import MethodError
from plankwise.core.numbers import Rows, Share
from plankwise.core.recipe import settings
from plankwise.core.seeds import mix_seed
from plankwise.encoder.low_rank import (
    LowRankEmbedding,
    LowRankLinear,
    MatrixSize,
    embedding_sizes,
    factorize,
    feed_forward_sizes,
    has_low_rank,
    rank_for,
    ranks_of,
    with_ranks,
)
from plankwise.encoder.quantized import refuse_quantized
from plankwise.encoder.shapes import new_model, shapes_of
from plankwise.methods.method import Compressed, Job, Method, ModelSpec, StepLog, planned
from plankwise.methods.recovery import ReplacingConfig, check_replacing, recover
from plankwise.methods.row_importance import row_importance
from plankwise.training.distillation.config import DistillationConfig, check_taught
from plankwise.training.fit import Training


class LowRankLog(StepLog):
    """What factorization did; `ranks` are those of the factorized parts."""

    ranks: Mapping[str, int]


@settings
class LowRank(Method):
    """Settings of low-rank factorization.

    Attributes:
        embeddings: share of the word embeddings' parameters to keep; null does not factorize them.
        feed_forward: share of the feed-forward projections' parameters to keep; null does not factorize them.
        weighting: `fisher` weights rows by their importance for the task's loss; `none` is plain truncated SVD.
        examples: of the training split, at most, that `fisher` measures rows on.
        teacher: what training learns from, besides the task.
        training: of the whole factorized model; null trains nothing.
        replacing: how training goes, by module replacing: at each step some layers run as they were, frozen, and others
            factorized, until all are. By default the factorized model trains alone.
    """

    method: Literal["low_rank"] = "low_rank"
    embeddings: Share | None = None
    feed_forward: Share | None = None
    weighting: Literal["fisher", "none"] = "fisher"
    examples: Rows = 2000
    teacher: DistillationConfig | None = None
    training: Training | None = None
    replacing: ReplacingConfig | None = None

    @pydantic.model_validator(mode="after")
    def _does_something(self) -> LowRank:
        if self.embeddings is None and self.feed_forward is None:
            raise ValueError("give embeddings, feed_forward or both: the share of their parameters to keep")
        check_taught(self.teacher, self.training)
        check_replacing(self.replacing, self.training)
        if self.replacing is not None and self.feed_forward is None:
            raise ValueError("replacing replaces layers, and embeddings alone change no layer; add feed_forward")
        return self

    def plan(self, spec: ModelSpec) -> ModelSpec:
        """Plan the factorized model; all layers have the same ranks.

        Raises:
            MethodError: if a part is factorized already, or no rank makes each of its matrices smaller.
        """
        refuse_quantized(spec.config)
        if self.embeddings is not None and spec.objective.ties_embeddings:
            raise MethodError(
                "embeddings: a masked LM's head shares them, so they cannot be of low rank; allowed on a corpus: "
                "feed_forward"
            )
        return planned(self, spec, self._config(spec.config))

    def examples_used(self, available: int) -> int:
        """Return how many training texts the importance of rows is measured on."""
        return min(available, self.examples)

    def _config(self, config: PreTrainedConfig) -> PreTrainedConfig:
        ranks = ranks_of(config)
        if self.embeddings is not None:
            _refuse_twice(config, "embeddings")
            rank = _rank("embeddings", self.embeddings, [embedding_sizes(config)])
            ranks = dataclasses.replace(ranks, embeddings=rank)
        if self.feed_forward is not None:
            _refuse_twice(config, "feed_forward")
            neurons, output = feed_forward_sizes(config, [shape.neurons for shape in shapes_of(config)])
            both = [_rank("feed_forward", self.feed_forward, sizes) for sizes in (neurons, output)]
            ranks = dataclasses.replace(ranks, neurons=both[0], output=both[1])
        return with_ranks(config, ranks)

    def compress(self, model: PreTrainedModel, job: Job) -> Compressed:
        """Measure the rows, factorize the matrices, and train the result if asked to."""
        config = self._config(model.config)
        torch.manual_seed(mix_seed(job.seed, "low_rank", "construction"))
        smaller = new_model(type(model), config).to(model.device, model.dtype)
        begun = time.perf_counter()
        places = _factorized(model, smaller)
        importance, examples = self._importance(model, job, list(places))
        fill(model, smaller, places, importance)
        seconds, log = {"factorization": time.perf_counter() - begun}, StepLog()
        if self.training is not None:
            log = recover(
                smaller, model, job, self.training, title="low rank", teacher=self.teacher, replacing=self.replacing
            )
        ranks = {name: rank for name, rank in dataclasses.asdict(ranks_of(config)).items() if rank}
        whole = LowRankLog(**{**dict(log), "seconds": seconds, "examples": examples}, ranks=ranks)
        return Compressed(smaller.eval(), job.tokenizer, whole)

    def _importance(self, model: PreTrainedModel, job: Job, names: list[str]) -> tuple[dict[str, Tensor], int | None]:
        """Measure the importance of rows by name of the matrix; also return on how many examples."""
        if self.weighting == "none":
            return {}, None
        with job.objective.sample(model, job, self.examples) as sample:
            wanted = {name: model.get_submodule(name) for name in names}
            return row_importance(model, wanted, sample.batches(), sample.loss), sample.examples


Places = dict[str, LowRankLinear | LowRankEmbedding]


def fill(model: PreTrainedModel, smaller: PreTrainedModel, places: Places, importance: dict[str, Tensor]) -> None:
    """Copy `model` into `smaller`, in place: factorized at `places`, by the importance of rows, elsewhere unchanged."""
    state, own = model.state_dict(), smaller.state_dict()
    for name, target in places.items():
        factorize(state.pop(f"{name}.weight"), target, importance.get(name))
        bias = state.pop(f"{name}.bias", None)
        if bias is not None:
            state[f"{name}.up.bias"] = bias
        for part in [each for each in own if each.startswith(f"{name}.")]:
            state.setdefault(part, own[part])
    smaller.load_state_dict(state)


def _factorized(model: PreTrainedModel, smaller: PreTrainedModel) -> Places:
    """Return the modules of `smaller`, by name, that are factorized and in `model` are not."""
    kinds = (LowRankLinear, LowRankEmbedding)
    found = {str(name): module for name, module in smaller.named_modules() if isinstance(module, kinds)}
    return {name: module for name, module in found.items() if not isinstance(model.get_submodule(name), kinds)}


def _refuse_twice(config: PreTrainedConfig, part: Literal["embeddings", "feed_forward"]) -> None:
    if has_low_rank(config, part):
        raise MethodError(f"{part}: they are of low rank already and cannot be factorized again")


def _rank(part: str, share: float, sizes: list[MatrixSize]) -> int:
    """Return the rank that keeps this share of the matrices' parameters and makes each matrix smaller.

    Raises:
        MethodError: if there is no such rank.
    """
    rank = rank_for(share, sizes)
    if rank < 1:
        least = sum(map(sum, sizes)) / sum(rows * columns for rows, columns in sizes)
        raise MethodError(f"{part} {share} leaves no rank; allowed here: {least:.4f} and more")
    for rows, columns in sizes:
        if rank * (rows + columns) >= rows * columns:
            raise MethodError(
                f"{part} {share} means rank {rank}, which makes a matrix of {rows} by {columns} no smaller; "
                "its layer was pruned to fewer neurons than others"
            )
    return rank
