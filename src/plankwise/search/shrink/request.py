"""What a user asks of `plankwise shrink`, and the checks that need no work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from transformers import PreTrainedConfig

from plankwise.core.errors import ModelError, RecipeError, one_of
from plankwise.core.hardware import saturates
from plankwise.data.given.columns import ColumnOptions
from plankwise.data.given.parts import MAX_ROWS
from plankwise.data.metric_names import metrics_for
from plankwise.data.task import TRAIN
from plankwise.data.text_files import TextFormat
from plankwise.encoder.checkpoint import load_config
from plankwise.encoder.classifier_head import check_answers
from plankwise.encoder.quantized import LAST, is_quantized
from plankwise.encoder.score_head import activation_of, is_scorer
from plankwise.run.candidates import PROCESSORS, this_processor
from plankwise.search.budget.candidate import NOTHING_INSTALLED, Deployment, installed_deployments
from plankwise.search.budget.goal import Goal, check_seconds, goal_of
from plankwise.search.shrink.prepare_data import GivenFiles
from plankwise.search.shrink.ready import NAMES, aim_of

UNTRAINED = 2_000  # rows of train, where they only calibrate and rank
DEVICES = ("cpu", "cuda")


@dataclass(frozen=True, kw_only=True)
class ShrinkRequest:
    """One search.

    Attributes:
        model: folder or Hub id of a fine-tuned classifier or regressor.
        data: files of rows to train, calibrate and, without `test`, decide on.
        out: folder of the search.
        test: files of rows that the model has never seen: half of them to decide on, half of them held back.
        text: column of the text; guessed if not given.
        pair: column of a second text.
        label: column of the label.
        names: the model's label by what the label column holds, where these differ.
        label_separator: between the labels of a cell.
        encoding: of text files.
        delimiter: of CSV files.
        retain: share of the score to keep; by default 0.99, or what the ready recipe aims at.
        speedup: times as fast as the original in an optimised runtime in fp32.
        max_size_mb: of the artefact, in 10⁶ bytes.
        seconds: that the search may take.
        device: where the model will run.
        processor: another kind of processor that it will run on: nothing that is timed here counts there.
        metric: of labelled rows.
        recipe: a ready recipe to make alone.
        max_length: tokens of an input; by default as the model was trained.
        seed: of everything random.
    """

    model: str
    data: tuple[Path, ...]
    out: Path
    test: tuple[Path, ...] = ()
    text: str | None = None
    pair: str | None = None
    label: str | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    label_separator: str | None = None
    encoding: str | None = None
    delimiter: str | None = None
    retain: float | None = None
    speedup: float | None = None
    max_size_mb: float | None = None
    seconds: float = 1800.0
    device: str = "cpu"
    processor: str | None = None
    metric: str | None = None
    recipe: str | None = None
    max_length: int | None = None
    seed: int = 0

    def files(self) -> GivenFiles:
        """Return the files, with what is given of their columns."""
        options = ColumnOptions(self.text, self.pair, self.label, self.label_separator)
        form = TextFormat(self.encoding, self.delimiter)
        return GivenFiles(self.data, self.test, options, self.names, form)

    def max_rows(self) -> dict[str, int]:
        """Return how many rows of each part are used at most: a recipe that trains nothing needs few of train."""
        return {**MAX_ROWS, **({TRAIN: UNTRAINED} if self.recipe == "fast" else {})}

    def goal(self) -> Goal:
        """Return the budget.

        Raises:
            PlankwiseError: if it contradicts itself.
        """
        aim = Goal() if self.recipe is None else aim_of(self.recipe, saturating=saturates())
        return goal_of(
            retain=aim.retain if self.retain is None else self.retain,
            speedup=aim.speedup if self.speedup is None else self.speedup,
            max_size_mb=self.max_size_mb,
        )


def check_request(request: ShrinkRequest) -> tuple[Goal, PreTrainedConfig]:
    """Refuse what can be refused before data is read or a weight is loaded.

    Returns:
        The budget, and the model's configuration.

    Raises:
        PlankwiseError: naming the value and what is allowed.
    """
    goal = request.goal()
    check_seconds(request.seconds)
    if request.recipe is not None:
        one_of(request.recipe, NAMES, "ready recipe")
    if one_of(request.device, DEVICES, "device") == "cuda":
        if not torch.cuda.is_available():
            raise ModelError("--on cuda: torch finds no CUDA device here; allowed: --on cpu")
        raise ModelError(
            "--on cuda: artefacts run on the CPU; allowed: --on cpu, where a GPU that is there still trains"
        )
    pairs_of(request.processor)
    config = load_config(request.model)
    if is_quantized(config):
        raise ModelError(f"{request.model}: {LAST}; allowed: a model whose weights are floating-point")
    check_head(config, request.model)
    try:
        metrics_for([] if request.metric is None else [request.metric], is_scorer(config))
    except ValueError as error:
        raise RecipeError(f"--metric: {error}") from None
    return goal, config


def check_head(config: PreTrainedConfig, model: str) -> None:
    """Refuse a model that neither chooses among labels nor answers with a score as it is.

    Raises:
        ModelError: also where the configuration names no architecture, so that there is no head to speak of.
    """
    check_answers(config, model)
    if is_scorer(config) and activation_of(config, model) != "identity":
        raise ModelError(
            f"{model} reads its scores through a sigmoid; allowed: a classifier, or a regressor whose scores are its "
            "logits (problem_type 'regression')"
        )
    if not config.architectures:
        raise ModelError(f"{model} has no classification head; fine-tune it first, by plankwise run")


def pairs_of(processor: str | None) -> tuple[Deployment, ...]:
    """Return the runtimes and precisions to try, the best guess first; for another processor only that guess.

    Raises:
        ModelError: if there is no such processor, or no runtime is installed.
    """
    known = PROCESSORS[this_processor() if processor is None else one_of(processor, tuple(PROCESSORS), "processor")]
    installed = installed_deployments()
    found = tuple(each for each in ((one.runtime, one.precision) for one in known) if each in installed)
    if not found:
        raise ModelError(NOTHING_INSTALLED)
    return found if processor is None else found[:1]
