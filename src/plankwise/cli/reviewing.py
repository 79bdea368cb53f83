"""Verbs of the error analysis: draw errors, label them in the browser, count their classes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plankwise.cli.options import MAX_SEED, AsJson, app, print_document

if TYPE_CHECKING:
    from plankwise.review.store import ReviewStore

review = typer.Typer(no_args_is_help=True, help="Label the errors of a run's two models by class, and compare.")
app.add_typer(review, name="review")
Folder = Annotated[Path, typer.Argument(metavar="REVIEW", help="Folder of the review, such as RUN/review.")]


@review.command()
def start(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the review.  [default: RUN/review]")] = None,
    count: Annotated[
        int, typer.Option(min=1, max=10_000, help="False positives of each model, and as many false negatives.")
    ] = 100,
    class_name: Annotated[
        str | None, typer.Option("--class", help="The class they are of; the rarer one of two by default.")
    ] = None,
    error_class: Annotated[
        list[str] | None,
        typer.Option(help="An error class to begin with; may be repeated. The page adds more."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Of the sample.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Draw errors of a run's baseline and compressed model; one that both make is labelled once."""
    from plankwise.review.start import start_review

    folder, drawn = start_review(
        run, out, count=count, class_name=class_name, error_classes=error_class or (), seed=seed
    )
    document = {"folder": str(folder), "items": len(drawn.errors), "drawn": drawn.counts}
    lines = [f"{folder}: {len(drawn.errors)} texts to label; plankwise review serve {folder}"]
    print_document(document, as_json, lines)


@review.command()
def serve(
    folder: Folder,
    port: Annotated[int, typer.Option(min=0, max=65_535, help="On this machine alone; 0 for any that is free.")] = 8731,
) -> None:
    """Open the page on which the texts are labelled; it ends with Ctrl-C."""
    from plankwise.core.errors import RecipeError
    from plankwise.core.packages import require

    require("a review", "starlette", "uvicorn", "python_multipart", error=RecipeError)
    from plankwise.review.server import serve as serve_review

    serve_review(folder, port, announce=lambda address: typer.echo(f"open {address}\nend with Ctrl-C"))


@review.command()
def summary(
    folder: Folder,
    csv: Annotated[Path | None, typer.Option(help="Also write every answer, with its text, as CSV.")] = None,
    label_studio: Annotated[Path | None, typer.Option(help="Also write texts and answers for Label Studio.")] = None,
    as_json: AsJson = False,
) -> None:
    """Count error classes for both models, and how far annotators agree."""
    from plankwise.cli.tables import print_table
    from plankwise.review.store import FILE, ReviewStore
    from plankwise.review.summary import as_csv, as_label_studio, summarize

    store = ReviewStore(folder / FILE)
    for target, make in ((csv, as_csv), (label_studio, as_label_studio)):
        if target is not None:
            _export(store, folder, target, make)
    document = summarize(store)
    if as_json:
        print_document(document, as_json, [])
        return
    print_table(_table(document))
    for each in document["kappa"]:
        kappa = "undefined" if each["kappa"] is None else f"{each['kappa']:.2f}"
        typer.echo(f"{' and '.join(each['annotators'])}: Cohen's kappa {kappa} on {each['items']} texts")


def _export(store: ReviewStore, folder: Path, target: Path, make: Any) -> None:
    """Write texts and answers; credentialed text stays in the run's folder."""
    from plankwise.core.errors import OutputError
    from plankwise.core.files import write_text
    from plankwise.core.paths import check_target

    if store.meta("access") == "credentialed" and folder.resolve() not in target.resolve().parents:
        raise OutputError(f"{target}: the task's access is credentialed, and its text stays in {folder}")
    check_target(target)
    write_text(target, make(store))


def _table(document: dict[str, Any]) -> Any:
    from rich.table import Table

    answered = ", ".join(f"{name} {count}" for name, count in document["progress"].items())
    title = f"{document['title']}: {document['items']} texts; answers: {answered}"
    table = Table(title=title, title_justify="left")
    for column in ("kind", "error class", "baseline", "compressed", "change", ""):
        table.add_column(column, justify="right" if column in ("baseline", "compressed", "change") else "left")
    for row in document["classes"]:
        figures = [f"{row[side]:g}" for side in ("baseline", "compressed")]
        table.add_row(row["kind"], row["error_class"], *figures, f"{row['change']:+g}", "new" if row["new"] else "")
    return table
