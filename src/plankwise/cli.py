"""The command line: one verb for each part of the work. Heavy imports wait until a verb needs them."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plankwise.core.errors import PlankwiseError, RecipeError

if TYPE_CHECKING:
    from plankwise.core.records import Record
    from plankwise.study.pipeline import Checked

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Makes BERT-class encoders small and fast, and proves what was kept.",
)

data_app = typer.Typer(no_args_is_help=True, help="Make a task's data.")
app.add_typer(data_app, name="data")

RecipePath = Annotated[Path, typer.Argument(metavar="RECIPE", help="A YAML recipe.")]
Out = Annotated[Path, typer.Option(help="Folder of the run.")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key: steps.0.modules=4.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder, or begin it.")]
Seed = Annotated[int | None, typer.Option(help="Override the recipe's seed.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan and what it costs; train nothing.")]
NewFolder = Annotated[Path, typer.Option("--out", help="A folder that is new or empty.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output, nothing else.")]


@app.command()
def run(
    recipe: RecipePath,
    out: Out,
    overrides: Set = None,
    resume: Resume = False,
    seed: Seed = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Do the whole chain: baseline, every step, evaluation, record and report."""
    _run(_checked(recipe, overrides, seed), out, resume, dry_run, as_json)


@app.command()
def finetune(
    recipe: RecipePath,
    out: Out,
    overrides: Set = None,
    resume: Resume = False,
    seed: Seed = None,
    as_json: AsJson = False,
) -> None:
    """Train the baseline only. The test split stays untouched; `run --resume` or `compress` goes on from here."""
    from plankwise.study.pipeline import run as run_chain

    checked = _checked(recipe, overrides, seed)
    record = run_chain(checked, out, resume=resume, progress=not as_json, until="baseline")
    _print_record(record, out, as_json)


