"""Verbs that deploy models: predict tables, export artefacts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from plankwise.cli.options import MAX_THREADS, MAX_TOKENS, AsJson, Delimiter, Encoding, MaxLength, app, print_document
from plankwise.core.files import folder_bytes
from plankwise.core.intervals import format_interval

if TYPE_CHECKING:
    from plankwise.deploy.manifest import Manifest

Precision = Annotated[
    str,
    typer.Option(
        help="fp32, bf16, fp16, int8, int8-dynamic, int8-weights or int4-weights, as far as the runtime supports it; "
        "auto: int8 or fp32."
    ),
]
Processor = Annotated[
    str | None, typer.Option("--for", help="Another processor than this one: vnni, avx2 or arm; nothing is timed then.")
]
Portable = Annotated[
    bool | None,
    typer.Option(
        "--portable/--no-portable",
        help="int8: weights in 7 bits, exact on every processor; or 8, for VNNI.  [default: portable]",
    ),
]
KeepRows = Annotated[
    bool | None,
    typer.Option(
        "--keep-rows/--no-keep-rows",
        help="Put four compared texts into the artefact, as token ids, to test it on other processors.  "
        "[default: where the recipe's task is open]",
    ),
]


@app.command()
def predict(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="An artefact, or a folder of a fine-tuned model.")],
    source: Annotated[
        Path, typer.Argument(metavar="INPUT", help=".csv, .tsv, .jsonl or .parquet, plain or compressed.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The same formats; the file appears once it is complete.")],
    text: Annotated[str, typer.Option(help="Column of the text.")] = "text",
    text_pair: Annotated[str | None, typer.Option(help="Column of a second text, for pair tasks.")] = None,
    id_column: Annotated[
        str | None, typer.Option("--id", help="Column to copy as id; by default row numbers from 1.")
    ] = None,
    keep: Annotated[list[str] | None, typer.Option(help="Another column to copy; may be repeated.")] = None,
    mode: Annotated[str, typer.Option(help="throughput, or latency: one text at a time.")] = "throughput",
    threads: Annotated[int | None, typer.Option(min=1, max=MAX_THREADS, help="Cores to use; all by default.")] = None,
    max_length: MaxLength = None,
    truncate: Annotated[bool, typer.Option("--truncate", help="Truncate over-long texts as in training.")] = False,
    on_error: Annotated[str, typer.Option(help="fail, or skip rows that are empty, not text or over-long.")] = "fail",
    tokens_per_batch: Annotated[
        int | None, typer.Option(min=1, max=100 * MAX_TOKENS, help="Padded tokens per batch; 512 by default.")
    ] = None,
    encoding: Encoding = None,
    delimiter: Delimiter = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume what a killed run left, or begin.")] = False,
    as_json: AsJson = False,
) -> None:
    """Predict labels and probabilities, or scores, for every row of a table, in the order of the input."""
    from plankwise.data.text_files import TextFormat
    from plankwise.deploy.predictor import Predictor
    from plankwise.deploy.tables.prediction import check_places, predict_table
    from plankwise.deploy.tables.screening import FaultPolicy, InputColumns

    columns, policy = InputColumns(text, text_pair, id_column, tuple(keep or ())), FaultPolicy(on_error, truncate)
    form = TextFormat(encoding, delimiter)
    check_places(source, out, form)
    predictor = Predictor(model, mode=mode, threads=threads, max_length=max_length, tokens_per_batch=tokens_per_batch)
    document = predict_table(
        predictor, source, out, columns, policy=policy, resume=resume, progress=not as_json, text_format=form
    )
    counts = [f"{number} {fault}" for fault, number in document["skipped"].items()]
    lines = [
        f"{out}: {document['predicted']} of {document['rows']} rows in {document['seconds']:.1f} s",
        *([f"skipped: {', '.join(counts)}; see {document['errors']}"] if counts else []),
        *(f"{name}: {document[name]}" for name in ("truncated", "thinned") if document[name]),
        *document["caveats"],
    ]
    print_document(document, as_json, lines)


@app.command()
def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Folder of a fine-tuned model, such as RUN/model.")],
    out: Annotated[Path, typer.Option(help="Folder of the artefact; new, or empty.")],
    to: Annotated[str, typer.Option(help="openvino, onnx or torch; auto: what is fastest here.")] = "auto",
    precision: Precision = "auto",
    processor: Processor = None,
    timing: Annotated[bool, typer.Option(help="Time it on this machine, against fp32 and the other runtime.")] = True,
    recipe: Annotated[
        Path | None,
        typer.Option(help="Recipe whose task has the texts to calibrate and compare on; default: the run's."),
    ] = None,
    texts: Annotated[Path | None, typer.Option(help="Or a text file with one text per line, without labels.")] = None,
    encoding: Encoding = None,
    max_length: MaxLength = None,
    tolerance: Annotated[
        float | None,
        typer.Option(min=0.0, max=1.0, help="Largest change of a probability; by precision if not given."),
    ] = None,
    portable: Portable = None,
    keep_rows: KeepRows = None,
    as_json: AsJson = False,
) -> None:
    """Export a folder that predicts without torch and plankwise, verified against the original model."""
    from plankwise.core.errors import ModelError
    from plankwise.run.artefacts import ExportRequest, export_model

    if not timing and processor is None and "auto" in (to, precision):
        raise ModelError("--no-timing leaves nothing to choose by; give --to and --precision, or --for")
    request = ExportRequest(
        model=model,
        out=out,
        to=to,
        precision=precision,
        recipe=recipe,
        texts=texts,
        encoding=encoding,
        max_length=max_length,
        tolerance=tolerance,
        processor=processor,
        timed=timing,
        portable=portable,
        keep_rows=keep_rows,
    )
    manifest = export_model(request)
    print_document(manifest.model_dump(mode="json", by_alias=True), as_json, export_lines(manifest, out))


def export_lines(manifest: Manifest, out: Path) -> list[str]:
    """Describe an artefact: its size, how far it is from the original model, how fast it is."""
    parity = manifest.parity
    assert parity is not None
    change = parity.neighbour_change
    words = manifest.answer.wording
    return [
        f"{out}: {manifest.runtime} {manifest.precision}, {folder_bytes(out):,} bytes",
        f"against torch on {parity.texts} inputs ({parity.source}): largest change of {words.one} "
        f"{parity.probability_change:.4f}{words.unit}, allowed {parity.tolerance}; "
        f"same {words.same} {parity.agreement:.2%}",
        *timing_lines(manifest),
        *([] if change is None else [f"largest change with the texts beside it: {change:.4f}"]),
        *manifest.caveats,
    ]


def timing_lines(manifest: Manifest) -> list[str]:
    """Describe how fast an artefact is, alone and next to the others."""
    timing = manifest.timing
    if timing is None:
        return []
    line = f"here {timing.ms_per_text:.3g} ms a text"
    if timing.over_fp32 is not None and timing.spread is not None:
        faster = format_interval(timing.over_fp32, *timing.spread, digits=2, unit="×")
        line += f", {faster} as fast as fp32 in the same runtime"
    line += f"; {timing.texts} texts, {timing.rounds} rounds in turns, {timing.threads} threads"
    others = ", ".join(f"{name} {value:.3g}" for name, value in timing.others.items())
    return [line, f"beside it, ms a text: {others}"] if others else [line]


@app.command()
def push(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="RUN/model, or the folder of an artefact.")],
    repository: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Of the Hub; made if it is missing.")],
    public: Annotated[bool, typer.Option("--public", help="Make a new repository public.")] = False,
    endpoint: Annotated[str | None, typer.Option(help="Address of another Hub.")] = None,
    as_json: AsJson = False,
) -> None:
    """Upload a model or an artefact with its card to the Hub, privately; never one of a credentialed task."""
    from plankwise.run.push import push as upload

    address = upload(folder, repository, public=public, endpoint=endpoint)
    print_document({"url": address}, as_json, [address])
