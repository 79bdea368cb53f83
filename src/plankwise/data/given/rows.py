"""From the user's files to rows of text, with and without labels; no message quotes a text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from plankwise.core.errors import DataError, suggest
from plankwise.data.given.columns import ColumnOptions, Columns, Matcher, choose_columns, column_names
from plankwise.data.given.labels import LabelMatcher, is_unlabelled, raw_labels
from plankwise.data.given.scores import ScoreMatcher
from plankwise.data.json_objects import Malformed
from plankwise.data.label_columns import label_column
from plankwise.data.splitting import LabelledText
from plankwise.data.table_io import KINDS, is_text, read_rows
from plankwise.data.text_files import TextFormat, kind_of, read_lines, refuse_kind

PLAIN_TEXT = ".txt"
_TEXT_ONLY = Columns("text")  # of a file with one text a line


@dataclass(frozen=True)
class GivenRows:
    """The rows of some files.

    Attributes:
        by_file: rows of each file: `id` (FILE:ROW), `text`, `text_pair` or None, and `label`: a label of the model, a
            list of them for multi-label models, a score for models with one output, or None for an unlabelled row.
        columns: of each file.
        said: what was guessed and found, in lines to print.
    """

    by_file: Mapping[Path, list[LabelledText]]
    columns: Mapping[Path, Columns] = field(default_factory=dict)
    said: tuple[str, ...] = ()

    @property
    def rows(self) -> list[LabelledText]:
        """All rows, file by file."""
        return list(chain.from_iterable(self.by_file.values()))

    @property
    def labelled(self) -> list[LabelledText]:
        """The rows with a label."""
        return [row for row in self.rows if row["label"] is not None]

    @property
    def unlabelled(self) -> list[LabelledText]:
        """The rows without a label."""
        return [row for row in self.rows if row["label"] is None]

    @property
    def pairs(self) -> bool:
        """Whether each row has two texts."""
        return any(columns.pair is not None for columns in self.columns.values())

    def only(self, files: Iterable[Path]) -> GivenRows:
        """Return the rows of some of the files."""
        chosen = list(files)
        return GivenRows({path: self.by_file[path] for path in chosen}, {path: self.columns[path] for path in chosen})


def read_given(
    files: Sequence[Path],
    *,
    model_labels: Sequence[str],
    kind: str = "single_label",
    options: ColumnOptions | None = None,
    names: Mapping[str, str] | None = None,
    form: TextFormat | None = None,
) -> GivenRows:
    """Read files of texts; rows without a label, and all rows of a file without a column of labels, are unlabelled.

    Args:
        files: CSV, TSV, JSON lines or Parquet, or .txt with one text a line; plain or compressed.
        model_labels: labels of the model.
        kind: of the model's answers, a key of `label_columns.LABEL_COLUMNS`.
        options: columns that are given; others are guessed.
        names: from raw labels to labels of the model, for those whose names differ; each has to be of use.
        form: encoding of text files and delimiter of CSV.

    Raises:
        DataError: if a file cannot be read, a guess is ambiguous, a row holds no text, or a label is not the model's.
    """
    options, form = options or ColumnOptions(), form or TextFormat()
    _check_files(files, form)
    column = label_column(kind)
    matcher = ScoreMatcher(names) if column.scores else LabelMatcher(model_labels, names)
    columns = {path: _columns(path, form, options, matcher, column.several) for path in files}
    _check_columns(columns, options, form)
    by_file: dict[Path, list[LabelledText]] = {}
    said: list[str] = []
    repeated = Counter(path.name for path in files)
    for path, chosen in columns.items():
        name = path.name if repeated[path.name] == 1 else str(path)
        by_file[path] = _read_file(path, form_of(path, form), chosen, matcher, several=column.several, name=name)
        said += [_said(name, chosen, options, by_file[path]), *([chosen.hint] if chosen.hint else [])]
    matcher.check_used()
    return GivenRows(by_file, columns, tuple(said))


def _check_files(files: Sequence[Path], form: TextFormat) -> None:
    if not files:
        raise DataError("no files are given; allowed: one or more of texts")
    twice = next((path for path, count in Counter(path.resolve() for path in files).items() if count > 1), None)
    if twice is not None:
        raise DataError(f"{twice} is given twice; allowed: each file once")
    for path in files:
        if kind_of(path) not in (*KINDS, PLAIN_TEXT):
            raise refuse_kind(path, (*KINDS, PLAIN_TEXT))
    faults = [form.fault(path) for path in files]
    if all(faults):
        raise DataError(str(faults[0]))


def form_of(path: Path, form: TextFormat) -> TextFormat:
    """Return the part of the format that is for this kind of file: files of several kinds may be given at once."""
    return TextFormat(
        None if kind_of(path) == ".parquet" else form.encoding, form.delimiter if kind_of(path) == ".csv" else None
    )


def _columns(path: Path, form: TextFormat, options: ColumnOptions, matcher: Matcher, several: bool) -> Columns:
    if kind_of(path) == PLAIN_TEXT:
        return _TEXT_ONLY
    return choose_columns(path, form_of(path, form), options, matcher, several)


def _check_columns(columns: Mapping[Path, Columns], options: ColumnOptions, form: TextFormat) -> None:
    """Refuse one column for two things, a label that no file has, and pairs in some files only."""
    given = [each for each in (options.text, options.pair, options.label) if each]
    if len(set(given)) < len(given):
        raise DataError(f"--text, --pair and --label name one column twice: {', '.join(given)}; allowed: each once")
    if options.label and not any(chosen.label for chosen in columns.values()):
        tables = [path for path in columns if kind_of(path) != PLAIN_TEXT]
        there = list(dict.fromkeys(name for path in tables for name in column_names(path, form_of(path, form))))
        raise DataError(f"--label {options.label}: no file has this column; {suggest(options.label, there)}")
    single = [path for path, chosen in columns.items() if chosen.pair is None]
    if 0 < len(single) < len(columns):
        paired = next(path for path, chosen in columns.items() if chosen.pair is not None)
        raise DataError(f"{single[0]} has one text a row and {paired} has pairs; give --text, or --text and --pair")


def _read_file(
    path: Path, form: TextFormat, columns: Columns, matcher: Matcher, *, several: bool, name: str
) -> list[LabelledText]:
    rows: list[LabelledText] = []
    unknown: Counter[str] = Counter()
    for number, row in _cells(path, form, columns):
        where = f"{path}, row {number}"
        if isinstance(row, Malformed):
            raise DataError(f"{where}: {row}")
        text = _checked(row[0], columns.text, where)
        pair = None if columns.pair is None else _checked(row[1], columns.pair, where)
        label: Any = None
        if columns.label is not None and not is_unlabelled(row[-1]):
            found = _labels(row[-1], columns, matcher, several, where)
            unknown.update(raw for raw, match in found if match is None)
            matched = list(dict.fromkeys(match for _, match in found if match is not None))
            label = matched if several else next(iter(matched), None)
        rows.append({"id": f"{name}:{number}", "text": text, "text_pair": pair, "label": label})
    if unknown:
        raise matcher.mismatch(unknown, str(columns.label), str(path))
    if not rows:
        raise DataError(f"{path}: it has no rows")
    return rows


def _cells(path: Path, form: TextFormat, columns: Columns) -> Iterable[tuple[int, list[Any] | Malformed]]:
    """Yield the number and the cells of each row: text, second text and label, as far as there are columns for them."""
    if kind_of(path) == PLAIN_TEXT:
        lines = read_lines(path, form.encoding)
        if sum("\t" in line for line in lines) > len(lines) / 2:
            raise DataError(
                f"{path}: most of its lines hold tabs; name it .tsv, with a first line such as text, tab, label"
            )
        return ((number, [line]) for number, line in enumerate(lines, 1) if line)
    wanted = [each for each in (columns.text, columns.pair, columns.label) if each is not None]
    return enumerate(read_rows(path, wanted, form, keys="any"), 1)


def _checked(cell: Any, column: str, where: str) -> str:
    if not isinstance(cell, str) or not cell.strip():
        raise DataError(f"{where}: the column '{column}' holds no text; leave the row out")
    if not is_text(cell):
        raise DataError(f"{where}: the column '{column}' holds a NUL or half of a surrogate pair; allowed: text")
    return cell


def _labels(
    cell: Any, columns: Columns, matcher: Matcher, several: bool, where: str
) -> list[tuple[str, str | float | None]]:
    """Return the raw labels of a cell, each with the label of the model that it means, or its score."""
    try:
        raws = raw_labels(cell, several, columns.separator)
        return [(str(raw).strip(), matcher.match(raw)) for raw in raws]
    except ValueError as error:
        reason = str(error).partition(";")[0]  # what follows is advice for recipes
        allowed = "allowed: labels of the model, and those that --map names"
        if not isinstance(matcher, LabelMatcher):
            reason, allowed = str(error).split("; ", 1)
        raise DataError(f"{where}: the column '{columns.label}' {reason}; {allowed}") from None


def _said(name: str, columns: Columns, options: ColumnOptions, rows: Sequence[LabelledText]) -> str:
    """Describe in one line which columns of a file are read, and how many rows it has."""
    count = f"{len(rows):,} row{'s' if len(rows) != 1 else ''}"
    if columns is _TEXT_ONLY:
        return f"{name}: one text a line, {count} without labels"
    where = f"text in '{columns.text}'" + (f" and '{columns.pair}'" if columns.pair else "")
    where += "" if options.text else " (guessed)"
    if columns.label is None:
        return f"{name}: {where}, no labels, {count}"
    where += f", label in '{columns.label}'" + (f" separated by '{columns.separator}'" if columns.separator else "")
    where += "" if options.label else " (guessed)"
    return f"{name}: {where}, {sum(row['label'] is not None for row in rows):,} of {count} labelled"