@app.command()
def pretrain(
    recipe: RecipePath,
    out: Out,
    overrides: Set = None,
    resume: Resume = False,
    seed: Seed = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Train a language model on a corpus, from scratch or onwards, and compress it by the recipe's steps."""
    from plankwise.core.errors import RecipeError

    checked = _checked(recipe, overrides, seed)
    if checked.task.kind != "masked_lm":
        raise RecipeError(f"{recipe}: pretrain takes a task of name 'corpus', not '{checked.recipe.task.name}'")
    _run(checked, out, resume, dry_run, as_json)


@app.command()
def domain(
    recipe: Annotated[Path, typer.Argument(metavar="DOMAIN", help="YAML: a language model's recipe, tasks and seeds.")],
    out: Out,
    overrides: Set = None,
    resume: Resume = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Compress a language model once, fine-tune the large and the small for every task, and compare."""
    from plankwise.study.domain import check_domain, read_domain, run_domain
    from plankwise.study.domain_table import markdown

    plan = check_domain(recipe, read_domain(recipe, overrides or []))
    if dry_run:
        _print_plan(plan.language_model, as_json)
        return
    document = run_domain(plan, out, resume=resume, progress=not as_json)
    _print_document(document, as_json, [markdown(document)])


@app.command()
def compress(
    recipe: RecipePath,
    out: Out,
    baseline: Annotated[
        Path, typer.Option(help="A finished baseline: RUN/baseline of a run with the same data and seed.")
    ],
    overrides: Set = None,
    resume: Resume = False,
    seed: Seed = None,
    as_json: AsJson = False,
) -> None:
    """Compress a baseline that was trained already, and prove what was kept."""
    from plankwise.study.pipeline import run as run_chain

    checked = _checked(recipe, overrides, seed)
    record = run_chain(checked, out, resume=resume, progress=not as_json, baseline=baseline)
    _print_record(record, out, as_json)


@app.command()
def evaluate(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Folder of a fine-tuned model.")],
    recipe: Annotated[Path, typer.Option(help="The recipe whose task to score on.")],
    split: Annotated[str, typer.Option(help="development, test or train.")] = "development",
    overrides: Set = None,
    as_json: AsJson = False,
) -> None:
    """Score a model on one split of a task, with bootstrap intervals."""
    from plankwise.study.inspect import evaluate as score

    scores = score(model, _recipe(recipe, overrides, None), split)
    _print_document(
        scores,
        as_json,
        [
            f"{name}: {each['value']:.4f} [{each['low']:.4f}, {each['high']:.4f}]"
            for name, each in scores["scores"].items()
        ],
    )


@app.command()
def bench(
    baseline: Annotated[Path, typer.Argument(metavar="BASELINE", help="Folder of the larger model.")],
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Folder of the smaller model.")],
    recipe: Annotated[Path, typer.Option(help="The recipe whose test texts give the lengths.")],
    rounds: Annotated[int, typer.Option(min=3, help="Interleaved rounds.")] = 9,
    threads: Annotated[int | None, typer.Option(min=1, help="Torch threads; all cores by default.")] = None,
    overrides: Set = None,
    as_json: AsJson = False,
) -> None:
    """Time two models against each other, taking turns."""
    from plankwise.study.inspect import bench as time_both
    from plankwise.study.show import timing_lines

    timing = time_both(baseline, model, _recipe(recipe, overrides, None), rounds, threads)
    _print_document(timing, as_json, timing_lines(timing))


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of finished runs; seeds are pooled.")],
    out: Annotated[Path | None, typer.Option(help="Write an HTML page here.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make the table over finished runs, pooling seeds, as Markdown or as an HTML page."""
    from dataclasses import asdict

    from plankwise.study.report import markdown, table, write_report

    rows = table(runs)
    if out is not None:
        write_report(runs, out)
    document = [
        {name: value.model_dump() if hasattr(value, "model_dump") else value for name, value in asdict(row).items()}
        for row in rows
    ]
    _print_document(document, as_json, [markdown(rows)])


@app.command()
def study(
    recipe: Annotated[Path, typer.Argument(metavar="STUDY", help="A YAML study: a recipe and what to vary in it.")],
    out: Annotated[Path, typer.Option(help="Folder of the study.")],
    overrides: Set = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the study in the folder or the storage, join it, or begin it.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check every setting, count trials, and say roughly how long they take.")
    ] = False,
    report_only: Annotated[
        bool, typer.Option("--report", help="Report on the trials that are finished so far; train nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Vary hyperparameters of a recipe, one trial for each setting and seed, and say what they do to the score."""
    missing = [each for each in ("optuna", "matplotlib") if importlib.util.find_spec(each) is None]
    if missing:
        raise RecipeError(f"a study needs {' and '.join(missing)}: pip install 'plankwise[study]'")
    from plankwise.study.hyperparameters import read_study

    plan = read_study(recipe, overrides or [])
    if dry_run:
        from plankwise.study.study_cost import cost_lines, estimate_study

        cost = estimate_study(plan)
        _print_document(cost, as_json, cost_lines(cost))
        return
    from plankwise.study.search import search
    from plankwise.study.show import print_table
    from plankwise.study.study_report import findings_table, write_study

    document = write_study(plan, search(plan, out, resume or report_only, train=not report_only), out)
    if as_json:
        typer.echo(json.dumps(document))
    else:
        print_table(findings_table(document, out))


@app.command()
def schema() -> None:
    """Print the JSON Schema of recipes, for editors."""
    from plankwise.study.plan import json_schema

    typer.echo(json.dumps(json_schema(), indent=1))


@data_app.command()
def mimic(
    mimic_dir: Annotated[Path, typer.Option(help="Folder with MIMIC-III's tables, .csv or .csv.gz.")],
    out: NewFolder,
    definition: Annotated[str, typer.Option(help="admission-notes or first-48h.")] = "admission-notes",
    seed: Annotated[int, typer.Option(help="Deals patients out to the splits.")] = 0,
    memory: Annotated[int, typer.Option(help="MB that DuckDB may use; the rest goes to disk, beside --out.")] = 512,
    as_json: AsJson = False,
) -> None:
    """Make in-hospital mortality out of MIMIC-III's notes: train.jsonl, dev.jsonl, test.jsonl and counts.json."""
    from plankwise.data.mimic import extract
    from plankwise.study.show import counts_table, print_table

    counts = extract(mimic_dir, out, definition, seed, memory, progress=not as_json)
    if as_json:
        typer.echo(json.dumps(counts))
    else:
        print_table(counts_table(counts, out))


@data_app.command()
def synthetic_mimic(
    out: NewFolder,
    admissions: Annotated[int, typer.Option(help="How many admissions.")] = 1000,
    seed: Annotated[int, typer.Option(help="The same seed gives the same tables.")] = 0,
    marker: Annotated[str, typer.Option(help="A word for every note, to search a run's outputs for.")] = "",
    as_json: AsJson = False,
) -> None:
    """Write tables of MIMIC-III's schema with made-up patients, to try things out without access to real ones."""
    from plankwise.data.synthetic_mimic import write_synthetic

    rows = write_synthetic(out, admissions, seed, marker, progress=not as_json)
    _print_document(rows, as_json, [f"{out / table}.csv: {count} rows" for table, count in rows.items()])


def _recipe(path: Path, overrides: list[str] | None, seed: int | None) -> Any:
    from plankwise.core.recipe import read_recipe
    from plankwise.study.plan import Recipe

    return read_recipe(path, Recipe, [*(overrides or []), *([] if seed is None else [f"seed={seed}"])])


def _checked(path: Path, overrides: list[str] | None, seed: int | None) -> Checked:
    from plankwise.study.pipeline import check

    return check(_recipe(path, overrides, seed))


def _run(checked: Checked, out: Path, resume: bool, dry_run: bool, as_json: bool) -> None:
    if dry_run:
        _print_plan(checked, as_json)
        return
    from plankwise.study.pipeline import run as run_chain

    _print_record(run_chain(checked, out, resume=resume, progress=not as_json), out, as_json)


def _print_plan(checked: Checked, as_json: bool) -> None:
    from plankwise.study.estimate import estimate
    from plankwise.study.show import plan_table, print_table

    plan = estimate(checked)
    if as_json:
        typer.echo(json.dumps(plan))
    else:
        print_table(plan_table(plan))


def _print_record(record: Record, out: Path, as_json: bool) -> None:
    from plankwise.core.runtime import is_main_process
    from plankwise.study.show import print_table, record_table

    if not is_main_process():
        return
    if as_json:
        typer.echo(record.model_dump_json())
    else:
        print_table(record_table(record, out))


def _print_document(document: Any, as_json: bool, lines: list[str]) -> None:
    typer.echo(json.dumps(document) if as_json else "\n".join(lines))


def main() -> None:
    """Run the command line; a user's mistake ends in one line on standard error and exit code 2."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for name in ("httpx", "accelerate", "datasets", "torch.distributed"):
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        app()
    except PlankwiseError as error:
        typer.echo(f"plankwise: {error}", err=True)
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        typer.echo("plankwise: interrupted; a run goes on with --resume", err=True)
        raise SystemExit(130) from None
