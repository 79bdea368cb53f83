"""The vocabulary of a domain experiment: trimmed once, before any training, to what the corpus and all tasks need."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from plankwise.core.files import make_writable_folder, write_json
from plankwise.core.recipe import to_plain
from plankwise.core.seeds import mix_seed
from plankwise.data.task import TRAIN
from plankwise.encoder.checkpoint import save
from plankwise.encoder.cost import count_parameters, weights_size_bytes
from plankwise.encoder.tokenizer import load_tokenizer
from plankwise.methods.method import Job
from plankwise.run.contents import check_same
from plankwise.run.domain.corpus import with_task_texts
from plankwise.run.domain.plan import DomainPlan
from plankwise.training.objectives.registry import objective_of

VOCABULARY, TRIMMING = "vocabulary", "vocabulary.json"


def trim_source(plan: DomainPlan, out: Path) -> None:
    """Trim the source's vocabulary to the corpus and the training texts of all tasks, once.

    Args:
        plan: of the experiment.
        out: its folder. The model goes into `vocabulary`, and what was done into `vocabulary.json` when that is there.

    Raises:
        OutputError: if the folder holds a vocabulary of other texts or settings.
    """
    log, vocabulary, recipe = out / TRIMMING, plan.domain.vocabulary, plan.recipe
    source = recipe.model.source
    assert vocabulary is not None
    assert source is not None
    make_writable_folder(out)
    task = plan.corpus if plan.domain.task_texts else with_task_texts(plan.corpus, plan.tasks)
    made_of = {"source": source, "settings": to_plain(vocabulary), "texts": task.hashes[TRAIN]}
    if log.exists():
        check_same(json.loads(log.read_text("utf-8"))["made_of"], made_of, out)
        return
    objective = objective_of(task.kind, recipe.objective, recipe.masking)
    seed = mix_seed(recipe.seed, VOCABULARY)
    torch.manual_seed(seed)
    model = objective.load(source, ())
    job = Job(
        task=task,
        objective=objective,
        tokenizer=load_tokenizer(source),
        truncation=recipe.model.plain_truncation,
        seed=seed,
        folder=out / VOCABULARY,
    )
    made = vocabulary.compress(model, job)
    save(made.model, made.tokenizer, out / VOCABULARY)
    parameters = {"before": count_parameters(model), "after": count_parameters(made.model)}
    found = {"parameters": parameters, "size_bytes": weights_size_bytes(out / VOCABULARY)}
    write_json(log, {**made.log.model_dump(mode="json"), **found, "made_of": made_of})
