"""The model card of a run: `README.md` beside the model, with the metadata that the Hugging Face Hub reads.

Everything in it follows from the record and the saved logits; it holds names of labels and numbers, never text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCardData, metadata_load
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from plankwise.core.files import write_text
from plankwise.core.intervals import MISSING
from plankwise.core.records import Final, Record, format_optional
from plankwise.evaluation.comparison import Pair
from plankwise.evaluation.evidence import class_f1
from plankwise.evaluation.saved_predictions import read_predictions
from plankwise.evaluation.score_metrics import are_scores
from plankwise.report.templates import format_size

FILE, CREDENTIALED = "README.md", "credentialed"
HUB_METRICS = {"macro_f1": "f1", "micro_f1": "f1", "germeval_f1": "f1", "auroc": "roc_auc"}  # as the Hub calls them
CARRIED_OVER = ("language", "license", "license_name", "license_link", "datasets")
PLAIN = """\
from transformers import AutoModelForSequenceClassification, AutoTokenizer

model = AutoModelForSequenceClassification.from_pretrained("FOLDER")
tokenizer = AutoTokenizer.from_pretrained("FOLDER")
"""
SHAPED = """\
import plankwise
from transformers import AutoTokenizer

model = plankwise.load("FOLDER")  # its layers differ in size: plain Transformers refuses it
tokenizer = AutoTokenizer.from_pretrained("FOLDER")
"""
LOST = 0.02  # of a class' F1, from which on the card names it as a known regression


def write_model_card(run: Path, model: Path, record: Record, *, plain: bool) -> None:
    """Write the card of a finished run beside its model.

    Args:
        run: folder of the run, with its saved logits.
        model: folder of the model.
        record: of the run, with its final evaluation.
        plain: whether Transformers loads the model; otherwise only plankwise does.
    """
    write_text(model / FILE, model_card(record, read_predictions(run)[1], plain=plain))


def model_card(record: Record, pair: Pair, *, plain: bool) -> str:
    """Return the card: metadata as YAML, then what was done, what was kept, what was lost, and how to load it.

    Args:
        record: of a finished run.
        pair: logits of both models on the test split.
        plain: as for `write_model_card`.
    """
    assert record.final is not None
    parts = [
        f"---\n{metadata_of(record).to_yaml()}\n---",
        f"# {record.name}",
        _summary(record, record.final),
        _table(record, record.final, scores=are_scores(pair.labels)),
        "" if are_scores(pair.labels) else _classes(record, pair),
        _regressions(record, record.final, pair),
        _speed(record, record.final),
        _loading(plain),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def card_of_lines(source: str, kept: Sequence[str], *, plain: bool) -> str:
    """Return the card of a model that was made of `source`, with what was measured in lines of text.

    Args:
        source: folder or Hub id of the model before compression.
        kept: what was measured, a line each.
        plain: whether Transformers loads the model.
    """
    metadata = ModelCardData(
        **_source_metadata(source),
        base_model=_base_model(source, known_card(source)),
        library_name="transformers",
        pipeline_tag="text-classification",
        tags=["plankwise", "compressed"],
    )
    name = Path(source).name if Path(source).exists() else source
    lines = "\n".join(f"- {cell(each)}" for each in kept)
    body = f"# {cell(name)}, compressed with plankwise\n\n## What was kept\n\n{lines}\n\n{_loading(plain)}\n"
    return f"---\n{metadata.to_yaml()}\n---\n\n{body}"


def metadata_of(record: Record) -> ModelCardData:
    """Return what the Hub reads: base model, task, language and licence where the source names them, and scores."""
    assert record.final is not None
    source = record.recipe["model"].get("source")
    known = _source_metadata(source)
    return ModelCardData(
        **known,
        **({"access": record.task["access"]} if record.task.get("access") == CREDENTIALED else {}),
        base_model=_base_model(source, known_card(source)),
        library_name="transformers",
        pipeline_tag="text-classification",
        tags=["plankwise", "compressed", *dict.fromkeys(step.name for step in record.steps)],
        model_name=record.name,
        eval_results=[
            EvalResult(
                task_type="text-classification",
                dataset_type=re.sub(r"[^\w.-]+", "-", record.task["name"].lower()).strip("-") or "task",
                dataset_name=record.task["name"],
                dataset_split="test",
                metric_type=HUB_METRICS.get(name, name),
                metric_name=name,
                metric_value=round(value, 4),
            )
            for name, value in record.final.scores.items()
        ],
    )


def known_card(source: str | None) -> Mapping[str, Any]:
    """Return the metadata of a local source's own card; empty where it has none that can be read."""
    path = Path(source or "") / FILE
    if source is None or not path.is_file():
        return {}
    try:
        return metadata_load(path) or {}
    except (ValueError, yaml.YAMLError):
        return {}


