"""The source of a domain experiment, prepared once before any training, such as by trimming its vocabulary."""

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

PREPARED, PREPARATION = "prepared", "prepared.json"


def prepare_source(plan: DomainPlan, out: Path) -> None:
    """Change the source as the experiment says, once, by what the corpus and the training texts of all tasks need.

    Args:
        plan: of the experiment.
        out: its folder. The model goes into `prepared`, and what was done into `prepared.json` when that is there.

    Raises:
        OutputError: if the folder holds a source that was prepared by other texts or settings.
    """
    log, recipe, source = out / PREPARATION, plan.recipe, plan.recipe.model.source
    assert source is not None
    make_writable_folder(out)
    task = plan.corpus if plan.domain.task_texts else with_task_texts(plan.corpus, plan.tasks)
    made_of = {"source": source, "steps": [to_plain(step) for step in plan.domain.prepare], "texts": task.hashes[TRAIN]}
    if log.exists():
        check_same(json.loads(log.read_text("utf-8"))["made_of"], made_of, out)
        return
    objective = objective_of(task.kind, recipe.objective, recipe.masking)
    seed = mix_seed(recipe.seed, PREPARED)
    torch.manual_seed(seed)
    model, tokenizer, logs = objective.load(source, ()), load_tokenizer(source), []
    parameters = {"before": count_parameters(model)}
    for step in plan.domain.prepare:
        job = Job(
            task=task,
            objective=objective,
            tokenizer=tokenizer,
            truncation=recipe.model.plain_truncation,
            seed=seed,
            folder=out / PREPARED,
        )
        made = step.compress(model, job)
        model, tokenizer = made.model, made.tokenizer
        logs.append({"method": step.method, **made.log.model_dump(mode="json")})
    save(model, tokenizer, out / PREPARED)
    parameters["after"] = count_parameters(model)
    found = {"steps": logs, "parameters": parameters, "size_bytes": weights_size_bytes(out / PREPARED)}
    write_json(log, {**found, "made_of": made_of})
