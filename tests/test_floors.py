"""Imports go down the floors, or sideways without a circle; heavy ones may wait, a dodge inside a function may not."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "plankwise"
FLOORS = {
    "core": 1,
    "encoder": 2,
    "data": 2,
    "deploy": 3,
    "evaluation": 3,
    "training": 4,
    "report": 4,
    "methods": 5,
    "run": 6,
    "search": 7,
    "cli": 8,
    "__main__": 8,
}
MODULES = {
    ".".join(("plankwise", *path.relative_to(SOURCE).with_suffix("").parts)): path for path in SOURCE.rglob("*.py")
}


def floor(module: str) -> int:
    parts = module.split(".")
    return FLOORS[parts[1]] if len(parts) > 1 and parts[1] != "__init__" else 9


def imports(path: Path, top_only: bool = False) -> set[str]:
    found = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body if top_only else ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("plankwise"):
            found |= {f"{node.module}.{each.name}" for each in node.names}
        elif isinstance(node, ast.Import):
            found |= {each.name for each in node.names if each.name.startswith("plankwise")}
    return {each if each in MODULES else each.rpartition(".")[0] for each in found}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_no_import_goes_up(module: str) -> None:
    higher = [other for other in imports(MODULES[module]) if floor(other) > floor(module)]
    assert not higher, f"{module} stands on floor {floor(module)} and imports {higher}"


@pytest.mark.parametrize(
    "module", [each for each in sorted(MODULES) if not each.startswith(("plankwise.cli", "plankwise.__init__"))]
)
def test_no_import_of_ours_hides_in_a_function(module: str) -> None:
    path = MODULES[module]
    assert imports(path) == imports(path, top_only=True)


def test_no_circle() -> None:
    graph = {module: imports(path) & MODULES.keys() for module, path in MODULES.items()}
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " → ".join((*trail, module))
        if module not in done:
            for other in graph[module]:
                visit(other, (*trail, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def test_only_anatomy_knows_architectures() -> None:
    words = ("encoder.layer", "model_type", "word_embeddings", ".attn", "intermediate.dense")
    for module, path in MODULES.items():
        if module != "plankwise.encoder.anatomy":
            text = path.read_text(encoding="utf-8").replace("model_type=nncf.", "")  # an argument of NNCF's own
            assert not [word for word in words if word in text], module


def test_the_library_never_prints() -> None:
    for module, path in MODULES.items():
        calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        assert not [each for each in calls if isinstance(each, ast.Name) and each.id == "print"], module
        assert ".cuda()" not in path.read_text(), module
