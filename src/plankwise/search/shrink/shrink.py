"""`plankwise shrink`: from a fine-tuned model and the user's files to the best model under a budget."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedConfig

from plankwise.core.errors import RecipeError
from plankwise.core.files import read_text
from plankwise.core.hardware import bf16_is_fast, default_device
from plankwise.core.progress import duration
from plankwise.core.recipe import to_plain, validate
from plankwise.data.batching.inputs import Text, encode_texts
from plankwise.data.batching.token_budget import TOKENS_PER_BATCH
from plankwise.data.given.parts import split_given
from plankwise.data.label_columns import label_column
from plankwise.data.splitting import LabelledText
from plankwise.data.task import DEVELOPMENT, TEST, TRAIN
from plankwise.data.truncation import Truncation
from plankwise.deploy.answers import kind_of
from plankwise.deploy.predictor import Predictor
from plankwise.encoder.checkpoint import load_trained
from plankwise.encoder.classifier_head import labels_of
from plankwise.encoder.configuration import usable_positions
from plankwise.encoder.cost import count_parameters
from plankwise.encoder.stored_truncation import stored_truncation
from plankwise.evaluation.benchmark.paired_timing import time_pairs
from plankwise.evaluation.benchmark.workload import texts_of_split
from plankwise.run.pipeline import check
from plankwise.run.recipe import Recipe
from plankwise.search.budget.evaluation import Evaluator, Timer
from plankwise.search.budget.folder import claimed, refuse_taken
from plankwise.search.budget.goal import Goal
from plankwise.search.budget.log import CandidateLog
from plankwise.search.shrink.climb import Climb, Listener
from plankwise.search.shrink.clock import Clock
from plankwise.search.shrink.costs import MEASURING, Costs
from plankwise.search.shrink.document import DOCUMENT, NOT_HERE, conclude, finished
from plankwise.search.shrink.given_data import GivenData
from plankwise.search.shrink.ladder import Facts, Ladder, Situation
from plankwise.search.shrink.prepare_data import prepare_given
from plankwise.search.shrink.ready import Ready
from plankwise.search.shrink.request import ShrinkRequest, check_request, pairs_of
from plankwise.search.shrink.start import TORCH, Start, measure_original, references_of

logger = logging.getLogger(__name__)
DATA = "data"
PROBED = 64  # texts that are timed for a plan


def shrink(
    request: ShrinkRequest,
    *,
    resume: bool = False,
    listener: Listener = lambda progress: None,
    timer: Timer = time_pairs,
) -> dict[str, Any]:
    """Search for the best model under a budget and write it.

    Args:
        request: what is wanted.
        resume: whether the folder may hold this search already. A search that is complete is returned as it is, unless
            its budget was not met and there is more time now.
        listener: told of every candidate.
        timer: times models and artefacts.

    Returns:
        The document of `shrink.json`.

    Raises:
        PlankwiseError: if the request, the model or the data are wrong; nothing is left in the folder then.
    """
    goal, config = check_request(request)
    refuse_taken(request.out, None, resume=resume)
    with claimed(request.out, _definition(request, goal), resume=resume):
        known = finished(request.out, request.seconds)
        if known is not None:
            return known
        clock = Clock(request.out)
        with clock.running():
            return _search(request, goal, config, clock=clock, listener=listener, timer=timer)


def plan(request: ShrinkRequest) -> list[dict[str, Any]]:
    """Say what a search would try, and roughly how long it would take, without writing anything.

    Targets and epochs are guesses: the search chooses them by what it measures.

    Returns:
        Rows with `stage`, `seconds` and `fits`: whether all stages up to this one fit into the time.
    """
    goal, config = check_request(request)
    files = request.files()
    several = label_column(kind_of(config)).several
    given = files.read(labels_of(config), several)
    parts = split_given(given.only(files.data), given.only(files.test) if files.test else None, seed=request.seed)
    texts = [_text_of(row) for row in parts.rows[DEVELOPMENT]]
    predictor = Predictor(request.model, truncation=_truncation(request, config))
    seconds = predictor.seconds_per_text(texts[:PROBED])
    rows = {part: len(found) for part, found in parts.rows.items()}
    labelled = all(row["label"] is not None for row in parts.rows[TRAIN])
    facts = _facts(request, predictor, texts, rows, seconds_per_text=seconds, labelled=labelled)
    stages = [("the original in every runtime", 2 * MEASURING + seconds * rows[DEVELOPMENT])]
    now = Situation(goal, (), frozenset(), request.seconds)
    stages += [(each.name, facts.costs.estimate(each, ())) for each in _ladder(request, facts).proposals(now)]
    found, spent = [], 0.0
    for stage, cost in stages:
        spent += cost
        found.append({"stage": stage, "seconds": cost, "fits": spent <= request.seconds})
    return found


def _search(
    request: ShrinkRequest,
    goal: Goal,
    config: PreTrainedConfig,
    *,
    clock: Clock,
    listener: Listener,
    timer: Timer,
) -> dict[str, Any]:
    out = request.out
    truncation = _truncation(request, config)
    data = prepare_given(
        request.model, request.files(), out / DATA, truncation=truncation, seed=request.seed, progress=True
    )
    for line in (*data.said, *data.notes):
        logger.info("%s", line)
    checked = check(_recipe(request, data, truncation))
    evaluator = Evaluator(checked.recipe, checked.task, out, timer=timer)
    start, original = measure_original(evaluator, out)
    _say(start, data)
    predictor = Predictor(request.model, truncation=truncation)
    texts = texts_of_split(checked.task.splits[DEVELOPMENT], PROBED)
    labelled, seconds = data.labelled[TRAIN] == data.rows[TRAIN], start.ms_per_text[TORCH] / 1000
    facts = _facts(request, predictor, texts, data.rows, seconds_per_text=seconds, labelled=labelled)
    reserve = MEASURING + 2 * facts.costs.seconds_per_text * data.rows[TEST]
    climb = Climb(
        goal=goal,
        ladder=_ladder(request, facts),
        costs=facts.costs,
        evaluator=evaluator,
        original=original,
        log=CandidateLog(out),
        clock=clock,
        seconds=request.seconds,
        reserve=reserve,
        listener=listener,
    )
    ended = climb.run()
    if not climb.log.candidates:
        raise RecipeError(
            f"--time {duration(request.seconds)} is too short for a single measurement: the original took "
            f"{duration(clock.spent)}, and about {duration(reserve + MEASURING)} more are needed"
        )
    logger.info("the climb ended: %s", ended)
    return conclude(
        out,
        goal=goal,
        start=start,
        original=original,
        evaluator=evaluator,
        log=climb.log,
        references=references_of(evaluator),
        about={
            "measured": data.measured[TEST],
            "model": request.model,
            "data": data.model_dump(mode="json", include={"rows", "labelled", "measured", "distribution", "columns"}),
            "said": list(data.said),
            "notes": [*data.notes, *([NOT_HERE] if request.processor else [])],
            "ended": ended,
            "seconds_allowed": request.seconds,
            "spent_seconds": clock.spent,
            "looks": _looks(out) + 1,
        },
    )


def _recipe(request: ShrinkRequest, data: GivenData, truncation: Truncation) -> Recipe:
    """Return the recipe that every candidate adds its steps to."""
    plain = {
        "name": "shrink",
        "task": data.task(request.metric),
        "model": {"source": request.model, **to_plain(truncation)},
        "baseline": None,
        "seed": request.seed,
    }
    return validate(plain, Recipe)


def _text_of(row: LabelledText) -> Text:
    return row["text"] if row["text_pair"] is None else (row["text"], row["text_pair"])


def _truncation(request: ShrinkRequest, config: PreTrainedConfig) -> Truncation:
    """Read texts as the model was trained to; if that is not known, as many tokens as it has positions, up to 512."""
    own = stored_truncation(config, request.model) or Truncation(max_length=min(512, usable_positions(config)))
    if request.max_length is None:
        return own
    return Truncation(max_length=request.max_length, truncation=own.truncation, windows=own.windows)


def _facts(
    request: ShrinkRequest,
    predictor: Predictor,
    texts: Sequence[Text],
    rows: Mapping[str, int],
    *,
    seconds_per_text: float,
    labelled: bool,
) -> Facts:
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


def _ladder(request: ShrinkRequest, facts: Facts) -> Ladder:
    return Ladder(facts) if request.recipe is None else Ready(facts, request.recipe)


def _say(start: Start, data: GivenData) -> None:
    """Log what the original does, before anything is compared with it."""
    times = ", ".join(f"{name} {value:.3g}" for name, value in start.ms_per_text.items())
    metric, measured = next(iter(start.scores)), data.measured[DEVELOPMENT]
    logger.info("the original: %s %s on development (%s); ms a text: %s", metric, start.interval, measured, times)
    if not start.beats_majority:
        logger.warning(
            "the original's %s %s does not beat the majority class, %.3f: keeping it proves nothing; no budget is met",
            metric,
            start.interval,
            start.majority,
        )


def _definition(request: ShrinkRequest, goal: Goal) -> dict[str, Any]:
    """Return what makes this search different from others; how long it may take does not."""
    return {
        "model": request.model,
        "data": request.files().identity(),
        "goal": {"retain": goal.retain, "speedup": goal.speedup, "max_size_bytes": goal.max_size_bytes},
        "metric": request.metric,
        "processor": request.processor,
        "recipe": request.recipe,
        "max_length": request.max_length,
        "seed": request.seed,
    }


def _looks(out: Path) -> int:
    """Return how often the rows held back were scored before."""
    if not (out / DOCUMENT).exists():
        return 0
    return int(json.loads(read_text(out / DOCUMENT)).get("looks", 0))
