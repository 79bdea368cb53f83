"""GermEval 2018 and 2019 task 2: offensive language in German tweets, read from the organisers' own files.

UTF-8, tab-separated, no header, no quoting: tweet, OFFENSE|OTHER, and PROFANITY|INSULT|ABUSE|OTHER (Wiegand et al.
2018; Struß et al. 2019). The reader of tables would take a quotation mark in a tweet for the start of a cell. Some
public loaders lose rows; the counts of each file are checked here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

from plankwise.core.errors import DataError
from plankwise.core.numbers import Seed, Share
from plankwise.core.paths import check_file
from plankwise.core.recipe import settings
from plankwise.data.task import TEST, TRAIN, LabelledText, Task, build_task

Granularity = Literal["binary", "fine"]
METRICS = ("macro_f1", "germeval_f1", "accuracy")
COARSE = ("OFFENSE", "OTHER")
FINE = ("PROFANITY", "INSULT", "ABUSE", "OTHER")
# File name, all rows, and rows labelled OTHER (None: not published).
FILES_2018 = {TRAIN: ("germeval2018.training.txt", 5009, 3321), TEST: ("germeval2018.test.txt", 3532, 2330)}
FILES_2019 = {
    TRAIN: ("germeval2019.training_subtask1_2_korrigiert.txt", 3995, 2708),
    TEST: ("germeval2019GoldLabelsSubtask1_2.txt", 3031, None),
}
_HANDLE = re.compile(
    r"(?P<address>(?:\w+://|www\.|\w[\w.-]*\.\w\w+/)\S*)|(?<!\w)(?:@\w+)+"
)  # mail addresses and URLs hold @ too


@settings
class GermEval2018:
    """GermEval 2018: 5,009 tweets to train on, 3,532 to test on.

    Attributes:
        path: folder that holds the two files.
        granularity: `binary` (subtask 1) or `fine` (subtask 2, four classes).
        user_token: replaces every @handle at the start of a word; null keeps handles.
        development_share: share of train that is cut off to select checkpoints on, stratified.
        split_seed: seed of that cut; independent of the seed of training.
        deduplicate: drop rows of train whose text is also in development or test, and rows of development whose text
            is also in test, ignoring case and white space.
    """

    kinds: ClassVar[tuple[str, ...]] = ("single_label",)
    name: Literal["germeval2018"] = "germeval2018"
    path: Path
    granularity: Granularity = "binary"
    user_token: str | None = "@user"
    development_share: Share = 0.1
    split_seed: Seed = 0
    deduplicate: bool = False

    def load(self) -> Task:
        """Read and check both files."""
        return _load(self, FILES_2018)


@settings
class GermEval2019:
    """GermEval 2019, subtasks 1 and 2: 3,995 tweets to train on, 3,031 to test on. Attributes as for 2018."""

    kinds: ClassVar[tuple[str, ...]] = ("single_label",)
    name: Literal["germeval2019"] = "germeval2019"
    path: Path
    granularity: Granularity = "binary"
    user_token: str | None = "@user"
    development_share: Share = 0.1
    split_seed: Seed = 0
    deduplicate: bool = False

    def load(self) -> Task:
        """Read and check both files."""
        return _load(self, FILES_2019)


def _load(source: GermEval2018 | GermEval2019, files: Mapping[str, tuple[str, int, int | None]]) -> Task:
    splits = {}
    for split, (file, count, others) in files.items():
        rows = read_tweets(source.path / file, source.granularity, source.user_token)
        other = sum(row["label"] == "OTHER" for row in rows)
        if len(rows) != count or (others is not None and other != others):
            raise DataError(
                f"{source.path / file}: {len(rows)} rows, {other} of them OTHER; "
                f"the published file has {count} rows" + (f", {others} OTHER" if others else "")
            )
        splits[split] = rows
    share, seed = source.development_share, source.split_seed
    return build_task(
        source.name, splits, METRICS, development_share=share, split_seed=seed, deduplicate=source.deduplicate
    )


def read_tweets(path: Path, granularity: Granularity, user_token: str | None) -> list[LabelledText]:
    """Read one file; ids are line numbers.

    Raises:
        DataError: with file and line, for a missing file, a wrong number of columns or an unknown label.
    """
    try:
        lines = check_file(path).read_bytes().decode("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"cannot read {path}: {getattr(error, 'strerror', None) or 'not UTF-8, as published'}"
        ) from None
    rows: list[LabelledText] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        columns = line.rstrip("\r").split("\t")
        if len(columns) != 3:
            raise DataError(f"{path}:{number}: {len(columns)} tab-separated columns, expected 3: tweet, label, label")
        tweet, coarse, fine = columns
        if coarse not in COARSE or fine not in FINE:
            raise DataError(f"{path}:{number}: unknown labels '{coarse}', '{fine}'; allowed: {COARSE} and {FINE}")
        label = coarse if granularity == "binary" else fine
        rows.append({"id": f"{path.stem}:{number}", "text": clean(tweet, user_token), "label": label})
    return rows


def clean(tweet: str, user_token: str | None) -> str:
    """Replace line-break marks by spaces and, unless `user_token` is None, every handle by it.

    An @ within a word, as in a mail address or a URL, does not begin a handle.

    Example:
        >>> clean("@spdde kein Partner. |LBR| Schade", "@user")
        '@user kein Partner. Schade'
    """
    text = tweet.replace("|LBR|", " ").replace("\ufeff", "")
    if user_token is not None:
        text = _HANDLE.sub(lambda found: found["address"] or user_token * found[0].count("@"), text)
    return " ".join(text.split())
