"""Reading a corpus: once, whole or not at all, kept under the hash of its content."""

from __future__ import annotations

import gzip
import json
import logging
import random
import stat
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

import processes
from plankwise.core.cache import built_once, cache_folder
from plankwise.core.errors import DataError, OutputError
from plankwise.data.corpus.corpus import Corpus, identity_of, write_corpus
from plankwise.data.task import Task

SECRET = "geheimnis"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PLANKWISE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def documents(count: int = 400, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    return [
        "\n".join(f"line {draw.randrange(300)} of {SECRET}" for _ in range(draw.randint(1, 4))) for _ in range(count)
    ]


def write(path: Path, texts: list[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n\n".join(texts), encoding="utf-8")
    return path


def texts(task: Task) -> list[str]:
    """All texts in the order in which they were read."""
    rows = [(int(row["id"]), row["text"]) for split in task.splits.values() for row in split]
    return [text for _, text in sorted(rows)]


def key(task: Task) -> str:
    return task.hashes["train"].partition("/")[0]


def builds(caplog: pytest.LogCaptureFixture) -> int:
    return sum(message.startswith("reading the corpus into") for message in caplog.messages)


def test_every_document_falls_into_one_part(tmp_path: Path) -> None:
    given = documents()
    task = Corpus(files=(str(write(tmp_path / "a.txt", given)),), held_out=0.2).load()
    assert texts(task) == given
    assert set(task.splits) == {"train", "development"}
    assert task.kind == "masked_lm"
    assert task.name == "a"
    counts = json.loads(next(cache_folder().rglob("counts.json")).read_text())
    assert counts["documents"] == len(given)
    assert counts["lines"] == sum(text.count("\n") + 1 for text in given)
    assert counts["characters"] == sum(map(len, given))


def test_the_key_is_made_of_content_and_settings_alone(tmp_path: Path) -> None:
    given = documents(50)
    first = write(tmp_path / "a.txt", given)
    settings: dict[str, Any] = {"held_out": 0.2}
    same = [
        write(tmp_path / "other" / "my.own.corpus.v2.txt", given),
        write(tmp_path / "b c.TXT", given),
    ]
    write(tmp_path / "unrelated.txt", ["x"])
    base = key(Corpus(files=(str(first),), **settings).load())
    assert {key(Corpus(files=(str(path),), **settings, title="t").load()) for path in same} == {base}
    assert len(list((cache_folder() / "corpora").glob("*/counts.json"))) == 1
    wide = tmp_path / "wide.txt"
    wide.write_bytes(first.read_text(encoding="utf-8").encode("utf-16"))
    assert texts(Corpus(files=(str(wide),), **settings, encoding="utf-16").load()) == texts(
        Corpus(files=(str(first),), **settings).load()
    )
    packed = tmp_path / "a.txt.gz"
    packed.write_bytes(gzip.compress(first.read_bytes()))
    others = [
        Corpus(files=(str(packed),), **settings),
        Corpus(files=(str(first),), held_out=0.3),
        Corpus(files=(str(first),), **settings, deduplicate=True),
        Corpus(files=(str(first),), **settings, split_seed=1),
        Corpus(files=(str(first), str(write(tmp_path / "z.txt", documents(5, 9)))), **settings),
    ]
    keys = [key(each.load()) for each in others]
    assert len({base, *keys}) == 6
    write(first, [*given, "one more"])
    assert key(Corpus(files=(str(first),), **settings).load()) not in {base, *keys}


def test_the_second_time_it_comes_out_of_the_cache(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    source = Corpus(files=(str(write(tmp_path / "a.txt", documents())),), held_out=0.1)
    first, again = source.load(), source.load()
    assert builds(caplog) == 1
    assert texts(first) == texts(again)
    assert first.hashes == again.hashes


def test_what_lies_in_the_cache_is_its_owners_alone(tmp_path: Path, cache: Path) -> None:
    Corpus(files=(str(write(tmp_path / "a.txt", documents())),), held_out=0.1).load()
    (folder,) = [path for path in (cache / "corpora").iterdir() if path.is_dir()]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((cache / "corpora").stat().st_mode) == 0o700
    assert sorted(path.name for path in folder.iterdir()) == [
        "counts.json",
        "development.arrow",
        "sizes.json",
        "train.arrow",
    ]
    assert SECRET.encode() not in b"".join(path.read_bytes() for path in folder.glob("*.json"))


def lines_of(count: int = 400) -> list[list[str]]:
    return [text.split("\n") for text in documents(count)]


def build(read: Callable[[], Iterable[list[str]]], folder: Path, **options: Any) -> list[str]:
    """Write a corpus as `Corpus` does, and return its texts in the order in which they were read."""
    settings = {"deduplicate": False, "held_out": 0.1, "split_seed": 0, **options}
    built_once(folder, lambda target: write_corpus(read, target, **settings))
    parts = [Dataset.from_file(str(folder / f"{part}.arrow")) for part in ("train", "development")]
    return [text for _, text in sorted((int(row["id"]), row["text"]) for part in parts for row in part)]


@pytest.mark.parametrize("deduplicate", [False, True])
@pytest.mark.parametrize("at", [0, 150, 399])
def test_a_build_that_died_is_not_taken_for_whole(at: int, deduplicate: bool, tmp_path: Path) -> None:
    passes = []

    def dying() -> Iterator[list[str]]:
        passes.append(1)
        for number, document in enumerate(lines_of()):
            if number == at and len(passes) == (2 if deduplicate else 1):
                raise KeyboardInterrupt
            yield document

    folder = tmp_path / "built" / "key"
    with pytest.raises(KeyboardInterrupt):
        build(dying, folder, deduplicate=deduplicate, rows_per_write=10)
    assert not [path for path in folder.parent.iterdir() if path.is_dir()]
    assert build(dying, folder, deduplicate=deduplicate) == build(lines_of, tmp_path / "whole", deduplicate=deduplicate)


@pytest.mark.parametrize("damage", ["shorter", "gone", "half a folder"])
def test_a_damaged_entry_of_the_cache_is_built_again(damage: str, tmp_path: Path, cache: Path) -> None:
    source = Corpus(files=(str(write(tmp_path / "a.txt", documents())),), held_out=0.1)
    source.load()
    train = next(cache.rglob("train.arrow"))
    if damage == "shorter":
        train.write_bytes(train.read_bytes()[:-300])
    elif damage == "gone":
        train.unlink()
    else:
        (train.parent / "sizes.json").unlink()
    assert texts(source.load()) == documents()


def test_two_threads_at_once_give_one_whole_result(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    source = Corpus(files=(str(write(tmp_path / "a.txt", documents(2000))),), held_out=0.1)
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(len(texts(source.load())))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [2000] * 4
    assert builds(caplog) == 1


def test_two_processes_at_once_give_one_whole_result(tmp_path: Path, cache: Path) -> None:
    path = write(tmp_path / "a.txt", documents(2000))
    code = (
        "import sys; from plankwise.data.corpus.corpus import Corpus;"
        "sys.exit(sum(Corpus(files=(sys.argv[1],), held_out=0.1).load().splits.num_rows.values()) != 2000)"
    )
    both = [processes.start(["-c", code, path], tmp_path) for _ in range(2)]
    for each in both:
        each.join(120)
    assert [each.exitcode for each in both] == [0, 0]
    assert len([each for each in (cache / "corpora").iterdir() if each.is_dir()]) == 1


@pytest.mark.parametrize("kind", ["txt", "jsonl", "dataset"])
def test_deduplicating_drops_exactly_the_repeats(kind: str, tmp_path: Path) -> None:
    given = documents(300)
    seen: set[str] = set()
    expected = []
    for text in given:
        kept = [line for line in text.split("\n") if line not in seen]
        kept = list(dict.fromkeys(kept))
        seen.update(kept)
        if kept:
            expected.append("\n".join(kept))
    path = tmp_path / "in" / f"a.{'txt' if kind == 'txt' else 'jsonl'}"
    write(path, given)
    if kind != "txt":
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in given))
    where: dict[str, Any] = {"dataset": str(path.parent)} if kind == "dataset" else {"files": (str(path),)}
    assert texts(Corpus(**where, deduplicate=True, held_out=0.3).load()) == expected
    assert texts(Corpus(**where, held_out=0.3).load()) == given


def test_the_held_out_part_is_about_right_and_parts_equal_documents_never(tmp_path: Path) -> None:
    given = [f"document {number % 2500}" for number in range(5000)]
    path = str(write(tmp_path / "a.txt", given))
    task = Corpus(files=(path,), held_out=0.1).load()
    parts = {name: set(split["text"]) for name, split in task.splits.items()}
    assert not parts["train"] & parts["development"]
    assert 0.08 < len(parts["development"]) / 2500 < 0.12
    backwards = str(write(tmp_path / "b.txt", given[::-1]))
    assert set(Corpus(files=(backwards,), held_out=0.1).load().splits["development"]["text"]) == parts["development"]
    other = Corpus(files=(path,), held_out=0.1, split_seed=1).load()
    assert set(other.splits["development"]["text"]) != parts["development"]


@pytest.mark.parametrize("given", [[], ["one"], [SECRET] * 50])
def test_a_corpus_too_small_to_cut_is_refused(given: list[str], tmp_path: Path, cache: Path) -> None:
    with pytest.raises(DataError, match=r"the corpus has \d+ documents; its (train|development) part would be empty"):
        Corpus(files=(str(write(tmp_path / "a.txt", given)),), held_out=0.1).load()
    assert not [path for path in (cache / "corpora").iterdir() if path.is_dir()]


def test_a_corpus_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    passes = iter([lines_of(), [*lines_of(), ["late", "lines"]]])
    with pytest.raises(DataError, match="the corpus changed while it was read"):
        build(lambda: next(passes), tmp_path / "key", deduplicate=True)


@pytest.mark.parametrize("rows_per_write", [1, 3, 1000])
def test_pieces_of_any_size_are_written(rows_per_write: int, tmp_path: Path) -> None:
    assert build(lines_of, tmp_path / "key", rows_per_write=rows_per_write) == documents()


def test_wrong_datasets_are_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot load the dataset \./nowhere"):
        Corpus(dataset="./nowhere").load()
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jsonl").write_text('{"txt": "a", "n": 1}\n')
    with pytest.raises(DataError, match=r"no column 'text'; did you mean 'txt'\?"):
        Corpus(dataset=str(tmp_path / "in")).load()
    with pytest.raises(DataError, match=r"the column 'n' holds int64, not strings"):
        Corpus(dataset=str(tmp_path / "in"), text="n").load()
    (tmp_path / "in" / "a.jsonl").write_text(f'{{"text": "{SECRET}", \n')
    with pytest.raises(DataError, match="cannot load the dataset") as error:
        Corpus(dataset=str(tmp_path / "in"), access="credentialed").load()
    assert SECRET not in str(error.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "give either files or dataset"),
        ({"files": ("a",), "dataset": "b"}, "give either files or dataset"),
        ({"files": ()}, "at least 1"),
        ({"files": ("a",), "encoding": "utf-99"}, "no encoding 'utf-99'"),
        ({"dataset": "a", "encoding": "cp1252"}, "encoding is for files, not a dataset"),
        ({"files": ("a",), "held_out": 0.5}, "less than 0.5"),
        ({"files": ("a",), "held_out": 0}, "greater than 0"),
    ],
)
def test_settings_that_make_no_corpus_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Corpus(**given)


def test_a_cache_that_cannot_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PLANKWISE_CACHE", str(tmp_path / "file"))
    with pytest.raises(OutputError, match="cannot write to"):
        Corpus(files=(str(write(tmp_path / "a.txt", documents())),), held_out=0.1).load()


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read .*gone\.txt: No such file"):
        identity_of(tmp_path / "gone.txt")
