"""What a search starts from: facts of the model, the texts and the machine; and the plan that follows from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from transformers import PreTrainedConfig

from plankwise.core.hardware import bf16_is_fast, default_device
from plankwise.data.batching.inputs import Text, encode_texts
from plankwise.data.batching.token_budget import TOKENS_PER_BATCH
from plankwise.data.given.parts import split_given
from plankwise.data.splitting import LabelledText
from plankwise.data.task import DEVELOPMENT, TRAIN
from plankwise.data.truncation import Truncation
from plankwise.deploy.answers import kind_of
from plankwise.deploy.predictor import Predictor
from plankwise.encoder.checkpoint import load_trained
from plankwise.encoder.classifier_head import labels_of
from plankwise.encoder.configuration import usable_positions
from plankwise.encoder.cost import count_parameters
from plankwise.encoder.stored_truncation import stored_truncation
from plankwise.search.shrink.costs import MEASURING, Costs
from plankwise.search.shrink.ladder import Facts, Ladder, Situation
from plankwise.search.shrink.ready import Ready
from plankwise.search.shrink.request import ShrinkRequest, check_request, pairs_of

PROBED = 64  # texts whose lengths and time stand for those of all


def plan(request: ShrinkRequest) -> list[dict[str, Any]]:
    """Return what a search would try, and roughly how long it would take, without writing anything.

    Targets and epochs are guesses: the search chooses them by what it measures.

    Returns:
        Rows with `stage`, `seconds` and `fits`: whether all stages up to this one fit into the time.
    """
    goal, config = check_request(request)
    files = request.files()
    given = files.read(labels_of(config), kind_of(config))
    test = given.only(files.test) if files.test else None
    parts = split_given(given.only(files.data), test, seed=request.seed, max_rows=request.max_rows())
    texts = [_text_of(row) for row in parts.rows[DEVELOPMENT]]
    predictor = Predictor(request.model, truncation=truncation_of(request, config))
    seconds = predictor.seconds_per_text(texts[:PROBED])
    rows = {part: len(found) for part, found in parts.rows.items()}
    labelled = all(row["label"] is not None for row in parts.rows[TRAIN])
    facts = facts_of(request, predictor, texts, rows, seconds_per_text=seconds, labelled=labelled)
    stages = [("the original in every runtime", 2 * MEASURING + seconds * rows[DEVELOPMENT])]
    now = Situation(goal, (), frozenset(), request.seconds)
    stages += [(each.name, facts.costs.estimate(each, ())) for each in ladder_of(request, facts).proposals(now)]
    found, spent = [], 0.0
    for stage, cost in stages:
        spent += cost
        found.append({"stage": stage, "seconds": cost, "fits": spent <= request.seconds})
    return found


def truncation_of(request: ShrinkRequest, config: PreTrainedConfig) -> Truncation:
    """Read texts as the model was trained to; if that is not known, as many tokens as it has positions, up to 512."""
    own = stored_truncation(config, request.model) or Truncation(max_length=min(512, usable_positions(config)))
    if request.max_length is None:
        return own
    return Truncation(max_length=request.max_length, truncation=own.truncation, windows=own.windows)


def facts_of(
    request: ShrinkRequest,
    predictor: Predictor,
    texts: Sequence[Text],
    rows: Mapping[str, int],
    *,
    seconds_per_text: float,
    labelled: bool,
) -> Facts:
    """Collect what the ladder has to know.

    Args:
        request: what is wanted.
        predictor: of the original, in torch.
        texts: of development.
        rows: number of rows of each part.
        seconds_per_text: of the original in torch, in sorted batches.
        labelled: whether all rows of train have labels that are not the original's own answers.
    """
    model = load_trained(request.model)
    depth = int(model.config.num_hidden_layers)
    return Facts(
        depth=depth,
        width=int(model.config.hidden_size),
        table_share=model.get_input_embeddings().weight.numel() / count_parameters(model),
        shape=usual_batch(predictor, texts),
        labelled=labelled,
        pairs=pairs_of(request.processor),
        latency=request.processor is None,
        costs=Costs(
            seconds_per_text=seconds_per_text,
            train_rows=rows[TRAIN],
            development_rows=rows[DEVELOPMENT],
            depth=depth,
            bf16=bf16_is_fast(default_device()),
        ),
    )


def usual_batch(predictor: Predictor, texts: Sequence[Text]) -> tuple[int, int]:
    """Return texts and tokens of the batch that prediction makes of texts of the usual length."""
    deployed = predictor.deployed
    lengths = encode_texts(texts, deployed.tokenizer, deployed.manifest.inputs, predictor.truncation).lengths
    tokens = max(8, 8 * round(float(np.mean(lengths)) / 8))
    return max(1, TOKENS_PER_BATCH // tokens), tokens


def ladder_of(request: ShrinkRequest, facts: Facts) -> Ladder:
    """Return the ladder to climb, or the one chain of a ready recipe."""
    return Ladder(facts) if request.recipe is None else Ready(facts, request.recipe)


def _text_of(row: LabelledText) -> Text:
    return row["text"] if row["text_pair"] is None else (row["text"], row["text_pair"])
