from __future__ import annotations

import random
import re
from collections import Counter
from importlib.metadata import requires
from typing import Any

import pytest

from plankwise.core.errors import DataError
from plankwise.data.task import Task
from plankwise.data.tasks.docstrings import LIBRARIES, Docstrings, distinct

SMALL: dict[str, Any] = {"libraries": ("pandas", "scipy"), "per_library": 60}


def words(text: str) -> set[str]:
    return set(re.findall("[a-z]+", text.lower()))


def similarity(one: str, other: str) -> float:
    either = words(one) | words(other)
    return len(words(one) & words(other)) / len(either) if either else 0.0


def brute_force(texts: list[str], threshold: float) -> list[int]:
    kept: list[int] = []
    for index, text in enumerate(texts):
        if all(similarity(text, texts[other]) < threshold for other in kept):
            kept.append(index)
    return kept


def babble(seed: int, count: int = 150) -> list[str]:
    """Short texts over few words, of uneven frequency, so that many are close to the threshold."""
    draw = random.Random(seed)
    vocabulary = [f"w{chr(97 + number)}" for number in range(14)]
    weights = [1 / (rank + 1) for rank in range(14)]
    return [" ".join(draw.choices(vocabulary, weights, k=draw.randint(0, 11))) for _ in range(count)]


class TestDistinct:
    @pytest.mark.parametrize("threshold", [0.05, 0.5, 2 / 3, 0.7, 0.8, 1.0])
    @pytest.mark.parametrize("seed", range(2))
    def test_equals_comparing_every_pair(self, threshold: float, seed: int) -> None:
        texts = babble(seed)
        expected = brute_force(texts, threshold)
        assert distinct(texts, threshold) == expected
        assert 0 < len(expected) < len(texts)

    def test_a_similarity_of_exactly_the_threshold_is_a_copy(self) -> None:
        texts = ["a b c d e f g", "a b c d e f g h i j"]
        assert distinct(texts, 0.7) == [0]
        assert distinct(texts, 0.71) == [0, 1]
        letters = "abcdefghijklmnopqrstuvwxy"  # 0.56 · 25 is a little more than 14 in floating point
        assert distinct([" ".join(letters), " ".join(letters[-14:])], 0.56) == [0]

    def test_case_digits_and_punctuation_do_not_make_a_difference(self) -> None:
        assert distinct(["Return the 3 roots.", "return, THE roots!", "Return a root."], 1.0) == [0, 2]

    def test_nothing_stays_nothing(self) -> None:
        assert distinct([], 0.7) == []


@pytest.fixture(scope="module")
def task() -> Any:
    return Docstrings(**SMALL).load()


@pytest.fixture(scope="module")
def texts(task: Task) -> Any:
    return [text for split in task.splits.values() for text in split["text"]]


class TestTask:
    def test_has_the_rows_that_were_asked_for(self, task: Task) -> None:
        assert task.labels == ("pandas", "scipy")
        assert Counter(task.labels[each] for split in task.splits.values() for each in split["label"]) == {
            "pandas": 60,
            "scipy": 60,
        }
        assert sum(task.splits.num_rows.values()) == 120

    def test_no_two_sentences_reach_the_similarity_within_or_across_splits(self, texts: list[str]) -> None:
        assert brute_force(texts, 0.7) == list(range(120))

    def test_sentences_are_whole_and_of_the_length_asked_for(self, texts: list[str]) -> None:
        for text in texts:
            assert 5 <= len(text.split()) <= 40
            assert text.endswith(".")
            assert ">>>" not in text

    def test_no_sentence_names_a_library(self, texts: list[str]) -> None:
        names = [*SMALL["libraries"], "scikit", "torch", "transformers", "hugging"]
        assert not [text for text in texts for name in names if name in text.lower()]

    def test_no_sentence_names_a_library_of_ones_own_choice(self) -> None:
        splits = Docstrings(libraries=("sklearn", "pydantic"), per_library=60).load().splits.values()
        assert not [text for split in splits for text in split["text"] if "pydantic" in text.lower()]

    def test_the_same_settings_give_the_same_task(self, task: Task) -> None:
        assert Docstrings(**SMALL).load().hashes == task.hashes

    def test_the_split_seed_moves_rows_and_changes_none(self, task: Task) -> None:
        other = Docstrings(**SMALL, split_seed=1).load()
        before, after = ([each for split in made.splits.values() for each in split["id"]] for made in (task, other))
        assert sorted(before) == sorted(after)
        assert set(task.splits["test"]["id"]) != set(other.splits["test"]["id"])


@pytest.mark.parametrize("library", ["nosuchlibrary", "nosuchlibrary.part", "antigravity"])
def test_a_package_that_is_not_there_is_named(library: str) -> None:
    with pytest.raises(DataError, match=f"needs the package '{library}' installed"):
        Docstrings(libraries=("sklearn", library), per_library=10).load()


def test_one_library_is_no_task() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        Docstrings(libraries=("sklearn",))


def test_every_library_by_default_is_a_dependency_of_the_library_itself() -> None:
    needed = {
        re.split(r"[^\w-]", each, maxsplit=1)[0].lower() for each in requires("plankwise") or () if ";" not in each
    }
    assert {{"sklearn": "scikit-learn"}.get(name, name) for name in LIBRARIES} <= needed
