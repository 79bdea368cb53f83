"""Every loss of distillation against arithmetic by hand, in plain Python floats."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from plankwise.training.distillation.losses import (
    Form,
    LogitsLoss,
    cosine_loss,
    hidden_loss,
    log_relations,
    relation_loss,
    sigmoid_logits_loss,
    softmax_logits_loss,
)

STUDENT = [[2.0, -1.0, 0.5], [0.0, 0.0, 0.0], [-3.0, 1.0, 4.0]]
TEACHER = [[1.5, -2.0, 0.0], [1.0, -1.0, 0.3], [-1.0, 2.0, 2.5]]


def softmax(row: list[float]) -> list[float]:
    powers = [math.exp(each) for each in row]
    return [each / sum(powers) for each in powers]


def divergence(teacher: list[float], student: list[float]) -> float:
    return sum(t * math.log(t / s) for t, s in zip(teacher, student, strict=True))


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


BOTH = pytest.mark.parametrize("logits_loss", [softmax_logits_loss, sigmoid_logits_loss])


class TestLogits:
    @pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
    def test_one_class_of_many(self, temperature: float) -> None:
        rows = [
            divergence(softmax([t / temperature for t in theirs]), softmax([s / temperature for s in mine]))
            for mine, theirs in zip(STUDENT, TEACHER, strict=True)
        ]
        found = softmax_logits_loss(torch.tensor(STUDENT), torch.tensor(TEACHER), temperature)
        assert found.item() == pytest.approx(temperature**2 * mean(rows), rel=1e-5)

    @pytest.mark.parametrize("temperature", [1.0, 3.0])
    def test_every_label_for_itself(self, temperature: float) -> None:
        cells = []
        for mine, theirs in zip(STUDENT, TEACHER, strict=True):
            for s, t in zip(mine, theirs, strict=True):
                yes, theirs_yes = (1 / (1 + math.exp(-each / temperature)) for each in (s, t))
                cells.append(divergence([theirs_yes, 1 - theirs_yes], [yes, 1 - yes]))
        found = sigmoid_logits_loss(torch.tensor(STUDENT), torch.tensor(TEACHER), temperature)
        assert found.item() == pytest.approx(temperature**2 * mean(cells), rel=1e-5)

    @BOTH
    def test_squared_errors(self, logits_loss: LogitsLoss) -> None:
        squares = [(a - b) ** 2 for x, y in zip(STUDENT, TEACHER, strict=True) for a, b in zip(x, y, strict=True)]
        found = logits_loss(torch.tensor(STUDENT), torch.tensor(TEACHER), 2.0, "mse")
        assert found.item() == pytest.approx(mean(squares), rel=1e-6)

    @BOTH
    @pytest.mark.parametrize("form", ["kl", "mse"])
    def test_half_precision_counts_in_fp32_and_equal_logits_cost_nothing(
        self, logits_loss: LogitsLoss, form: Form
    ) -> None:
        logits = torch.tensor(TEACHER, dtype=torch.bfloat16, requires_grad=True)
        loss = logits_loss(logits, logits.detach(), 2.0, form)
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(0, abs=1e-7)
        assert torch.isfinite(logits_loss(logits * 1e4, -logits.detach() * 1e4, 2.0, form))


class TestHiddenStates:
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])

    def test_squared_errors_of_tokens(self) -> None:
        mine, theirs = random(2, 3, 4), random(2, 3, 4, seed=1)
        tokens = [(0, 0), (0, 1), (1, 0)]
        squares = [float(mine[b, t, w] - theirs[b, t, w]) ** 2 for b, t in tokens for w in range(4)]
        assert hidden_loss(mine, theirs, self.mask).item() == pytest.approx(mean(squares), rel=1e-5)

    def test_angles_of_tokens(self) -> None:
        mine, theirs = random(2, 3, 4), random(2, 3, 4, seed=1)
        angles = []
        for b, t in [(0, 0), (0, 1), (1, 0)]:
            a, c = mine[b, t].tolist(), theirs[b, t].tolist()
            product = sum(x * y for x, y in zip(a, c, strict=True))
            angles.append(1 - product / math.sqrt(sum(x * x for x in a) * sum(y * y for y in c)))
        assert cosine_loss(mine, theirs, self.mask).item() == pytest.approx(mean(angles), rel=1e-5)

    @pytest.mark.parametrize("loss", [hidden_loss, cosine_loss])
    def test_padding_counts_for_nothing(self, loss: Any) -> None:
        mine, theirs = random(2, 3, 4), random(2, 3, 4, seed=1)
        before = loss(mine, theirs, self.mask)
        mine[self.mask == 0] += 7.0
        assert torch.equal(loss(mine, theirs, self.mask), before)


def relations_by_hand(rows: list[list[float]]) -> list[list[float]]:
    """R of one head: each token's row of softmax(A Aᵀ / √d)."""
    root = math.sqrt(len(rows[0]))
    return [softmax([sum(x * y for x, y in zip(a, b, strict=True)) / root for b in rows]) for a in rows]


class TestRelations:
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]])

    @pytest.mark.parametrize("heads", [1, 2, 4])
    def test_by_hand_with_other_widths(self, heads: int) -> None:
        mine = [random(2, 4, 4, seed=at) for at in range(3)]
        theirs = [random(2, 4, 12, seed=10 + at) for at in range(3)]
        expected = 0.0
        for one, other in zip(mine, theirs, strict=True):
            cells = []
            for text, length in enumerate([3, 2]):
                for head in range(heads):
                    parts = [
                        relations_by_hand(each[text, :length].view(length, heads, -1)[:, head].tolist())
                        for each in (other, one)
                    ]
                    cells += [divergence(t, s) for t, s in zip(*parts, strict=True)]
            expected += mean(cells)
        assert relation_loss(mine, theirs, self.mask, heads).item() == pytest.approx(expected, rel=1e-4)

    def test_rows_are_distributions_over_tokens_alone(self) -> None:
        relations = log_relations(random(2, 4, 6), self.mask.bool(), 3).exp()
        assert relations.shape == (2, 3, 4, 4)
        torch.testing.assert_close(relations.sum(-1), torch.ones(2, 3, 4))
        assert not relations[0, :, :, 3:].any()
        assert not relations[1, :, :, 2:].any()

    def test_padding_counts_for_nothing_and_gradients_are_numbers(self) -> None:
        mine = [random(2, 4, 6, seed=at).requires_grad_() for at in range(3)]
        theirs = [random(2, 4, 6, seed=10 + at) for at in range(3)]
        loss = relation_loss(mine, theirs, self.mask, 2)
        torch.autograd.backward(loss)
        for each in mine:
            assert each.grad is not None
            assert torch.isfinite(each.grad).all()
            assert each.grad[self.mask == 1].any(dim=-1).all()
            assert not each.grad[self.mask == 0].any()
        moved = [torch.where(self.mask[..., None] == 0, each + 5.0, each) for each in mine]
        torch.testing.assert_close(relation_loss(moved, theirs, self.mask, 2), loss)
        assert relation_loss(theirs, theirs, self.mask, 2).item() == pytest.approx(0, abs=1e-6)
