"""The embedded task: which installed library does this sentence document?

Real English text that every installation of plankwise has: docstrings of packages that it needs anyway, read with `ast`
and never imported. Sentences that name a library are left out, and of near-identical sentences only one is kept, so
that no split holds a sentence of another one.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import pydantic

from plankwise.core.errors import DataError
from plankwise.core.numbers import Bounds, Count, Seed, Share, UpToAll
from plankwise.core.recipe import settings
from plankwise.data.task import TEST, TRAIN, LabelledText, Task, build_task

LIBRARIES = ("pandas", "scipy", "sklearn", "torch", "transformers")  # dependencies of plankwise with much documentation
_GIVEAWAYS = re.compile(r"scikit|torch|transformers|hugging|\b(np|pd)\b", re.I)  # besides the libraries' names
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z`])")
_WORD = re.compile(r"[a-z]+")


@settings
class Docstrings:
    """Sentences from docstrings of installed packages, labelled with the package.

    Attributes:
        libraries: packages to read; each must be installed.
        per_library: sentences of each, at most.
        words: minimum and maximum number of words of a sentence.
        similarity: of two sentences whose sets of words have a Jaccard similarity of this or more, one is dropped.
        development_share: share of the training sentences that is cut off to select checkpoints on.
        test_share: share of all sentences that is cut off to report on.
        split_seed: seed of these cuts.
    """

    kinds: ClassVar[tuple[str, ...]] = ("single_label",)
    name: Literal["docstrings"] = "docstrings"
    libraries: Annotated[tuple[str, ...], pydantic.Field(min_length=2)] = LIBRARIES
    per_library: Annotated[int, Bounds(10, 1_000_000, "no package has so many")] = 1500
    words: tuple[Count, Count] = (5, 40)
    similarity: UpToAll = 0.7
    development_share: Share = 0.1
    test_share: Share = 0.2
    split_seed: Seed = 0

    def load(self) -> Task:
        """Read, deduplicate, sample and split the sentences; the same installed versions give the same task."""
        enough = 2 * self.per_library  # many are near-copies and will be dropped
        candidates = [
            (library, text)
            for library in self.libraries
            for text in list(dict.fromkeys(islice(self._sentences_of(library), enough)))
        ]
        keep = distinct([text for _, text in candidates], self.similarity)
        counts: Counter[str] = Counter()
        rows: list[LabelledText] = []
        for index in keep:
            library, text = candidates[index]
            if counts[library] < self.per_library:
                counts[library] += 1
                rows.append({"id": _digest(text)[:12], "text": text, "label": library})
        splits = {TRAIN: [row for row in rows if not self._is_test(row)], TEST: [r for r in rows if self._is_test(r)]}
        metrics = ("macro_f1", "accuracy")
        share = self.development_share
        return build_task(self.name, splits, metrics, development_share=share, split_seed=self.split_seed)

    def _sentences_of(self, library: str) -> Iterator[str]:
        names = [name.lower() for name in self.libraries]
        for docstring in _docstrings_of(library):
            for sentence in _sentences(docstring):
                count = len(sentence.split())
                named = _GIVEAWAYS.search(sentence) or any(name in sentence.lower() for name in names)
                if self.words[0] <= count <= self.words[1] and not named:
                    yield sentence

    def _is_test(self, row: LabelledText) -> bool:
        return int(_digest(f"{self.split_seed}/{row['id']}")[:8], 16) / 16**8 < self.test_share


def distinct(texts: list[str], similarity: float) -> list[int]:
    """Return the indices of texts that are no near-copy of an earlier one that is kept, in order.

    An exact set-similarity join by prefix filtering (Bayardo et al. 2007): two sets x with Jaccard similarity t or more
    share a word among the first |x| − ⌈t·|x|⌉ + 1 words of each, when words are sorted from rare to frequent.

    Args:
        texts: compared as sets of lower-case words.
        similarity: of two texts, from which on they count as copies.
    """
    bags = [set(_WORD.findall(text.lower())) for text in texts]
    frequency = Counter(word for bag in bags for word in bag)
    index: defaultdict[str, list[int]] = defaultdict(list)
    kept = []
    for position, bag in enumerate(bags):
        words = sorted(bag, key=lambda word: (frequency[word], word))
        prefix = words[: len(words) - _ceil(similarity * len(words)) + 1]
        candidates = {other for word in prefix for other in index[word]}
        if any(_jaccard(bag, bags[other]) >= similarity for other in candidates):
            continue
        kept.append(position)
        for word in prefix:
            index[word].append(position)
    return kept


def _ceil(value: float) -> int:
    return int(-(-(value - 1e-9) // 1))  # the tolerance keeps 0.7 · 10 at 7


def _jaccard(one: set[str], other: set[str]) -> float:
    both = len(one & other)
    return both / (len(one) + len(other) - both) if both else 0.0


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _docstrings_of(library: str) -> Iterator[str]:
    """Yield the docstrings of a package, files in the order of their hashes: any prefix is a sample of the whole."""
    try:
        spec = importlib.util.find_spec(library)
    except ModuleNotFoundError:
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise DataError(f"the docstrings task needs the package '{library}' installed, and it is not")
    for root in map(Path, spec.submodule_search_locations):
        paths = [path.relative_to(root) for path in root.rglob("*.py")]
        for path in sorted(paths, key=lambda path: _digest(path.as_posix())):
            if "tests" not in path.parts:
                yield from _docstrings(root / path)


def _docstrings(path: Path) -> Iterator[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about invalid escapes in the packages' files
            tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError, OSError):
        return
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            docstring = ast.get_docstring(node)
            if docstring:
                yield docstring


def _sentences(docstring: str) -> Iterator[str]:
    """Yield the sentences of a docstring's prose; paragraphs with tables, examples, headings or fields are left out."""
    for paragraph in re.split(r"\n\s*\n", docstring):
        if re.search(r"^\s*(>>>|\.\.|[-=~*^]{3,}|:\w+)", paragraph, re.M):
            continue
        for sentence in _SENTENCE_END.split(" ".join(paragraph.split())):
            if sentence.endswith("."):
                yield sentence
