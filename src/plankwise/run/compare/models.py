"""Comparing models of any origin and runtime: folders, artefacts and Hub ids, joined by row and by name of label."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from plankwise.core.errors import ModelError, RecipeError, suggest
from plankwise.core.recipe import read_recipe
from plankwise.core.records import FILE_NAME
from plankwise.data.task import DEVELOPMENT, TEST, TRAIN
from plankwise.deploy.predictor import Predictor
from plankwise.evaluation.comparison import Pair
from plankwise.evaluation.evidence import Examples, Question, compare_pairs
from plankwise.evaluation.floors import OVERLAP, floor_logits, overlap_scores
from plankwise.evaluation.metrics import METRICS, Floats
from plankwise.evaluation.score_metrics import are_scores
from plankwise.evaluation.slices import CLASS, SCORE, classes_of, quartiles, unknown_words, values_of
from plankwise.run.compare.rows import FileOptions, LabelledRows, rows_of_files, rows_of_split
from plankwise.run.recipe import Recipe

logger = logging.getLogger(__name__)
LENGTH, UNKNOWN = "length", "unknown words"
Open = Callable[[str], Predictor]


@dataclass(frozen=True, kw_only=True)
class CompareRequest:
    """What to compare on what.

    Attributes:
        baseline: folder, artefact or Hub id.
        compressed: the same, one or more.
        data: files of rows with labels to compare on.
        development: files of other rows, to calibrate and choose thresholds on.
        train: files of the rows that the baseline was trained on, for the floors.
        options: how files are read.
        recipe: whose task has all of these, instead of files.
        split: of that task.
        slice_columns: of `data`, to cut slices by.
        also: baseline and compressed model of other training seeds, pooled with the first.
        retrained: the baseline trained again with another seed: the floor of all flips.
        metrics: the first decides; by default macro_f1 and accuracy, of scores spearman and pearson.
        margin: largest loss of a metric that is acceptable.
        class_margin: largest loss of a class' F1.
        precision: of operating points.
        resamples: of the bootstrap.
    """

    baseline: str
    compressed: tuple[str, ...]
    data: tuple[Path, ...] = ()
    development: tuple[Path, ...] = ()
    train: tuple[Path, ...] = ()
    options: FileOptions = field(default_factory=FileOptions)
    recipe: Path | None = None
    split: str = TEST
    slice_columns: tuple[str, ...] = ()
    also: tuple[tuple[str, str], ...] = ()
    retrained: str | None = None
    metrics: tuple[str, ...] = ()
    margin: float = 0.01
    class_margin: float = 0.05
    precision: float = 0.9
    resamples: int = 2000

    def __post_init__(self) -> None:
        """Refuse numbers and names that are not allowed.

        Raises:
            RecipeError: naming the option and what is allowed.
        """
        stray = next((name for name in self.metrics if name not in METRICS), None)
        if stray is not None:
            raise RecipeError(f"--metric {stray}: {suggest(stray, METRICS)}")
        for name in ("margin", "class_margin", "precision"):
            if not 0 < getattr(self, name) < 1:
                option = name.replace("_", "-")
                raise RecipeError(f"--{option} {getattr(self, name):g}: allowed: above 0 and below 1")

    def check_models(self) -> None:
        """Refuse a request that does not say what models are compared on.

        Raises:
            RecipeError: naming what is missing or contradicts itself.
        """
        if not self.compressed:
            raise RecipeError(f"{self.baseline} alone is nothing to compare; give a compressed model too, or runs")
        if self.also and len(self.compressed) > 1:
            raise RecipeError(f"--also pools seeds of one compressed model, and there are {len(self.compressed)}")
        for models in zip((self.baseline, self.compressed[0]), *self.also, strict=True):
            twice = next((model for model in models if models.count(model) > 1), None)
            if twice is not None:
                raise RecipeError(f"--also: {twice} is given twice, and would count as two seeds")
        if bool(self.data) == (self.recipe is not None):
            raise RecipeError("give either --data, for rows of files, or --recipe, for a split of its task")
        if self.recipe is None and self.split != TEST:
            raise RecipeError(f"--split {self.split} is of the task of --recipe; --data has no splits")
        if self.recipe is not None and self.options != FileOptions():
            raise RecipeError("columns, --map, --encoding and --delimiter are for --data; a recipe has its own")
        if self.recipe is not None and (self.development or self.train or self.slice_columns):
            raise RecipeError("--development, --train and --slice go with --data; the task of a recipe has its splits")

    def check_runs(self, sources: Sequence[str]) -> None:
        """Refuse models among runs, and options that runs do not need.

        Raises:
            RecipeError: naming the first.
        """
        model = next((each for each in sources if not (Path(each) / FILE_NAME).is_file()), None)
        if model is not None:
            raise RecipeError(f"{model} is not a finished run, and others are; give RUN/model folders, or runs alone")
        given = {
            "--data": self.data,
            "--recipe": self.recipe,
            "--also": self.also,
            "--retrained": self.retrained,
            "--development": self.development,
            "--train": self.train,
            "--slice": self.slice_columns,
            "--split": self.split != TEST,
            "an option of how files are read": self.options != FileOptions(),
        }
        for option, value in given.items():
            if value:
                raise RecipeError(f"{option} is for models; runs have saved their answers to the test split")

    @property
    def question(self) -> Question:
        """What the comparison is asked."""
        return Question(
            metrics=self.metrics,
            margin=self.margin,
            class_margin=self.class_margin,
            precision=self.precision,
            resamples=self.resamples,
        )


def seed_of(option: str) -> tuple[str, str]:
    """Read the option `--also BASELINE=COMPRESSED`.

    Raises:
        RecipeError: if it is not of this form.
    """
    baseline, equals, compressed = option.partition("=")
    if not (baseline and equals and compressed):
        raise RecipeError(f"--also '{option}' is not of the form BASELINE=COMPRESSED")
    return baseline, compressed


@dataclass(frozen=True)
class ComparedOn:
    """The rows of a comparison by what they are for; development and train may be missing."""

    rows: LabelledRows
    development: LabelledRows | None
    train: LabelledRows | None


def compare_models(request: CompareRequest, *, opener: Open = Predictor) -> dict[str, Any]:
    """Compare one or more compressed models with a baseline.

    Returns:
        The document that `plankwise compare --json` prints: names, numbers of rows, and a comparison for each
        compressed model, as `evidence.compare_pairs` describes it. It holds no text.

    Raises:
        PlankwiseError: if a model cannot be opened, its labels differ, or the rows cannot be read.
    """
    baseline = opener(request.baseline)
    classes = tuple(baseline.labels)
    on = read_rows(request, baseline)
    question = request.question.about(on.rows.labels)
    for line in on.rows.said:
        logger.info("%s", line)

    def answers(source: str) -> _Answers:
        return _answers(opener(source), source, classes, on, baseline)

    known = _answers(baseline, request.baseline, classes, on, baseline)
    others = [(answers(one), answers(other)) for one, other in request.also]
    again = None if request.retrained is None else answers(request.retrained)
    examples = examples_of(on, classes)
    document: dict[str, Any] = {
        "baseline": request.baseline,
        "rows": len(on.rows.labels),
        "classes": list(examples.classes),
        "metrics": list(question.metrics),
        "comparisons": {},
    }
    for source in request.compressed:
        pairs, development = _pairs([(known, answers(source)), *others], on)
        retrained = None if again is None else _pairs([(known, again)], on)[0]
        document["comparisons"][source] = compare_pairs(
            pairs, examples, question, development=development, retrained=retrained
        )
    return document


def read_rows(request: CompareRequest, baseline: Predictor) -> ComparedOn:
    """Read the rows that are compared on, and those of development and train where there are any."""
    classes, kind = tuple(baseline.labels), baseline.kind
    if request.recipe is not None:
        task = read_recipe(request.recipe, Recipe).task.load()
        parts = {each: rows_of_split(task, each, classes) for each in (request.split, DEVELOPMENT, TRAIN)}
        rows = parts.pop(request.split)
        return ComparedOn(rows, parts.get(DEVELOPMENT), parts.get(TRAIN))

    def read(files: Sequence[Path], slice_columns: Sequence[str] = ()) -> LabelledRows:
        return rows_of_files(files, classes, request.options, kind=kind, slice_columns=slice_columns)

    development, train = (read(files) if files else None for files in (request.development, request.train))
    return ComparedOn(read(request.data, request.slice_columns), development, train)


@dataclass(frozen=True)
class _Answers:
    """Logits of one model, [examples, classes], in the order of the baseline's classes."""

    rows: Floats
    development: Floats | None


