"""Verbs that inspect models and runs: score, time, report, describe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from plankwise.cli.options import (
    MAX_ROUNDS,
    MAX_THREADS,
    MAX_TOKENS,
    AsJson,
    Delimiter,
    Encoding,
    Set,
    app,
    print_document,
    recipe_of,
)


@app.command()
def evaluate(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Folder of a fine-tuned model.")],
    recipe: Annotated[Path, typer.Option(help="The recipe whose task to score on.")],
    split: Annotated[str, typer.Option(help="development, test or train.")] = "development",
    overrides: Set = None,
    as_json: AsJson = False,
) -> None:
    """Score a model on one split of a task, with bootstrap intervals."""
    from plankwise.core.intervals import format_interval
    from plankwise.run.evaluate import evaluate as score

    scores = score(model, recipe_of(recipe, overrides, None), split)
    print_document(
        scores,
        as_json,
        [
            f"{name}: {format_interval(each['value'], each['low'], each['high'], digits=4)}"
            for name, each in scores["scores"].items()
        ],
    )


@app.command()
def bench(
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL...", help="Folders of models, or exported ones; the first is the baseline."),
    ],
    recipe: Annotated[Path | None, typer.Option(help="The recipe whose test texts to time on.")] = None,
    texts: Annotated[Path | None, typer.Option(help="Or a file: .txt has one text a line, else a table.")] = None,
    column: Annotated[str, typer.Option(help="The column of that table.")] = "text",
    encoding: Encoding = None,
    delimiter: Delimiter = None,
    rounds: Annotated[int, typer.Option(min=3, max=MAX_ROUNDS, help="Interleaved rounds.")] = 9,
    threads: Annotated[
        int | None, typer.Option(min=1, max=MAX_THREADS, help="Threads of each model; all cores by default.")
    ] = None,
    budget: Annotated[int, typer.Option(min=1, max=100 * MAX_TOKENS, help="Padded tokens of a batch.")] = 512,
    baselines: Annotated[bool, typer.Option(help="Time the first also in ONNX Runtime and OpenVINO.")] = True,
    memory: Annotated[bool, typer.Option(help="Measure peak memory, in a process for each model.")] = True,
    overrides: Set = None,
    as_json: AsJson = False,
) -> None:
    """Time models on the CPU against the first of them, in interleaved rounds."""
    from plankwise.cli.tables import print_table, timing_table
    from plankwise.data.text_files import TextFormat
    from plankwise.run.evaluate import bench as time_all

    read = None if recipe is None else recipe_of(recipe, overrides, None)
    form = TextFormat(encoding, delimiter)
    options: dict[str, Any] = {"rounds": rounds, "budget": budget, "baselines": baselines, "memory": memory}
    timing = time_all(models, read, texts, column, threads, form, **options)
    if as_json:
        print_document(timing, as_json, [])
    else:
        print_table(timing_table(timing))


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of finished runs; seeds are pooled.")],
    out: Annotated[Path | None, typer.Option(help="Write an HTML page here.")] = None,
    with_texts: Annotated[
        bool, typer.Option("--with-texts", help="Show texts whose answers changed on the page; open tasks only.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Print the table of finished runs, with seeds pooled, as Markdown; write it as an HTML page."""
    from dataclasses import asdict

    from plankwise.core.errors import RecipeError
    from plankwise.report.run_report import check_page, markdown, table, write_report
    from plankwise.review.summary import answered_reviews
    from plankwise.run.flips import flips_of

    if with_texts and out is None:
        raise RecipeError("--with-texts is for the page; give --out too")
    if out is not None:
        check_page(runs, out)
    rows = table(runs)
    if out is not None:
        flips = [flips_of(run) for run in runs] if with_texts else []
        write_report(runs, out, reviews=answered_reviews(runs), flips=flips)
    # Intervals are pydantic models inside dataclasses: asdict stops at them.
    document = [
        {name: value.model_dump() if hasattr(value, "model_dump") else value for name, value in asdict(row).items()}
        for row in rows
    ]
    print_document(document, as_json, [markdown(rows)])


@app.command()
def schema() -> None:
    """Print the JSON Schema of recipes, for editors."""
    from plankwise.run.recipe import json_schema

    typer.echo(json.dumps(json_schema(), indent=1))
