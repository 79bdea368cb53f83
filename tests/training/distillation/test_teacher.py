"""A teacher's settings, what hooks hear, and the answers that are kept on disk."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

import tiny
from plankwise.core.errors import MethodError, RecipeError
from plankwise.core.recipe import validate
from plankwise.data.batching.examples import Collator, encode
from plankwise.data.truncation import Truncation, Windows
from plankwise.encoder.anatomy import layers_of, query_key_value_of
from plankwise.encoder.surgery import rebuild
from plankwise.training.distillation import cached_teacher as teacher_cache
from plankwise.training.distillation.activations import ActivationRecorder, depths_of
from plankwise.training.distillation.cached_teacher import cached_teacher
from plankwise.training.distillation.config import DistillationConfig, check_layers, hidden_pairs, relation_pair
from plankwise.training.distillation.objective import PROJECTIONS, Subject, lesson
from plankwise.training.distillation.teacher import Teacher, find_teacher
from plankwise.training.objectives.losses import task_loss
from plankwise.training.prediction import predict_logits

KINDS = pytest.mark.parametrize("kind", tiny.ARCHITECTURES)
READING = Truncation(max_length=32)


def examples(truncation: Truncation = READING, count: int = 24) -> list[dict[str, Any]]:
    return encode(tiny.task().splits["train"].select(range(count)), tiny.tokenizer(), truncation)


def expert(model: PreTrainedModel | None = None) -> Teacher:
    return Teacher((model or tiny.model()).eval(), tiny.tokenizer(), "input", True)


def hooks_of(model: PreTrainedModel) -> int:
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in model.modules())


def subject(folder: Path, **changes: Any) -> Subject:
    made: dict[str, Any] = {
        "kind": "single_label",
        "loss": task_loss("single_label"),
        "pooling": None,
        "examples": examples(),
        "cache": folder,
        "seed": 1,
    }
    return Subject(**{**made, **changes})


class TestSettings:
    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"task": 0, "logits": 0}, "all weights are 0"),
            ({"logits": -1}, "logits"),
            ({"temperature": 0}, "temperature"),
            ({"cache": "hidden"}, "both are 0"),
            ({"cache": "hidden", "hidden": 1, "relations": 1}, "at every step"),
            ({"layer_map": []}, "layer_map"),
            ({"layer_map": "middle"}, "layer_map"),
            ({"relation_heads": 0}, "relation_heads"),
        ],
    )
    def test_that_cannot_work_are_refused(self, given: dict[str, Any], message: str) -> None:
        with pytest.raises(RecipeError, match=message):
            validate(given, DistillationConfig)

    def test_layer_maps(self) -> None:
        assert hidden_pairs(DistillationConfig(hidden=1.0), 4, 12) == [(0, 2), (1, 5), (2, 8), (3, 11)]
        assert hidden_pairs(DistillationConfig(hidden=1.0), 2, 5) == [(0, 2), (1, 4)]
        assert hidden_pairs(DistillationConfig(hidden=1.0, layer_map="bottom"), 2, 5) == [(0, 0), (1, 1)]
        assert hidden_pairs(DistillationConfig(hidden=1.0, layer_map="top"), 2, 5) == [(0, 3), (1, 4)]
        assert hidden_pairs(DistillationConfig(hidden=1.0, layer_map=[(1, 3)]), 2, 5) == [(1, 3)]
        assert hidden_pairs(DistillationConfig(), 2, 5) == []
        assert relation_pair(DistillationConfig(relations=1.0), 2, 5) == (1, 4)
        assert relation_pair(DistillationConfig(relations=1.0, relation_layers=(0, 3)), 2, 5) == (0, 3)

    @pytest.mark.parametrize(
        ("teacher", "message"),
        [
            (DistillationConfig(hidden=1.0, layer_map=[(2, 0)]), "student has the layers 0 to 1"),
            (DistillationConfig(relations=1.0, relation_layers=(1, 5)), "teacher has the layers 0 to 4"),
        ],
    )
    def test_layers_that_are_not_there_are_refused(self, teacher: DistillationConfig, message: str) -> None:
        with pytest.raises(MethodError, match=message):
            check_layers(teacher, 2, 5)

    def test_a_map_of_one_end_needs_a_deeper_teacher(self) -> None:
        with pytest.raises(MethodError, match="allowed: uniform"):
            check_layers(DistillationConfig(hidden=1.0, layer_map="top"), 5, 2)


class TestListening:
    @KINDS
    def test_hears_what_the_model_itself_reports(self, kind: str) -> None:
        model = tiny.model(kind, 3, conv_kernel_size=0) if kind == "deberta-v2" else tiny.model(kind, 3)
        recorder = ActivationRecorder(model, depths_of(model), [0, 1], 2)
        with recorder.on(), torch.no_grad():
            # Transformers leaves hooks of its own behind where it is asked for hidden states.
            states = copy.deepcopy(model)(**tiny.batch(), output_hidden_states=True).hidden_states
            model(**tiny.batch())
            for depth in (0, 1):
                torch.testing.assert_close(recorder.hidden(depth), states[depth + 1])
            assert {part.shape[:2] for part in recorder.query_key_value()} == {(4, 12)}
            assert [part.shape[2] for part in recorder.query_key_value()] == recorder.widths()
        assert hooks_of(model) == hooks_of(tiny.model(kind, 3))

    @KINDS
    def test_queries_keys_and_values_are_projections_of_the_same_states(self, kind: str) -> None:
        """Fused projections are cut where they are stacked; of several calls that of the tokens counts."""
        model = tiny.model(kind, 1)
        recorder, seen = ActivationRecorder(model, depths_of(model), [], 0), []
        linear, _, parts = query_key_value_of(model, layers_of(model)[0])[0]
        linear.register_forward_hook(lambda _, inputs, output: seen.append((inputs[0], output)))
        with recorder.on(), torch.no_grad():
            model(**tiny.batch())
            heard = recorder.query_key_value()
        width = linear.out_features // parts
        torch.testing.assert_close(heard[0], seen[0][1][..., :width])
        if parts == 3:
            torch.testing.assert_close(torch.cat(heard, dim=-1), seen[0][1])


class TestCache:
    @pytest.mark.parametrize("truncation", [READING, Truncation(max_length=6, windows=Windows(stride=1))])
    def test_keeps_logits_and_hidden_states(self, truncation: Truncation, tmp_path: Path) -> None:
        pooling = None if truncation.windows is None else "mean"
        teacher, rows = expert(), examples(truncation)
        answers = cached_teacher(teacher, rows, [3, 1], pooling, tmp_path)
        expected = predict_logits(teacher.model, tiny.tokenizer(), rows, pooling)
        np.testing.assert_allclose(answers.logits, expected, rtol=1e-6)
        batch = Collator(tiny.tokenizer())([{**rows[at], "example": at} for at in (7, 2, 11)])
        torch.testing.assert_close(answers.logits_of(batch["example"]), torch.tensor(expected[[7, 2, 11]]).float())
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        mask = batch["attention_mask"].bool()
        with torch.no_grad():
            states = teacher.model(**inputs, output_hidden_states=True).hidden_states
        kept = answers.hidden_of(batch["example"], batch["attention_mask"])
        assert set(kept) == {1, 3}
        for layer in kept:
            torch.testing.assert_close(kept[layer][mask], states[layer + 1][mask], rtol=1e-2, atol=2e-3)

    def test_a_second_run_asks_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        first = cached_teacher(expert(), examples(), [1], None, tmp_path)
        monkeypatch.setattr(teacher_cache, "predict_logits", None)
        again = cached_teacher(expert(tiny.model()), examples(), [1], None, tmp_path)
        np.testing.assert_array_equal(first.logits, again.logits)
        assert again.seconds == first.seconds

    def test_other_weights_texts_or_layers_are_other_answers(self, tmp_path: Path) -> None:
        cached_teacher(expert(), examples(), [], None, tmp_path)
        changed = tiny.model()
        with torch.no_grad():
            next(changed.parameters())[0, 0] += 1e-3
        for count, (teacher, rows, layers) in enumerate(
            [(expert(changed), examples(), []), (expert(), examples(count=23), []), (expert(), examples(), [0])], 2
        ):
            cached_teacher(teacher, rows, layers, None, tmp_path)
            assert len([each for each in tmp_path.iterdir() if each.is_dir()]) == count

    @pytest.mark.parametrize("name", ["logits.npy", "hidden.npy", "about.json"])
    @pytest.mark.parametrize("how", ["cut", "flip", "gone"])
    def test_what_is_damaged_is_computed_again(self, name: str, how: str, tmp_path: Path) -> None:
        first = cached_teacher(expert(), examples(), [1], None, tmp_path)
        wanted = np.array(first.logits), np.array(first.hidden)
        path = next(tmp_path.glob(f"*/{name}"))
        data = bytearray(path.read_bytes())
        if how == "gone":
            path.unlink()
        else:
            data[-9] ^= 0xFF
            path.write_bytes(data if how == "flip" else data[:-7])
        again = cached_teacher(expert(), examples(), [1], None, tmp_path)
        np.testing.assert_array_equal(again.logits, wanted[0])
        np.testing.assert_array_equal(np.array(again.hidden), wanted[1])


class TestLesson:
    @pytest.mark.parametrize(
        "teacher",
        [
            DistillationConfig(),
            DistillationConfig(hidden=1.0, cosine=1.0, cache="hidden"),
            DistillationConfig(hidden=1.0, cosine=1.0, relations=1.0),
        ],
    )
    def test_leaves_no_hook_and_no_projection_behind(self, teacher: DistillationConfig, tmp_path: Path) -> None:
        student, master = tiny.model(layers=2, hidden_size=8), expert()
        before = [hooks_of(student), hooks_of(master.model)]
        names = set(dict(student.named_parameters()))
        opened = lesson(student, depths_of(student), master, teacher, subject(tmp_path))
        opened.__enter__()
        assert (PROJECTIONS in dict(student.named_children())) == teacher.compares_states
        assert hooks_of(student) > before[0] or not teacher.compares_insides
        assert opened.__exit__(KeyError, KeyError(), None) is False
        assert [hooks_of(student), hooks_of(master.model)] == before
        assert set(dict(student.named_parameters())) == names

    def test_is_the_weighted_sum_of_its_parts(self, tmp_path: Path) -> None:
        student, master = tiny.model(layers=2, seed=5), expert()
        batch = Collator(tiny.tokenizer())(examples()[:5])
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}

        def value(**weights: float) -> float:
            teacher = DistillationConfig(**{"task": 0.0, "logits": 0.0, "cache": "none", **weights})  # type: ignore[arg-type]
            with lesson(student, depths_of(student), master, teacher, subject(tmp_path)) as taught:
                return float(taught.loss(student(**inputs), batch).detach())

        alone = {name: value(**{name: 1.0}) for name in ("task", "logits", "hidden", "relations", "cosine")}
        assert all(each > 1e-4 for each in alone.values())
        factors = {"task": 0.3, "logits": 2.0, "hidden": 0.7, "relations": 1.5, "cosine": 0.2}
        expected = sum(factor * alone[name] for name, factor in factors.items())
        assert value(**factors) == pytest.approx(expected, rel=1e-5)

    @pytest.mark.parametrize("heads", [None, 1, 4])
    def test_relations_with_other_widths_and_heads(self, heads: int | None, tmp_path: Path) -> None:
        student = tiny.model(layers=2, hidden_size=24, num_attention_heads=3)
        teacher = DistillationConfig(task=0.0, logits=0.0, relations=1.0, relation_heads=heads)
        batch = Collator(tiny.tokenizer())(examples()[:5])
        with lesson(student, depths_of(student), expert(), teacher, subject(tmp_path)) as taught:
            assert taught.about["relation_heads"] == (heads or 2)
            student.train()
            taught.loss(student(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]), batch).backward()
        grads = {name for name, each in student.named_parameters() if each.grad is not None and each.grad.any()}
        assert any("layer.1.attention.self.query" in name for name in grads)
        assert not any("layer.1.output" in name for name in grads)

    def test_relation_heads_that_do_not_divide_are_refused(self, tmp_path: Path) -> None:
        student = tiny.model(layers=2)
        teacher = DistillationConfig(relations=1.0, relation_heads=3)
        with (
            pytest.raises(MethodError, match=r"relation_heads 3 does not divide.*divisors of 16"),
            lesson(student, depths_of(student), expert(), teacher, subject(tmp_path)),
        ):
            pass

    @KINDS
    def test_every_architecture_teaches_and_learns(self, kind: str, tmp_path: Path) -> None:
        model = tiny.model(kind)
        student = rebuild(model, [(0,), (3,)]).train()
        teacher = DistillationConfig(relations=1.0, hidden=1.0, cosine=1.0)
        batch = Collator(tiny.tokenizer())(examples()[:5])
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        with lesson(student, depths_of(student), expert(copy.deepcopy(model)), teacher, subject(tmp_path)) as taught:
            loss = taught.loss(student(**inputs), batch)
            loss.backward()
            assert taught.about["relation_heads"] == 2
        assert torch.isfinite(loss)
        learned = {id(each) for each in student.parameters() if each.grad is not None and each.grad.any()}
        for layer in layers_of(student):
            projections = {linear for linear, _, _ in query_key_value_of(student, layer)}
            assert all(id(linear.weight) in learned for linear in projections)

    def test_a_model_taught_by_itself_has_nothing_to_learn(self, tmp_path: Path) -> None:
        model = tiny.model()
        teacher = DistillationConfig(task=0.0, relations=1.0, hidden=1.0, cosine=1.0, cache="none")
        batch = Collator(tiny.tokenizer())(examples()[:5])
        student = copy.deepcopy(model)
        with lesson(student, depths_of(student), expert(model), teacher, subject(tmp_path)) as taught:
            outputs = student(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
            assert float(taught.loss(outputs, batch).detach()) == pytest.approx(0, abs=1e-6)


class TestExpert:
    def test_is_the_baseline_where_there_is_one(self, tmp_path: Path) -> None:
        given, baseline = tiny.model(layers=2), tiny.model()
        for each in (given, baseline):
            each.config.id2label = dict(enumerate(tiny.LABELS))
        tokenizer = tiny.tokenizer()
        found = find_teacher(
            DistillationConfig(), given, tokenizer, "single_label", given, lambda: (baseline, tokenizer)
        )
        assert (found.name, len(layers_of(found.model))) == ("baseline", 4)
        own = find_teacher(DistillationConfig(source="input"), given, tokenizer, "single_label", given, None)
        assert (own.name, len(layers_of(own.model))) == ("input", 2)
        folder = tiny.save_source(tmp_path / "m", layers=3)
        other = find_teacher(DistillationConfig(source=str(folder)), given, tokenizer, "single_label", given, None)
        assert len(layers_of(other.model)) == 3
        assert not any(value.requires_grad for value in own.model.parameters())
        assert all(value.requires_grad for value in given.parameters())

    @pytest.mark.parametrize(
        ("teacher", "message"),
        [
            (DistillationConfig(source="nowhere"), "is no folder; allowed: baseline, input"),
            (DistillationConfig(hidden=1.0), "reads another vocabulary.*logits alone"),
            (DistillationConfig(relations=1.0), "reads another vocabulary.*logits alone"),
            (DistillationConfig(cache="none"), "reads another vocabulary.*logits alone"),
        ],
    )
    def test_that_cannot_teach_is_refused(self, teacher: DistillationConfig, message: str) -> None:
        student, baseline = tiny.model(vocab_size=40), tiny.model()
        smaller = tiny.tokenizer()
        smaller.add_tokens(["novel"])
        with pytest.raises(MethodError, match=message):
            find_teacher(teacher, student, smaller, "single_label", student, lambda: (baseline, tiny.tokenizer()))

    def test_another_vocabulary_may_teach_logits_but_no_language_model(self) -> None:
        student, baseline = tiny.model(vocab_size=40), tiny.model()
        own = tiny.tokenizer()
        own.add_tokens(["novel"])
        found = find_teacher(
            DistillationConfig(), student, own, "single_label", student, lambda: (baseline, tiny.tokenizer())
        )
        assert not found.reads_alike
        with pytest.raises(MethodError, match="a teacher of the same vocabulary"):
            find_teacher(DistillationConfig(), student, own, "masked_lm", student, lambda: (baseline, tiny.tokenizer()))

    def test_other_labels_are_refused(self) -> None:
        student, tokenizer = tiny.model(), tiny.tokenizer()
        with pytest.raises(MethodError, match="they have to be the same"):
            find_teacher(DistillationConfig(), student, tokenizer, "single_label", tiny.model(labels=3), None)
