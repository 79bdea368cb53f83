"""A tokenizer is read once, is never made up, and fits the model that it is loaded with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

import tiny
from plankwise.core.errors import ModelError
from plankwise.encoder import tokenizer as module
from plankwise.encoder.tokenizer import adapted_tokenizer, load_tokenizer, read_tokenizer

COMMIT = "0" * 40


def folder_of(folder: Path, kind: str = "bert", **changes: Any) -> Path:
    """Save a tiny model alone."""
    tiny.model(kind, 1, **changes).save_pretrained(folder)
    return folder


def edit(path: Path, **changes: Any) -> None:
    known = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**known, **changes}))


def with_types() -> PreTrainedTokenizerFast:
    """Return the tiny tokenizer with token types of 1 for the second text of a pair."""
    made = tiny.tokenizer()
    text = made.backend_tokenizer.to_str()
    data = json.loads(text)
    for piece in data["post_processor"]["pair"][3:]:
        next(iter(piece.values()))["type_id"] = 1
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(data)),
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        **{f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")},
    )


class TestNotThere:
    @pytest.mark.parametrize(
        ("kind", "lacking"),
        [("bert", "vocab.txt"), ("roberta", "vocab.json and merges.txt"), ("deberta-v2", "spm.model")],
    )
    def test_is_never_made_up(self, tmp_path: Path, kind: str, lacking: str) -> None:
        source = folder_of(tmp_path / "m", kind)
        with pytest.raises(ModelError, match=rf"m has no tokenizer, neither tokenizer.json nor {lacking}; copy"):
            load_tokenizer(source)

    def test_of_an_architecture_without_a_class_of_its_own_neither(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match=r"m has no tokenizer, no tokenizer.json; copy"):
            load_tokenizer(folder_of(tmp_path / "m", "modernbert"))

    @pytest.mark.parametrize("held", [True, False])
    def test_of_a_hub_id_neither(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: bool) -> None:
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
        repository = tmp_path / "models--some--one"
        (repository / "refs").mkdir(parents=True)
        (repository / "refs" / "main").write_text(COMMIT)
        folder_of(repository / "snapshots" / COMMIT)
        if held:
            tiny.tokenizer().save_pretrained(repository / "snapshots" / COMMIT)
            assert load_tokenizer("some/one").get_vocab() == tiny.tokenizer().get_vocab()
            return
        with pytest.raises(ModelError, match=r"some/one has no tokenizer, neither tokenizer.json nor vocab.txt"):
            load_tokenizer("some/one")

    def test_a_vocabulary_alone_is_enough(self, tmp_path: Path) -> None:
        source = folder_of(tmp_path / "m")
        (source / "vocab.txt").write_text("\n".join([*tiny.SPECIAL, *tiny.GOOD]))
        assert load_tokenizer(source)("fine nothing")["input_ids"] == [2, 5, 1, 3]


class TestReadOnce:
    @pytest.fixture
    def reads(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        module._read.cache_clear()
        sources: list[str] = []
        own = AutoTokenizer.from_pretrained

        def recorded(source: str, **options: Any) -> Any:
            sources.append(source)
            return own(source, **options)

        monkeypatch.setattr(AutoTokenizer, "from_pretrained", recorded)
        return sources

    def test_equal_files_are_read_once_wherever_they_lie(self, tmp_path: Path, reads: list[str]) -> None:
        first, second = tiny.save_source(tmp_path / "a", layers=1), tmp_path / "b"
        shutil.copytree(first, second)
        assert load_tokenizer(first) is load_tokenizer(str(first)) is load_tokenizer(second)
        assert reads == [str(first)]

    def test_a_folder_that_changed_is_read_again(self, tmp_path: Path, reads: list[str]) -> None:
        source = tiny.save_source(tmp_path / "a", layers=1)
        before = load_tokenizer(source)
        edit(source / "tokenizer_config.json", model_max_length=17)
        assert (before.model_max_length, load_tokenizer(source).model_max_length) == (64, 17)
        assert len(reads) == 2

    def test_what_one_model_leaves_out_stays_for_another(self, tmp_path: Path) -> None:
        names = []
        for rows in (1, 2):
            source = folder_of(tmp_path / str(rows), type_vocab_size=rows)
            with_types().save_pretrained(source)
            names.append("token_type_ids" in load_tokenizer(source).model_input_names)
        assert names == [False, True]


class TestSlowOrForeign:
    @pytest.mark.parametrize("name", ["BertweetTokenizer", "PhobertTokenizer", "BertJapaneseTokenizer"])
    def test_tokenizers_without_a_fast_version_are_refused(self, tmp_path: Path, name: str) -> None:
        source = folder_of(tmp_path / "m")
        edit(source / "tokenizer_config.json", tokenizer_class=name)
        with pytest.raises(ModelError, match=f"the tokenizer of .*m is a {name}, which has no fast version"):
            load_tokenizer(source)

    def test_code_of_its_own_is_not_run(self, tmp_path: Path) -> None:
        source = tiny.save_source(tmp_path / "m", layers=1)
        edit(source / "tokenizer_config.json", auto_map={"AutoTokenizer": ["own.OwnTokenizer", None]})
        with pytest.raises(ModelError, match=r"the tokenizer of .*m needs code of its own .* names OwnTokenizer"):
            load_tokenizer(source)

    def test_sentencepiece_files_say_what_to_install(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "is_sentencepiece_available", lambda: False)
        source = folder_of(tmp_path / "m", "deberta-v2")
        (source / "spm.model").write_bytes(b"\x0a\x03abc")
        with pytest.raises(
            ModelError, match=r"it is a SentencePiece model; to convert it, pip install 'plankwise\[sentencepiece\]'"
        ):
            load_tokenizer(source)

    def test_sentencepiece_files_are_converted(self, tmp_path: Path) -> None:
        pieces = pytest.importorskip("sentencepiece")
        source = folder_of(tmp_path / "m", "deberta-v2", vocab_size=80)
        special = {"pad_id": 0, "pad_piece": "[PAD]", "unk_id": 1, "unk_piece": "[UNK]", "bos_id": -1, "eos_id": -1}
        pieces.SentencePieceTrainer.train(
            sentence_iterator=iter([row["text"] for row in tiny.rows(500)]),
            model_prefix=str(source / "spm"),
            vocab_size=70,
            hard_vocab_limit=False,
            control_symbols=["[CLS]", "[SEP]", "[MASK]"],
            minloglevel=3,
            **special,
        )
        expected = pieces.SentencePieceProcessor(str(source / "spm.model")).encode("the lovely day")
        assert load_tokenizer(source)("the lovely day")["input_ids"] == [2, *expected, 3]


class TestFit:
    def test_more_ids_than_embeddings_are_refused(self, tmp_path: Path) -> None:
        source = folder_of(tmp_path / "m", vocab_size=20)
        tiny.tokenizer().save_pretrained(source)
        with pytest.raises(ModelError, match="has 32 token ids, its model 20 embeddings"):
            load_tokenizer(source)

    def test_special_ids_beyond_the_embeddings_are_refused(self, tmp_path: Path) -> None:
        source = folder_of(tmp_path / "m")
        tiny.tokenizer().save_pretrained(source)
        path = source / "tokenizer.json"
        path.write_text(path.read_text().replace('"ids":[3]', '"ids":[99]').replace('"ids": [3]', '"ids": [99]'))
        data = json.loads(path.read_text())
        data["post_processor"]["special_tokens"]["[SEP]"]["ids"] = [99]
        path.write_text(json.dumps(data))
        with pytest.raises(ModelError, match="adds the token id 99, its model has 48 embeddings"):
            load_tokenizer(source)

    @pytest.mark.parametrize(("kind", "changes"), [("roberta", {}), ("bert", {"type_vocab_size": 1}), ("mpnet", {})])
    def test_token_types_are_left_out_where_there_is_one_row(
        self, tmp_path: Path, kind: str, changes: dict[str, int]
    ) -> None:
        source = folder_of(tmp_path / "m", kind, **changes)
        with_types().save_pretrained(source)
        loaded = load_tokenizer(source)
        assert loaded.model_input_names == ["input_ids", "attention_mask"]
        assert "token_type_ids" not in loaded("the day", "never")
        loaded.save_pretrained(tmp_path / "again")  # plain Transformers reads it so as well
        assert AutoTokenizer.from_pretrained(tmp_path / "again").model_input_names == ["input_ids", "attention_mask"]

    def test_a_tokenizer_fits_another_model_as_a_copy(self, tmp_path: Path) -> None:
        own = with_types()
        assert adapted_tokenizer(own, tiny.model(layers=1).config, "x") is own
        other = adapted_tokenizer(own, tiny.model("distilbert", 1).config, "x")
        assert (own.model_input_names[1], other.model_input_names[1]) == ("token_type_ids", "attention_mask")
        with pytest.raises(ModelError, match="has 32 token ids, its model 20 embeddings"):
            adapted_tokenizer(own, tiny.model(layers=1, vocab_size=20).config, "x")

    def test_positions_counted_from_another_padding_id_are_refused(self, tmp_path: Path) -> None:
        source = folder_of(tmp_path / "m", "roberta", pad_token_id=1)
        tiny.tokenizer().save_pretrained(source)
        with pytest.raises(ModelError, match="pads with the id 0, its model counts positions from pad_token_id 1"):
            load_tokenizer(source)

    def test_one_that_fails_at_unknown_words_is_refused(self, tmp_path: Path) -> None:
        source = folder_of(tmp_path / "m")
        core = Tokenizer(models.WordLevel({"the": 0, "[PAD]": 1}, unk_token="[UNK]"))
        core.pre_tokenizer = pre_tokenizers.Whitespace()
        PreTrainedTokenizerFast(tokenizer_object=core, pad_token="[PAD]").save_pretrained(source)
        with pytest.raises(ModelError, match="cannot read unknown characters"):
            load_tokenizer(source)

    def test_padding_is_on_the_right(self, tmp_path: Path) -> None:
        PreTrainedTokenizerFast(
            tokenizer_object=tiny.tokenizer().backend_tokenizer, pad_token="[PAD]", padding_side="left"
        ).save_pretrained(tmp_path)
        assert read_tokenizer(tmp_path).padding_side == "right"


def test_a_stage_that_saves_a_tokenizer_again_does_not_have_it_read_again(tmp_path: Path) -> None:
    """What differs is where it was loaded from, the order of its settings, and what a run knows of the stage."""
    source = tiny.save_source(tmp_path / "source")
    known = load_tokenizer(source)
    stage = tiny.save_source(tmp_path / "stage", layers=2)
    AutoTokenizer.from_pretrained(source).save_pretrained(stage)
    (stage / "stage.json").write_text("{}")
    assert (stage / "tokenizer_config.json").read_text() != (source / "tokenizer_config.json").read_text()
    assert load_tokenizer(stage) is known
    edit(stage / "tokenizer_config.json", model_max_length=16)
    assert load_tokenizer(stage).model_max_length == 16
    (stage / "tokenizer_config.json").write_text("[1")
    with pytest.raises(ModelError, match="cannot read a tokenizer from"):
        load_tokenizer(stage)
