"""What the ladder has to know: sizes of the model, lengths of the texts, and what work costs on this machine."""

from __future__ import annotations

import numpy as np
from transformers import PreTrainedModel

from plankwise.core.hardware import bf16_is_fast, default_device
from plankwise.data.batching.inputs import encode_texts
from plankwise.data.batching.token_budget import TOKENS_PER_BATCH
from plankwise.data.task import DEVELOPMENT, TRAIN, Task
from plankwise.deploy.predictor import Predictor
from plankwise.encoder.cost import count_parameters
from plankwise.evaluation.benchmark.workload import texts_of_split
from plankwise.search.shrink.costs import Costs
from plankwise.search.shrink.ladder import Facts, Pair

PROBED = 256  # texts whose lengths stand for those of all


def facts_of(
    model: PreTrainedModel,
    predictor: Predictor,
    task: Task,
    *,
    seconds_per_text: float,
    labelled: bool,
    pairs: tuple[Pair, ...],
    measurable: bool,
) -> Facts:
    """Collect the facts.

    Args:
        model: the original.
        predictor: of the original, in torch.
        task: the data.
        seconds_per_text: of the original in torch, in sorted batches.
        labelled: whether rows of train have labels that are not the original's own predictions.
        pairs: runtimes and precisions to try.
        measurable: whether the model will run on this machine, so that its latencies count.
    """
    table = model.get_input_embeddings()
    depth = int(model.config.num_hidden_layers)
    return Facts(
        depth=depth,
        width=int(model.config.hidden_size),
        table_share=table.weight.numel() / count_parameters(model),
        shape=usual_batch(predictor, task),
        labelled=labelled,
        pairs=pairs,
        latency=measurable,
        costs=costs_of(task, depth, seconds_per_text),
    )


def costs_of(task: Task, depth: int, seconds_per_text: float) -> Costs:
    """Return what work costs, given the time of one text."""
    return Costs(
        seconds_per_text=seconds_per_text,
        train_rows=len(task.splits[TRAIN]),
        development_rows=len(task.splits[DEVELOPMENT]),
        depth=depth,
        bf16=bf16_is_fast(default_device()),
    )


def usual_batch(predictor: Predictor, task: Task) -> tuple[int, int]:
    """Return texts and tokens of the batch that prediction makes of texts of the usual length."""
    texts = texts_of_split(task.splits[DEVELOPMENT], PROBED)
    deployed = predictor.deployed
    lengths = encode_texts(texts, deployed.tokenizer, deployed.manifest.inputs, predictor.truncation).lengths
    tokens = max(8, 8 * round(float(np.mean(lengths)) / 8))
    return max(1, TOKENS_PER_BATCH // tokens), tokens