def _answers(model: Predictor, source: str, classes: Sequence[str], on: ComparedOn, baseline: Predictor) -> _Answers:
    """Predict with a model whose labels are those of the baseline, in whatever order."""
    if set(model.labels) != set(classes):
        raise ModelError(
            f"{source} has the labels {list(model.labels)}, the baseline {list(classes)}; allowed: the same"
        )
    if model.kind != baseline.kind:
        raise ModelError(f"{source} is a {model.kind} model and the baseline a {baseline.kind} one")
    order = [model.labels.index(name) for name in classes]
    logger.info("%s answers %d rows", source, len(on.rows.texts))
    # Correlations are of the scores that users see: where these pass through a sigmoid, of what comes out of it.
    answered = model.probabilities if are_scores(on.rows.labels) else model.logits
    rows = answered(on.rows.texts)[:, order]
    return _Answers(rows, None if on.development is None else answered(on.development.texts)[:, order])


def _pairs(seeds: Sequence[tuple[_Answers, _Answers]], on: ComparedOn) -> tuple[list[Pair], list[Pair] | None]:
    """Join the answers of baseline and compressed model of each seed; and those to development, where it is given."""
    pairs = [Pair(on.rows.labels, one.rows, other.rows) for one, other in seeds]
    if on.development is None:
        return pairs, None
    labels, both = on.development.labels, [(one.development, other.development) for one, other in seeds]
    return pairs, [Pair(labels, one, other) for one, other in both if one is not None and other is not None]


def examples_of(on: ComparedOn, classes: Sequence[str]) -> Examples:
    """Cut slices and fit the floors, as far as the rows allow."""
    texts, labels = on.rows.plain_texts, on.rows.labels
    scores = are_scores(labels)
    slices = {SCORE: quartiles(labels, "")} if scores else {CLASS: classes_of(labels, classes)}
    slices[LENGTH] = quartiles([len(text.split()) for text in texts], "words")
    floors: dict[str, Floats] = {}
    if on.train is not None:
        slices[UNKNOWN] = quartiles(unknown_words(texts, on.train.plain_texts), "of the words")
        floors = floor_logits(texts, labels, on.train.plain_texts, on.train.labels, len(classes))
        if scores and on.rows.pairs:
            floors[OVERLAP] = overlap_scores(on.rows.pairs, on.train.plain_texts)
    slices |= {name: values_of(cells) for name, cells in on.rows.columns.items()}
    return Examples(classes=() if scores else tuple(classes), floors=floors, slices=slices)
