"""The database of a review: what is shown, the error classes, and every answer as soon as it is given.

SQLite with a write-ahead log that is synchronized at each answer: a kill loses nothing that the page has confirmed.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from plankwise.core.errors import CheckpointError, DataError

FILE = "review.sqlite"
FOLDER = "review"  # in that of a run
VERSION = 1
MAX_NAME, MAX_NOTE, MAX_CLASSES = 60, 2000, 200
SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE item (
  number INTEGER PRIMARY KEY, row_id TEXT NOT NULL, text TEXT NOT NULL, text_pair TEXT, gold TEXT NOT NULL,
  predicted TEXT NOT NULL, kind TEXT NOT NULL, models TEXT NOT NULL
);
CREATE TABLE error_class (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, created_by TEXT);
CREATE TABLE answer (
  item INTEGER NOT NULL REFERENCES item(number), annotator TEXT NOT NULL,
  class INTEGER NOT NULL REFERENCES error_class(id), note TEXT NOT NULL, at TEXT NOT NULL,
  PRIMARY KEY (item, annotator)
);
CREATE TABLE history (
  id INTEGER PRIMARY KEY AUTOINCREMENT, annotator TEXT NOT NULL, item INTEGER NOT NULL, class INTEGER, note TEXT
);
"""


@dataclass(frozen=True)
class Item:
    """One error to label. `models`, whose errors it is, is never shown to annotators.

    Attributes:
        number: from 1, in the order in which items are shown.
        row_id: of the example.
        text: of the example.
        text_pair: of a pair.
        gold: its true label.
        predicted: wrong labels.
        kind: false positive or false negative.
        models: whose errors it is.
    """

    number: int
    row_id: str
    text: str
    text_pair: str | None
    gold: str
    predicted: tuple[str, ...]
    kind: str
    models: tuple[str, ...]


@dataclass(frozen=True)
class Answer:
    """What an annotator said of an item."""

    item: int
    annotator: str
    error_class: str
    note: str


