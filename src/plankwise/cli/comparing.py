"""The verb that compares models, or finished runs, and judges whether a compressed model is as good as its baseline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plankwise.cli.options import AsJson, Delimiter, Encoding, Label, Names, Pair, Separator, Text, app

if TYPE_CHECKING:
    from plankwise.run.compare.models import CompareRequest

Models = Annotated[
    list[str],
    typer.Argument(
        metavar="BASELINE COMPRESSED... | RUN...",
        help="Folders, artefacts or Hub ids, the baseline first; or finished runs, seeds of a recipe pooled.",
    ),
]
Data = Annotated[
    list[Path] | None, typer.Option(help="Rows with labels that no model was trained on; may be repeated.")
]
RecipeOf = Annotated[Path | None, typer.Option(help="Or the recipe whose task to compare on.")]
Split = Annotated[str, typer.Option(help="Of that task: test or development.")]
Development = Annotated[
    list[Path] | None, typer.Option(help="Other rows with labels, to calibrate and choose thresholds on.")
]
Train = Annotated[list[Path] | None, typer.Option(help="The rows that the baseline was trained on, for the floors.")]
Slices = Annotated[
    list[str] | None, typer.Option("--slice", metavar="COLUMN", help="A column of --data to cut slices by.")
]
Retrained = Annotated[
    str | None, typer.Option(metavar="MODEL", help="The baseline with another seed: the floor of all flips.")
]
Also = Annotated[
    list[str] | None,
    typer.Option(metavar="BASELINE=COMPRESSED", help="Both of another training seed, to pool; may be repeated."),
]
Metrics = Annotated[
    list[str] | None, typer.Option("--metric", help="The first decides; macro_f1 and accuracy if not given.")
]
Margin = Annotated[float, typer.Option(help="Largest loss of a metric that is acceptable.")]
ClassMargin = Annotated[float, typer.Option(help="Largest loss of a class' F1 that is acceptable.")]
Precision = Annotated[float, typer.Option(help="Of the operating points.")]
Target = Annotated[Path | None, typer.Option(help="Also write the JSON document to this file.")]


@app.command()
def compare(
    models: Models,
    data: Data = None,
    recipe: RecipeOf = None,
    split: Split = "test",
    development: Development = None,
    train: Train = None,
    text: Text = None,
    pair: Pair = None,
    label: Label = None,
    names: Names = None,
    label_separator: Separator = None,
    slice_columns: Slices = None,
    also: Also = None,
    retrained: Retrained = None,
    metrics: Metrics = None,
    margin: Margin = 0.01,
    class_margin: ClassMargin = 0.05,
    precision: Precision = 0.9,
    out: Target = None,
    encoding: Encoding = None,
    delimiter: Delimiter = None,
    as_json: AsJson = False,
) -> None:
    """Judge whether compressed models are as good as their baseline, give or take a margin, on the same examples."""
    given = dict(locals())
    for name in ("out", "as_json"):
        del given[name]
    from plankwise.core.paths import check_target

    if out is not None:
        check_target(out)
    _print(_compared(_request(given)), out, as_json)


def _request(given: dict[str, Any]) -> CompareRequest:
    """Make the request of the options; those that are not named here are called as its fields are."""
    from plankwise.data.given.columns import ColumnOptions
    from plankwise.data.given.labels import read_names
    from plankwise.data.text_files import TextFormat
    from plankwise.run.compare.models import CompareRequest, seed_of
    from plankwise.run.compare.rows import FileOptions

    baseline, *compressed = given.pop("models")
    columns = ColumnOptions(*(given.pop(name) for name in ("text", "pair", "label", "label_separator")))
    names, form = read_names(given.pop("names") or []), TextFormat(given.pop("encoding"), given.pop("delimiter"))
    for name in ("data", "development", "train", "slice_columns"):
        given[name] = tuple(given[name] or ())
    given["also"] = tuple(map(seed_of, given["also"] or ()))
    if metrics := given.pop("metrics"):
        given["metrics"] = tuple(metrics)
    options = FileOptions(columns, names, form)
    return CompareRequest(baseline=baseline, compressed=tuple(compressed), options=options, **given)


def _compared(request: CompareRequest) -> dict[str, Any]:
    from plankwise.run.compare.models import compare_models
    from plankwise.run.compare.runs import compare_runs, is_run

    sources = [request.baseline, *request.compressed]
    if any(map(is_run, sources)):
        request.check_runs(sources)
        return compare_runs([Path(each) for each in sources], request.question)
    request.check_models()
    return compare_models(request)


def _print(document: dict[str, Any], out: Path | None, as_json: bool) -> None:
    from plankwise.cli.compare_tables import comparison_lines, comparison_tables
    from plankwise.cli.tables import print_table
    from plankwise.core.files import write_json

    if out is not None:
        write_json(out, document)
    if as_json:
        typer.echo(json.dumps(document))
        return
    for name, found in document["comparisons"].items():
        typer.echo("\n".join(comparison_lines(name, found)))
        for table in comparison_tables(found):
            print_table(table)
