"""One candidate from settings to figures: made by the pipeline, exported, scored as an artefact, and timed in turns.

What is scored and timed is the artefact itself, in the runtime and precision it will run in, never its model in torch.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from plankwise.core.errors import PlankwiseError
from plankwise.core.files import folder_bytes
from plankwise.core.progress import quiet_loggers
from plankwise.core.recipe import to_plain, validate
from plankwise.core.records import Interval, Record
from plankwise.data.batching.inputs import Text
from plankwise.data.task import DEVELOPMENT, TRAIN, Task
from plankwise.deploy.export.export import export
from plankwise.deploy.manifest import is_artefact, read_manifest
from plankwise.deploy.predictor import Predictor
from plankwise.evaluation.benchmark.models import TITLES, Export
from plankwise.evaluation.benchmark.paired_timing import PairedTiming, time_pairs
from plankwise.evaluation.benchmark.workload import texts_of_split
from plankwise.evaluation.comparison import Pair, agreement, retained_performance
from plankwise.evaluation.metrics import METRICS, Floats
from plankwise.run import pipeline
from plankwise.run.artefacts import CALIBRATED, COMPARED, sample_texts
from plankwise.run.pipeline import check
from plankwise.run.recipe import Recipe
from plankwise.run.stages import BASELINE
from plankwise.search.budget.candidate import Candidate, Failure, Outcome, Steps, model_key, shared_steps

logger = logging.getLogger(__name__)
MODELS, ARTEFACTS = "models", "artefacts"
RESAMPLES = 2000
TIMED = 256  # texts, at most
QUIET = ("plankwise.run.stages", "plankwise.run.pipeline", "plankwise.encoder", "plankwise.deploy", "plankwise.data")
Run = Callable[..., Record]
Timer = Callable[..., Mapping[str, PairedTiming]]


@dataclass(frozen=True)
class Original:
    """The model before compression, as every candidate is compared with it.

    Attributes:
        logits: on development, [rows, labels], of the reference.
        reference: folder of the artefact that speed-ups refer to.
        title: of that artefact's runtime and precision.
    """

    logits: Floats
    reference: Path
    title: str


class Evaluator:
    """Makes and measures candidates of one recipe, in one folder.

    Args:
        recipe: with the task and the model; its steps are replaced by those of each candidate.
        task: of that recipe, loaded; candidates are made with it.
        folder: of the search.
        scored: the task that candidates are scored and timed on, where that has more rows; `task` by default.
        run: runs a recipe.
        exporter: makes artefacts.
        timer: times artefacts.
    """

    def __init__(
        self,
        recipe: Recipe,
        task: Task,
        folder: Path,
        *,
        scored: Task | None = None,
        run: Run = pipeline.run,
        exporter: Export = export,
        timer: Timer = time_pairs,
    ) -> None:
        self.recipe, self._made_with, self.task, self.folder = recipe, task, scored or task, folder
        self._run, self._export, self._time = run, exporter, timer
        self._known: dict[str, Steps] = {}

    def measure(self, candidate: Candidate, original: Original) -> Outcome | Failure:
        """Make, score and time a candidate; a fault of it is an answer, too."""
        begun = time.perf_counter()
        try:
            model, record = self.model(candidate.steps)
            artefact = self.artefact(candidate, model)
            return self._measured(candidate, original, artefact, record=record, begun=begun)
        except PlankwiseError as error:
            return Failure(candidate=candidate, fault=str(error), seconds=time.perf_counter() - begun)

    def model(self, steps: Steps) -> tuple[Path, Record]:
        """Make the model of some steps, from the longest sequence of them that was made before."""
        out = self.folder / MODELS / model_key(steps)
        checked = check(self.with_steps(steps), self._made_with)
        start = self._nearest(steps)
        with quiet_loggers(*QUIET):
            # No bars: a live table may be shown. Trainings log their progress.
            record = self._run(checked, out, resume=True, until="steps", start_from=start)
        self._known[model_key(steps)] = steps
        last = f"steps/{len(steps):02d}-{steps[-1]['method']}" if steps else BASELINE
        return out / last, record

    def remember(self, steps: Steps) -> None:
        """Take over stages of a model that an earlier process made, if it did."""
        if (self.folder / MODELS / model_key(steps)).exists():
            self._known[model_key(steps)] = steps

    def with_steps(self, steps: Steps) -> Recipe:
        """Return the recipe with these steps."""
        plain = {**to_plain(self.recipe), "steps": list(steps)}
        return validate(plain, Recipe)

    def artefact(self, candidate: Candidate, model: Path) -> Path:
        """Export a model, unless that was done before."""
        out = self.folder / ARTEFACTS / f"{candidate.model_key}-{candidate.runtime}-{candidate.precision}"
        if out.exists():
            return out
        options: dict[str, Any] = {"texts": self._texts(DEVELOPMENT, COMPARED)}
        if candidate.precision == "int8":
            # The score on development decides, not the largest change of a single probability.
            options |= {"calibration": self._texts(TRAIN, CALIBRATED), "tolerance": 1.0}
        with quiet_loggers(*QUIET):
            self._export(str(model), out, to=candidate.runtime, precision=candidate.precision, **options)
        return out

    def logits(self, folder: str | Path, split: str = DEVELOPMENT) -> Floats:
        """Predict a split with a model or an artefact; logits are [rows, labels]."""
        with quiet_loggers(*QUIET):  # how much of the texts is read is the same for every candidate
            predictor = Predictor(folder, truncation=self.recipe.model.plain_truncation)
            return predictor.logits(self._texts(split))

    def retained(
        self, logits: Floats, original: Floats, split: str = DEVELOPMENT, metric: str | None = None
    ) -> Interval:
        """Compute the retained performance, by default by the first metric, with what few rows cannot show."""
        labels = self.labels(split)
        found = retained_performance([Pair(labels, original, logits)], metric or self.task.metrics[0], RESAMPLES)
        if found is None or not np.isfinite(logits).all():
            return Interval(value=float("nan"), low=float("nan"), high=float("nan"))
        return with_unseen_changes(found, agreement(Pair(labels, original, logits)), len(labels))

    def labels(self, split: str) -> Any:
        """Return the labels of a split: indices, flags for several labels, or scores."""
        return np.asarray(self.task.splits[split]["label"][:])

    def time(self, folders: Mapping[str, Path], split: str = DEVELOPMENT) -> Mapping[str, PairedTiming]:
        """Time models and artefacts in turns on the texts of a split, against the first of them."""
        return self._time(folders, texts_of_split(self.task.splits[split], TIMED))

    def _measured(
        self,
        candidate: Candidate,
        original: Original,
        artefact: Path,
        *,
        record: Record,
        begun: float,
    ) -> Outcome:
        assert record.baseline is not None
        logits, labels = self.logits(artefact), self.labels(DEVELOPMENT)
        timing = self.time({"reference": original.reference, "candidate": artefact})["candidate"]
        # A copy of a model is no artefact; torch computes it in fp32.
        manifest = read_manifest(artefact) if is_artefact(artefact) else None
        return Outcome(
            candidate=candidate,
            scores={name: METRICS[name](labels, logits) for name in self.task.metrics},
            retained=self.retained(logits, original.logits),
            agreement=agreement(Pair(labels, original.logits, logits)),
            speedup=timing.speedup,
            reference=original.title,
            ms_per_text=timing.ms_per_text,
            size_bytes=folder_bytes(artefact),
            parameters=(record.steps[-1] if record.steps else record.baseline).cost.parameters,
            train_seconds=sum(step.train_seconds for step in record.steps),
            seconds=time.perf_counter() - begun,
            caveats=(*(() if manifest is None else manifest.caveats), *timing.warnings),
            certifies=manifest is None or manifest.independent,
        )

    def _texts(self, split: str, most: int | None = None) -> list[Text]:
        rows = self.task.splits[split]
        return texts_of_split(rows, len(rows)) if most is None else sample_texts(rows, most)

    def _nearest(self, steps: Steps) -> Path | None:
        """Return the folder of the model that shares most of these steps, from the first on."""
        shared = {key: shared_steps(known, steps) for key, known in self._known.items()}
        best = max(shared, key=lambda key: shared[key], default=None)
        return None if best is None or best == model_key(steps) else self.folder / MODELS / best

    def drop(self, candidate: Candidate) -> None:
        """Remove the artefact of a candidate that will not be chosen."""
        key = f"{candidate.model_key}-{candidate.runtime}-{candidate.precision}"
        shutil.rmtree(self.folder / ARTEFACTS / key, ignore_errors=True)


def with_unseen_changes(found: Interval, agreement: float, rows: int) -> Interval:
    """Lower the end of an interval to what so few rows can say at all.

    Where two models agree on every row, every resample gives the same ratio, and the bootstrap claims certainty. Yet a
    share of up to 1 − 0.025^(1/n) of all texts may get another label without one among n rows showing it (the exact
    interval of Clopper and Pearson 1934), and each of these may be an error.

    Args:
        found: by the bootstrap.
        agreement: share of rows with the same label; of scores, the correlation of their ranks.
        rows: their number.
    """
    unseen = 1 - 0.025 ** (1 / rows) if agreement == 1.0 else 0.0
    return found.model_copy(update={"low": min(found.low, found.value - unseen)})


def title_of(runtime: str, precision: str) -> str:
    """Return how tables name a runtime and its precision."""
    return f"{TITLES[runtime]} {precision}"
