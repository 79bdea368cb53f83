"""The verb that compares models, or finished runs, and judges whether a compressed model is as good as its baseline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from plankwise.cli.options import AsJson, Delimiter, Encoding, app

Files = list[Path] | None


@app.command()
def compare(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="BASELINE COMPRESSED... | RUN...",
            help="Folders, artefacts or Hub ids, the baseline first; or finished runs, seeds of a recipe pooled.",
        ),
    ],
    data: Annotated[Files, typer.Option(help="Rows with labels that no model was trained on; may be repeated.")] = None,
    recipe: Annotated[Path | None, typer.Option(help="Or the recipe whose task to compare on.")] = None,
    split: Annotated[str, typer.Option(help="Of that task: test or development.")] = "test",
    development: Annotated[
        Files, typer.Option(help="Other rows with labels, to calibrate and choose thresholds on.")
    ] = None,
    train: Annotated[Files, typer.Option(help="The rows that the baseline was trained on, for the floors.")] = None,
    text: Annotated[str | None, typer.Option(help="Column of the text; guessed if not given.")] = None,
    pair: Annotated[str | None, typer.Option(help="Column of a second text, for models of pairs.")] = None,
    label: Annotated[str | None, typer.Option(help="Column of the label; guessed if not given.")] = None,
    names: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="RAW=LABEL", help="A value of the label column, and the models' label."),
    ] = None,
    label_separator: Annotated[str | None, typer.Option(help="Between the labels of a cell.")] = None,
    slices: Annotated[
        list[str] | None, typer.Option("--slice", metavar="COLUMN", help="A column of --data to cut slices by.")
    ] = None,
    retrained: Annotated[
        str | None, typer.Option(metavar="MODEL", help="The baseline with another seed: the floor of all flips.")
    ] = None,
    metric: Annotated[
        list[str] | None, typer.Option(help="The first decides; macro_f1 and accuracy if not given.")
    ] = None,
    margin: Annotated[float, typer.Option(help="Largest loss of a metric that is acceptable.")] = 0.01,
    class_margin: Annotated[float, typer.Option(help="Largest loss of a class' F1 that is acceptable.")] = 0.05,
    precision: Annotated[float, typer.Option(help="Of the operating points.")] = 0.9,
    out: Annotated[Path | None, typer.Option(help="Also write the JSON document to this file.")] = None,
    encoding: Encoding = None,
    delimiter: Delimiter = None,
    as_json: AsJson = False,
) -> None:
    """Judge whether compressed models are as good as their baseline, give or take a margin, on the same examples."""
    from plankwise.core.paths import check_target
    from plankwise.data.given.columns import ColumnOptions
    from plankwise.data.given.labels import read_names
    from plankwise.data.text_files import TextFormat
    from plankwise.run.compare.models import CompareRequest
    from plankwise.run.compare.rows import FileOptions

    if out is not None:
        check_target(out)
    asked: dict[str, Any] = {"margin": margin, "class_margin": class_margin, "precision": precision}
    if metric:
        asked["metrics"] = tuple(metric)
    options = FileOptions(
        ColumnOptions(text, pair, label, label_separator), read_names(names or []), TextFormat(encoding, delimiter)
    )
    request = CompareRequest(
        baseline=models[0],
        compressed=tuple(models[1:]),
        data=tuple(data or ()),
        development=tuple(development or ()),
        train=tuple(train or ()),
        options=options,
        recipe=recipe,
        split=split,
        slice_columns=tuple(slices or ()),
        retrained=retrained,
        **asked,
    )
    _print(_compared(request), out, as_json)


def _compared(request: Any) -> dict[str, Any]:
    from plankwise.run.compare.models import compare_models
    from plankwise.run.compare.runs import compare_runs, is_run

    sources = [request.baseline, *request.compressed]
    if any(map(is_run, sources)):
        request.check_runs(sources)
        return compare_runs([Path(each) for each in sources], request.question)
    request.check_models()
    return compare_models(request)


def _print(document: dict[str, Any], out: Path | None, as_json: bool) -> None:
    import json

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
