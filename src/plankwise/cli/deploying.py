"""Verbs that take models to where they predict."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from plankwise.cli.options import AsJson, app, print_document


@app.command()
def predict(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="An artefact, or a folder of a fine-tuned model.")],
    source: Annotated[Path, typer.Argument(metavar="INPUT", help=".csv, .tsv, .jsonl or .parquet, plain or packed.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The same; it appears once it is whole.")],
    text: Annotated[str, typer.Option(help="Column of the text.")] = "text",
    text_pair: Annotated[str | None, typer.Option(help="Column of a second text, for pair tasks.")] = None,
    id_column: Annotated[str | None, typer.Option("--id", help="Column to copy; row numbers from 1 otherwise.")] = None,
    keep: Annotated[list[str] | None, typer.Option(help="Another column to copy; may be repeated.")] = None,
    mode: Annotated[str, typer.Option(help="throughput, or latency: one text at a time.")] = "throughput",
    threads: Annotated[int | None, typer.Option(min=1, help="Cores to use; all by default.")] = None,
    max_length: Annotated[int | None, typer.Option(help="Tokens of an input; as exported by default.")] = None,
    truncate: Annotated[bool, typer.Option("--truncate", help="Cut over-long texts as training does.")] = False,
    on_error: Annotated[str, typer.Option(help="fail, or skip rows that are empty, not text or over-long.")] = "fail",
    tokens_per_batch: Annotated[
        int | None, typer.Option(min=1, help="Padded tokens of a batch; 512 unless given.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with what a killed run left, or begin.")] = False,
    as_json: AsJson = False,
) -> None:
    """Predict every row of a table: labels and probabilities, in the order of the input."""
    from plankwise.deploy.prediction_tables import check_places, predict_table
    from plankwise.deploy.predictor import Predictor
    from plankwise.deploy.screening import Columns, Policy

    columns, policy = Columns(text, text_pair, id_column, tuple(keep or ())), Policy(on_error, truncate)
    check_places(source, out)
    predictor = Predictor(model, mode=mode, threads=threads, max_length=max_length, tokens_per_batch=tokens_per_batch)
    document = predict_table(predictor, source, out, columns, policy, resume, progress=not as_json)
    counts = [f"{number} {fault}" for fault, number in document["skipped"].items()]
    lines = [
        f"{out}: {document['predicted']} of {document['rows']} rows in {document['seconds']:.1f} s",
        *([f"skipped: {', '.join(counts)}; see {document['errors']}"] if counts else []),
        *([f"truncated: {document['truncated']}"] if document["truncated"] else []),
    ]
    print_document(document, as_json, lines)


@app.command()
def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Folder of a fine-tuned model, such as RUN/model.")],
    out: Annotated[Path, typer.Option(help="Folder of the artefact; new, or empty.")],
    to: Annotated[str, typer.Option(help="openvino, onnx or torch.")] = "openvino",
    precision: Annotated[
        str,
        typer.Option(
            help="fp32, bf16, fp16, int8, int8-dynamic, int8-weights, int4-weights; as far as the runtime goes."
        ),
    ] = "int8",
    recipe: Annotated[
        Path | None, typer.Option(help="Its task gives texts to calibrate and compare on; a run's own by default.")
    ] = None,
    texts: Annotated[Path | None, typer.Option(help="Or a text file, a text a line, without labels.")] = None,
    max_length: Annotated[int | None, typer.Option(min=4, help="Tokens of an input; the recipe's by default.")] = None,
    tolerance: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Largest change of a probability; by precision otherwise.")
    ] = None,
    portable: Annotated[
        bool | None,
        typer.Option(
            "--portable/--no-portable",
            help="int8: weights in 7 bits, exact on every processor; or 8, for VNNI.  [default: portable]",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a folder that predicts without torch and plankwise, proven against the model it was made of."""
    from plankwise.study.artefacts import export_model

    manifest = export_model(
        model,
        out,
        to,
        precision,
        recipe=recipe,
        texts=texts,
        max_length=max_length,
        tolerance=tolerance,
        portable=portable,
    )
    parity = manifest.parity
    assert parity is not None
    lines = [
        f"{out}: {manifest.runtime} {manifest.precision}, {sum(each.stat().st_size for each in out.iterdir()):,} bytes",
        f"against torch on {parity.texts} inputs ({parity.source}): largest change of a probability "
        f"{parity.probability_change:.4f}, allowed {parity.tolerance}; same labels {parity.agreement:.2%}",
        f"the same text in a batch and alone: {parity.neighbour_change:.4f}",
        *manifest.caveats,
    ]
    print_document(manifest.model_dump(mode="json"), as_json, lines)