def _source_metadata(source: str | None) -> dict[str, Any]:
    card = known_card(source)
    return {key: card[key] for key in CARRIED_OVER if card.get(key)}


def _base_model(source: str | None, card: Mapping[str, Any]) -> Any:
    """Return the id of the source on the Hub; of a local folder, what its own card names."""
    if source is None or Path(source).exists():
        return card.get("base_model")
    try:
        validate_repo_id(source)
    except HFValidationError:
        return None
    return source


def _summary(record: Record, final: Final) -> str:
    steps = ", ".join(step.name for step in record.steps) or "no step"
    ratio = f"{final.compression_ratio:.2f} times fewer parameters"
    source = record.recipe["model"].get("source") or "a model trained from scratch"
    name = Path(source).name if Path(source).exists() else source
    examples = f"{record.task['rows'].get('test', 0):,} examples"
    return (
        f"{name}, fine-tuned for {record.task['name']} and compressed with plankwise by {steps}: {ratio}, "
        f"{format_size(final.cost.size_bytes)}. All figures are on the test split, {examples}, with 95 % bootstrap "
        f"intervals; seed {record.seed}."
    )


def _table(record: Record, final: Final, *, scores: bool) -> str:
    lines = ["| metric | baseline | this model | retained | above chance |", "| --- | ---: | ---: | ---: | ---: |"]
    for name in record.task["metrics"]:
        above = final.chance_corrected.get(name)
        kept = format_optional(final.retained_performance[name])
        lines.append(
            f"| {name} | {final.baseline_intervals[name]} | {final.score_intervals[name]} | {kept} | "
            f"{MISSING if above is None else f'{above:.3f}'} |"
        )
    guess = ", ".join(f"{value:.3f} {name}" for name, value in final.majority_scores.items())
    what = "Always answering the mean of train" if scores else "Always guessing the majority class"
    return "\n".join(["## What was kept", "", *lines, "", f"{what} scores {guess}."])


def _class_scores(record: Record, pair: Pair) -> dict[str, tuple[float, float]]:
    labels = record.task["labels"]
    metrics = {name: class_f1(index, len(labels)) for index, name in enumerate(labels)}
    return {
        name: (metric(pair.labels, pair.baseline), metric(pair.labels, pair.compressed))
        for name, metric in metrics.items()
    }


def _classes(record: Record, pair: Pair) -> str:
    lines = ["| class | F1, baseline | F1, this model | change |", "| --- | ---: | ---: | ---: |"]
    for name, (old, new) in _class_scores(record, pair).items():
        lines.append(f"| {cell(name)} | {old:.3f} | {new:.3f} | {new - old:+.3f} |")
    return "\n".join(lines)


def _regressions(record: Record, final: Final, pair: Pair) -> str:
    kept = final.behaviour
    if are_scores(pair.labels):
        return (
            f"## Known regressions\n\nScores change by {kept['mean_change']:.3f} standard deviations on average and "
            f"{kept['largest_change']:.2f} at most; their ranks correlate with the baseline's by "
            f"{kept['rank_correlation']:.3f}."
        )
    lost = [cell(name) for name, (old, new) in _class_scores(record, pair).items() if old - new > LOST]
    lines = [
        "## Known regressions",
        "",
        f"{kept['negative_flip_rate']:.1%} of all answers were right and became wrong, "
        f"{kept['positive_flip_rate']:.1%} became right; {kept['label_loyalty']:.1%} are the same as the baseline's.",
    ]
    if lost:
        lines.append(f"F1 fell by more than {LOST:g} for: {', '.join(lost)}.")
    return "\n".join(lines)


def _speed(record: Record, final: Final) -> str:
    cpu, timed = record.environment.get("cpu") or {}, final.timed_in
    machine = f"{cpu.get('model', 'an unnamed processor')}, {final.benchmark.get('threads', '?')} threads"
    over = "".join(f", {value:.2f} times the baseline in {name}" for name, value in final.speedup_over.items())
    return (
        f"## Speed\n\nOn {machine}: {final.speedup:.2f} times as fast in {timed.compressed} as the baseline in "
        f"{timed.baseline}{over}, on texts of the test split in the batches of prediction."
    )


def _loading(plain: bool) -> str:
    return f"## How to load it\n\n```python\n{PLAIN if plain else SHAPED}```"


def cell(name: str) -> str:
    """Return a label's name as text of a Markdown table."""
    return re.sub(r"([\\`*_{}\[\]<>|#])", r"\\\1", " ".join(name.split()))