class ReviewStore:
    """The database in one file; each call opens a connection of its own, so that threads may share the object.

    Args:
        path: of the file.

    Raises:
        CheckpointError: if there is no review, or it is of another version.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        if not path.is_file():
            raise CheckpointError(
                f"there is no review in {path.parent}: {path.name} is missing; make one with review start"
            )
        try:
            version = int(self.meta("version"))
        except (sqlite3.DatabaseError, KeyError, ValueError):
            raise CheckpointError(f"{path} is not a review") from None
        if version != VERSION:
            raise CheckpointError(f"{path} is a review of version {version}; this plankwise reads version {VERSION}")

    @classmethod
    def create(cls, path: Path, items: Sequence[Item], classes: Sequence[str], meta: Mapping[str, Any]) -> ReviewStore:
        """Write a new review; the file appears whole or not at all."""
        partial = path.with_name(f".{path.name}.partial")
        partial.unlink(missing_ok=True)
        with closing(sqlite3.connect(partial)) as connection, connection:
            connection.executescript(SCHEMA)
            known = {**{key: json.dumps(value) for key, value in meta.items()}, "version": str(VERSION)}
            connection.executemany("INSERT INTO meta VALUES (?, ?)", known.items())
            rows = [(*asdict(each).values(),) for each in items]
            shown = [tuple(json.dumps(cell) if isinstance(cell, tuple) else cell for cell in row) for row in rows]
            connection.executemany("INSERT INTO item VALUES (?, ?, ?, ?, ?, ?, ?, ?)", shown)
            connection.executemany("INSERT INTO error_class (name) VALUES (?)", [(name,) for name in classes])
        partial.replace(path)
        return cls(path)

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        """Open a connection whose changes are written when the context ends without an error."""
        with closing(sqlite3.connect(self._path, timeout=30.0)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
            with connection:
                yield connection

    def meta(self, key: str) -> Any:
        """Return what the review was made of, by its key."""
        with self._connected() as connection:
            found = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        if found is None:
            raise KeyError(key)
        return json.loads(found[0])

    def items(self) -> list[Item]:
        """Return all items, in order."""
        with self._connected() as connection:
            return list(map(_item, connection.execute("SELECT * FROM item ORDER BY number").fetchall()))

    def item(self, number: int) -> Item | None:
        """Return one item; None if there is none of this number."""
        with self._connected() as connection:
            found = connection.execute("SELECT * FROM item WHERE number = ?", (number,)).fetchone()
        return None if found is None else _item(found)

    def count(self) -> int:
        """Return the number of items."""
        with self._connected() as connection:
            return int(connection.execute("SELECT COUNT(*) FROM item").fetchone()[0])

    def classes(self) -> dict[int, str]:
        """Return the names of the error classes by their ids, in the order in which they were made."""
        with self._connected() as connection:
            return dict(connection.execute("SELECT id, name FROM error_class ORDER BY id").fetchall())

    def add_class(self, name: str, annotator: str | None = None) -> int:
        """Return the id of an error class, which is made if it is new; case and spaces around it do not matter.

        Raises:
            DataError: if the name is empty or too long, or there are too many classes.
        """
        name = " ".join(name.split())
        if not 0 < len(name) <= MAX_NAME:
            raise DataError(f"an error class has a name of 1 to {MAX_NAME} characters")
        with self._connected() as connection:
            known = connection.execute("SELECT id, name FROM error_class").fetchall()
            same = next((number for number, other in known if other.casefold() == name.casefold()), None)
            if same is not None:
                return int(same)
            if len(known) >= MAX_CLASSES:
                raise DataError(f"there are {MAX_CLASSES} error classes already")
            made = connection.execute("INSERT INTO error_class (name, created_by) VALUES (?, ?)", (name, annotator))
            return int(made.lastrowid or 0)

    def answer(self, item: int, annotator: str, class_id: int, note: str) -> None:
        """Record an answer, in the place of an earlier one of the same annotator.

        Raises:
            DataError: if there is no such item or class.
        """
        with self._connected() as connection:
            before = self._kept(connection, item, annotator)
            try:
                connection.execute(
                    "INSERT INTO answer VALUES (?, ?, ?, ?, ?) ON CONFLICT (item, annotator) DO UPDATE SET "
                    "class = excluded.class, note = excluded.note, at = excluded.at",
                    (item, annotator, class_id, note[:MAX_NOTE], datetime.now(timezone.utc).isoformat()),
                )
            except sqlite3.IntegrityError:
                raise DataError(f"there is no item {item}, or no error class {class_id}") from None
            connection.execute(
                "INSERT INTO history (annotator, item, class, note) VALUES (?, ?, ?, ?)", (annotator, item, *before)
            )

    def undo(self, annotator: str) -> int | None:
        """Take back the annotator's last answer; return its item, or None if there is nothing to take back."""
        with self._connected() as connection:
            last = connection.execute(
                "SELECT id, item, class, note FROM history WHERE annotator = ? ORDER BY id DESC LIMIT 1", (annotator,)
            ).fetchone()
            if last is None:
                return None
            number, item, class_id, note = last
            if class_id is None:
                connection.execute("DELETE FROM answer WHERE item = ? AND annotator = ?", (item, annotator))
            else:
                connection.execute(
                    "UPDATE answer SET class = ?, note = ? WHERE item = ? AND annotator = ?",
                    (class_id, note, item, annotator),
                )
            connection.execute("DELETE FROM history WHERE id = ?", (number,))
            return int(item)

    @staticmethod
    def _kept(connection: sqlite3.Connection, item: int, annotator: str) -> tuple[int | None, str | None]:
        found = connection.execute(
            "SELECT class, note FROM answer WHERE item = ? AND annotator = ?", (item, annotator)
        ).fetchone()
        return (None, None) if found is None else (int(found[0]), str(found[1]))

    def answers(self, annotator: str | None = None) -> list[Answer]:
        """Return all answers, or those of one annotator, by item."""
        query = (
            "SELECT item, annotator, error_class.name, note FROM answer JOIN error_class ON error_class.id = class "
            "WHERE ? IS NULL OR annotator = ? ORDER BY item, annotator"
        )
        with self._connected() as connection:
            return [Answer(*row) for row in connection.execute(query, (annotator, annotator)).fetchall()]


def _item(row: Sequence[Any]) -> Item:
    number, row_id, text, text_pair, gold, predicted, kind, models = row
    return Item(
        number=number,
        row_id=row_id,
        text=text,
        text_pair=text_pair,
        gold=gold,
        predicted=tuple(json.loads(predicted)),
        kind=kind,
        models=tuple(json.loads(models)),
    )
