"""What a review found: error classes × models with their changes, and how far annotators agree."""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sklearn.metrics import cohen_kappa_score

from plankwise.core.errors import CheckpointError
from plankwise.review.sample import KINDS, MODELS
from plankwise.review.store import FILE, FOLDER, Answer, Item, ReviewStore


def summarize(store: ReviewStore) -> dict[str, Any]:
    """Count the error classes of each model's false positives and negatives, as the thesis reports them.

    Where several annotators have labelled an item, each counts with an equal share.

    Returns:
        `classes`: for each error class and kind the count of `baseline` and `compressed`, their `change`, and whether
        the class is `new`: of the compressed model alone; `kappa` of each two annotators, with the number of items that
        both have labelled; `progress`. It holds no text.

    Raises:
        CheckpointError: if there is no answer yet.
    """
    items, answers = {item.number: item for item in store.items()}, store.answers()
    if not answers:
        raise CheckpointError("no text has an answer yet; label some with review serve")
    shares = Counter(answer.item for answer in answers)
    counts: dict[tuple[str, str, str], float] = {}
    for answer in answers:
        item = items[answer.item]
        for model in item.models:
            key = (item.kind, answer.error_class, model)
            counts[key] = counts.get(key, 0.0) + 1 / shares[answer.item]
    names = sorted({answer.error_class for answer in answers})
    rows = [_row(kind, name, counts) for kind in KINDS for name in names]
    return {
        "title": store.meta("title"),
        "class": store.meta("class"),
        "drawn": store.meta("counts"),
        "items": len(items),
        "progress": dict(Counter(answer.annotator for answer in answers)),
        "classes": [row for row in rows if row["baseline"] or row["compressed"]],
        "kappa": agreements(answers),
    }


def answered_reviews(runs: Sequence[Path]) -> list[dict[str, Any]]:
    """Summarize the reviews in the folders of runs, as far as somebody has answered.

    Those of credentialed tasks are left out: names of error classes are typed while a text is read, and may quote it.
    """
    files = [run / FOLDER / FILE for run in runs]
    stores = [ReviewStore(file) for file in files if file.is_file()]
    return [summarize(store) for store in stores if store.answers() and store.meta("access") == "open"]


def _row(kind: str, name: str, counts: dict[tuple[str, str, str], float]) -> dict[str, Any]:
    baseline, compressed = (round(counts.get((kind, name, model), 0.0), 6) for model in MODELS)
    return {
        "kind": kind,
        "error_class": name,
        "baseline": baseline,
        "compressed": compressed,
        "change": round(compressed - baseline, 6),
        "new": not baseline and bool(compressed),
    }


def agreements(answers: Sequence[Answer]) -> list[dict[str, Any]]:
    """Compute Cohen's kappa (1960) of each two annotators on the items that both have labelled.

    It is None where both gave one and the same class to all of them: then chance alone explains the agreement.
    """
    by_annotator: dict[str, dict[int, str]] = {}
    for answer in answers:
        by_annotator.setdefault(answer.annotator, {})[answer.item] = answer.error_class
    found = []
    for one, other in itertools.combinations(sorted(by_annotator), 2):
        shared = sorted(by_annotator[one].keys() & by_annotator[other].keys())
        first, second = ([by_annotator[name][item] for item in shared] for name in (one, other))
        varied = len({*first, *second}) > 1
        kappa = float(cohen_kappa_score(first, second)) if varied else None
        found.append({"annotators": [one, other], "items": len(shared), "kappa": kappa})
    return found


def as_csv(store: ReviewStore) -> str:
    """Return every answer as a row of CSV, with its text and the models whose error it is."""
    items, text = {item.number: item for item in store.items()}, io.StringIO()
    table = csv.writer(text)
    table.writerow(
        ["id", "text", "text_pair", "gold", "predicted", "kind", *MODELS, "annotator", "error_class", "note"]
    )
    for answer in store.answers():
        item = items[answer.item]
        flags = [int(model in item.models) for model in MODELS]
        cells = [item.row_id, item.text, item.text_pair or "", item.gold, "|".join(item.predicted), item.kind]
        table.writerow([*cells, *flags, answer.annotator, answer.error_class, answer.note])
    return text.getvalue()


def as_label_studio(store: ReviewStore) -> str:
    """Return all texts as tasks of Label Studio, in its JSON, with an annotation for each annotator."""
    answers: dict[int, list[Answer]] = {}
    for answer in store.answers():
        answers.setdefault(answer.item, []).append(answer)
    tasks = [
        {"data": _data(item), "annotations": [_annotation(each) for each in answers.get(item.number, [])]}
        for item in store.items()
    ]
    return json.dumps(tasks, ensure_ascii=False, indent=1)


def _data(item: Item) -> dict[str, Any]:
    data = {"id": item.row_id, "text": item.text, "gold": item.gold, "predicted": list(item.predicted)}
    pair = {} if item.text_pair is None else {"text_pair": item.text_pair}
    return {**data, **pair, "kind": item.kind, "models": list(item.models)}


def _annotation(answer: Answer) -> dict[str, Any]:
    choice = {
        "from_name": "error_class",
        "to_name": "text",
        "type": "choices",
        "value": {"choices": [answer.error_class]},
    }
    note = {"from_name": "note", "to_name": "text", "type": "textarea", "value": {"text": [answer.note]}}
    return {"completed_by": {"email": answer.annotator}, "result": [choice, *([note] if answer.note else [])]}
