"""Which columns of a table hold the text, a second text and the label: given, or guessed where that is unambiguous."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

from plankwise.core.errors import DataError, suggest
from plankwise.data.given.labels import SEPARATORS as LABEL_SEPARATORS
from plankwise.data.given.labels import LabelMatcher, guess_separator, is_unlabelled, raw_labels
from plankwise.data.given.scores import ScoreMatcher
from plankwise.data.json_objects import Malformed, parse_object
from plankwise.data.table_io import SEPARATORS, read_header, read_rows
from plankwise.data.text_files import TextFormat, checked_lines, kind_of, open_packed, open_parquet, open_text, readable

TEXT_NAMES = (
    *("text", "sentence", "tweet", "comment", "content", "message", "review", "post", "document", "body", "utterance"),
    *("texts", "sentences", "tweets", "comments", "messages", "reviews", "comment_text", "tweet_text", "review_text"),
    *("full_text", "review_body", "note"),
)
PAIR_NAMES = (
    ("premise", "hypothesis"),
    ("sentence1", "sentence2"),
    ("sentence_1", "sentence_2"),
    ("text_a", "text_b"),
    ("text1", "text2"),
    ("text", "text_pair"),
    ("question1", "question2"),
    ("question", "answer"),
    ("question", "sentence"),
    ("question", "passage"),
    ("query", "passage"),
    ("query", "document"),
)
LABEL_NAMES = (
    *("label", "labels", "class", "classes", "category", "categories", "target", "targets", "sentiment", "gold_label"),
    *("label_text", "label_name", "class_name", "intent", "emotion", "topic", "stance"),
)
SCORE_NAMES = (
    *("score", "scores", "similarity", "similarity_score", "relevance", "rating", "label", "labels", "target"),
    *("grade", "relatedness_score"),
)
Matcher = LabelMatcher | ScoreMatcher
_SAMPLE = 1000  # rows that guesses are made from
_ENDS = (".", "!", "?", "…")
_LONG, _MAX_NAME, _MAX_WORDS = 20, 60, 6  # characters of long strings, and of a column's name; words of a name


@dataclass(frozen=True)
class ColumnOptions:
    """The columns that the user names; None has them guessed.

    Attributes:
        text: column of the text.
        pair: column of the second text of a pair.
        label: column of the label; an empty name says that there is none.
        separator: between several labels in one cell, for multi-label models.
    """

    text: str | None = None
    pair: str | None = None
    label: str | None = None
    separator: str | None = None


@dataclass(frozen=True)
class Columns:
    """The columns of one table.

    Attributes:
        text: column of the text.
        pair: column of the second text, if texts come in pairs.
        label: column of the label, if there is one.
        separator: between several labels in one cell.
        hint: what else was seen, to be said.
    """

    text: str
    pair: str | None = None
    label: str | None = None
    separator: str | None = None
    hint: str | None = None

    def named(self) -> dict[str, str | None]:
        """Return all but the hint, by name."""
        return {"text": self.text, "pair": self.pair, "label": self.label, "separator": self.separator}


def choose_columns(path: Path, form: TextFormat, options: ColumnOptions, matcher: Matcher, several: bool) -> Columns:
    """Return the columns of a table: those that are given, and those that can be guessed.

    Args:
        path: of the table.
        form: encoding and delimiter.
        options: columns that are given.
        matcher: knows the labels of the model, or reads scores.
        several: whether a row may have any number of labels.

    Raises:
        DataError: if a guess is ambiguous, naming the candidates and the option to give.
    """
    names = column_names(path, form)
    sample = _sample(path, form, names)
    text, pair = options.text, options.pair
    if text is None:
        text, pair = _guess_texts(path, names, sample, options, matcher)
    free = {name: cells for name, cells in sample.items() if name not in (text, pair)}
    hint = None
    if options.label is not None:
        label = options.label if options.label and options.label in names else None
    else:
        label = _guess_label(path, free, matcher, several)
        hint = None if label else _label_like(path, free, matcher)
    separator = options.separator
    if several and label is not None and separator is None and isinstance(matcher, LabelMatcher):
        separator = guess_separator(sample[label], matcher, str(path))
    return Columns(text, pair, label, separator, hint)


def column_names(path: Path, form: TextFormat) -> list[str]:
    """Return the names of a table's columns; of JSON lines all keys, in the order in which they first appear.

    Raises:
        DataError: if the table cannot be read, has no columns, or begins with what looks like a text.
    """
    if kind_of(path) == ".parquet":
        with readable(path), open_packed(path) as file, open_parquet(file, path) as table:
            names: list[str] = list(table.schema_arrow.names)
    elif kind_of(path) in SEPARATORS:
        names = read_header(path, form)
        if len(names) == 1:
            next(read_rows(path, [], form), None)  # refuses a header with another delimiter
    else:
        names = _keys(path, form)
    if not any(name.strip() for name in names):
        raise DataError(f"{path}: it has no columns; allowed: a table with a header")
    if any(len(name) > _MAX_NAME or len(name.split()) > _MAX_WORDS for name in names):
        raise _no_header(path)
    return names


def _is_cell(name: str) -> bool:
    """Return whether a name of a column reads like a cell instead: a number, a sentence, or several words."""
    return bool(re.fullmatch(r"\s*[-+]?\d+([.,]\d+)?\s*", name)) or name.rstrip()[-1:] in _ENDS or name.count(" ") > 3


def _no_header(path: Path) -> DataError:
    return DataError(f"{path}: its first row is no header but a row of texts; put one such as text,label first")


def _keys(path: Path, form: TextFormat) -> list[str]:
    keys: dict[str, None] = {}
    with readable(path, form.encoding), open_packed(path) as file, open_text(file, form.encoding, newline="\n") as text:
        for line in checked_lines(text, path, form.encoding):
            row = parse_object(line)
            keys.update({} if isinstance(row, Malformed) else dict.fromkeys(row))
    return list(keys)


def _sample(path: Path, form: TextFormat, names: Sequence[str]) -> dict[str, list[Any]]:
    """Return the first cells of each column whose name is there once."""
    once = [name for name in names if names.count(name) == 1]
    rows = [row for row in islice(read_rows(path, once, form, keys="any"), _SAMPLE) if not isinstance(row, Malformed)]
    return {name: [row[place] for row in rows] for place, name in enumerate(once)}


def _guess_texts(
    path: Path, names: Sequence[str], sample: dict[str, list[Any]], options: ColumnOptions, matcher: Matcher
) -> tuple[str, str | None]:
    """Return the columns of the text and of the second text, by their names or as the only long strings."""
    if options.pair is not None and options.pair not in sample:
        raise DataError(f"{path}: there is no column '{options.pair}'; {suggest(options.pair, sample)}")
    textual = [name for name, cells in sample.items() if _is_textual(cells) and name != options.label]
    found: list[tuple[str, str | None]] = [*_pairs_in(textual, options.pair)]
    in_pairs = {name for pair in found for name in pair} | {options.pair}
    found += [(name, options.pair) for name in _named(textual, TEXT_NAMES) if name not in in_pairs]
    if not found:
        if any(_is_cell(name) or matcher.fits([name]) for name in names):
            raise _no_header(path)
        labels = {options.pair, *_named(sample, _names_for(matcher))}
        rest = [name for name in textual if name not in labels]
        long = rest if len(names) == 1 else [name for name in rest if _is_long(sample[name])]
        found = [(name, options.pair) for name in long]
    if len(found) == 1:
        return found[0]
    if found:
        shown = ", ".join(one if other is None else f"{one} + {other}" for one, other in found)
        raise DataError(f"{path}: its text may be in {shown}; give --text, and --pair for a second text")
    raise DataError(f"{path}: no column is known to hold texts; give --text with one of {', '.join(sample)}")


def _pairs_in(names: Sequence[str], second: str | None) -> list[tuple[str, str]]:
    """Return the columns that are known as pairs; with `second`, only those whose second text it is."""
    pairs = [
        (first, other)
        for known in PAIR_NAMES
        for first in _named(names, known[:1])
        for other in _named(names, known[1:])
    ]
    return [pair for pair in pairs if second in (None, pair[1])]


def _guess_label(path: Path, sample: dict[str, list[Any]], matcher: Matcher, several: bool) -> str | None:
    """Return the column named like a label; of several the one whose values are labels of the model."""
    named = [name for name in _named(sample, _names_for(matcher)) if not all(map(is_unlabelled, sample[name]))]
    fitting = [name for name in named if _fits(sample[name], matcher, several)]
    if len(fitting) > 1:
        raise DataError(f"{path}: its label may be in {', '.join(fitting)}; give --label")
    return next(iter((*fitting, *named)), None)


def _label_like(path: Path, sample: dict[str, list[Any]], matcher: Matcher) -> str | None:
    """Name a column that holds nothing but labels of the model, although its name does not say so."""
    for name, cells in sample.items():
        values = [cell for cell in cells if not is_unlabelled(cell)]
        if len({str(each) for each in values}) > 1 and matcher.fits(values):
            holds = "names of labels" if isinstance(matcher, LabelMatcher) else "numbers"
            return f"{path.name}: give --label {name} if its column '{name}', with {holds}, is the label"
    return None


def _names_for(matcher: Matcher) -> Sequence[str]:
    return LABEL_NAMES if isinstance(matcher, LabelMatcher) else SCORE_NAMES


def _fits(cells: Sequence[Any], matcher: Matcher, several: bool) -> bool:
    filled = [cell for cell in cells if not is_unlabelled(cell)]
    separators = (None, *LABEL_SEPARATORS) if several else (None,)
    return any(
        matcher.fits(raw for cell in filled for raw in raw_labels(cell, several, separator)) for separator in separators
    )


def _named(names: Iterable[str], known: Sequence[str]) -> list[str]:
    """Return the names that are known, whatever their case, in the order of `known`."""
    spelled = [(re.sub(r"[\s_-]+", "_", name.strip().lower()), name) for name in names]
    return [name for each in known for plain_name, name in spelled if plain_name == each]


def _is_textual(cells: Sequence[Any]) -> bool:
    filled = [cell for cell in cells if cell is not None]
    return all(isinstance(cell, str) for cell in filled) and any(cell.strip() for cell in filled)


def _is_long(cells: Sequence[Any]) -> bool:
    filled = [cell.strip() for cell in cells if cell is not None and cell.strip()]
    return median(map(len, filled)) >= _LONG and sum(" " in cell for cell in filled) > len(filled) / 2
