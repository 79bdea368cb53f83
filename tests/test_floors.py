"""The house rules, read off the source: imports go down the floors, and what one floor knows no other asks for.

Each test lists every offender at once. Nothing is imported, so that a module that cannot be imported is read as well.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
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
    "review": 7,
    "cli": 8,
    "__main__": 8,
}
MODULES = {
    ".".join(("plankwise", *path.relative_to(SOURCE).with_suffix("").parts)): path for path in SOURCE.rglob("*.py")
}
KINDS = {"single_label", "multi_label", "masked_lm"}
OBJECTIVES = "plankwise.training.objectives"
STANDALONE = "plankwise.deploy.standalone"  # becomes predict.py of an artefact, which runs without plankwise
METHOD_CONTRACT = ("plankwise.methods.method", "plankwise.methods.registry")
LONGEST_FILE, LONGEST_FUNCTION = 280, 50  # lines
not_yet = pytest.mark.xfail(strict=False, reason="some modules still break this rule")


@functools.cache
def text_of(module: str) -> str:
    return MODULES[module].read_text(encoding="utf-8")


@functools.cache
def tree_of(module: str) -> ast.Module:
    return ast.parse(text_of(module))


@functools.cache
def nodes_of(module: str) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(tree_of(module)))


def floor(module: str) -> int:
    parts = module.split(".")
    return FLOORS[parts[1]] if len(parts) > 1 and parts[1] != "__init__" else 9


def imports(module: str, top_only: bool = False) -> set[str]:
    found = set()
    for node in tree_of(module).body if top_only else nodes_of(module):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("plankwise"):
            found |= {f"{node.module}.{each.name}" for each in node.names}
        elif isinstance(node, ast.Import):
            found |= {each.name for each in node.names if each.name.startswith("plankwise")}
    return {each if each in MODULES else each.rpartition(".")[0] for each in found}


def calls(module: str, name: str) -> Iterator[ast.Call]:
    for node in nodes_of(module):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name:
            yield node


def test_every_folder_has_a_floor() -> None:
    assert {path.name for path in SOURCE.iterdir() if path.is_dir() and path.name != "__pycache__"} <= FLOORS.keys()


def test_no_import_goes_up() -> None:
    upwards = [
        f"{module} imports {other}"
        for module in MODULES
        for other in sorted(imports(module))
        if floor(other) > floor(module)
    ]
    assert not upwards


def test_no_import_of_ours_hides_in_a_function() -> None:
    hidden = {
        module: sorted(imports(module) - imports(module, top_only=True))
        for module in MODULES
        if not module.startswith(("plankwise.cli", "plankwise.__init__"))  # which answer --help without heavy libraries
    }
    assert not {module: names for module, names in hidden.items() if names}


def test_no_circle() -> None:
    graph = {module: imports(module) & MODULES.keys() for module in MODULES}
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " → ".join((*trail, module))
        if module not in done:
            for other in graph[module]:
                visit(other, (*trail, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def test_run_search_and_cli_know_no_single_method() -> None:
    known = [
        f"{module} imports {other}"
        for module in MODULES
        if floor(module) in (6, 7, 8)
        for other in sorted(imports(module))
        if other.startswith("plankwise.methods.") and other not in METHOD_CONTRACT
    ]
    assert not known


def test_optional_settings_of_methods_are_part_of_their_protocol() -> None:
    optional = {"teacher", "training", "plan_on"}
    guessed = [
        f"{module}:{call.lineno}"
        for module in MODULES
        for call in calls(module, "getattr")
        if len(call.args) > 1 and isinstance(call.args[1], ast.Constant) and call.args[1].value in optional
    ]
    assert not guessed


def names_a_kind(node: ast.AST) -> bool:
    """Return whether an operand of a comparison is a kind, or a collection that holds one."""
    if isinstance(node, ast.Tuple | ast.List | ast.Set):
        return any(names_a_kind(each) for each in node.elts)
    return isinstance(node, ast.Constant) and node.value in KINDS


def comparisons_of_kinds(tree: ast.Module) -> list[int]:
    """Return the lines that compare with a kind, match one, or ask whether something is a Corpus."""
    lines = []
    for node in ast.walk(tree):
        compares = isinstance(node, ast.Compare) and any(map(names_a_kind, (node.left, *node.comparators)))
        matches = isinstance(node, ast.MatchValue) and names_a_kind(node.value)
        asks = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance"
        corpus = asks and any(isinstance(each, ast.Name) and each.id == "Corpus" for each in ast.walk(node))
        if compares or matches or corpus:
            lines.append(node.lineno if isinstance(node, ast.expr | ast.pattern) else 0)
    return lines


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("task.kind == 'masked_lm'", [1]),
        ("x = 1\n'multi_label' != kind", [2]),
        ("kind in ('single_label', other)", [1]),
        ("match kind:\n case 'single_label' | 'multi_label':\n  pass", [2, 2]),
        ("isinstance(task, Corpus)", [1]),
        ("isinstance(task, (Table, Corpus))", [1]),
        ("form = 'single_label'; losses['masked_lm'](kind == 'bpe')", []),
    ],
)
def test_comparisons_of_kinds_are_found(text: str, lines: list[int]) -> None:
    assert comparisons_of_kinds(ast.parse(text)) == lines


def test_only_objectives_compare_kinds() -> None:
    found = [
        f"{module}:{line}"
        for module in MODULES
        if not module.startswith(OBJECTIVES) and module != STANDALONE
        for line in comparisons_of_kinds(tree_of(module))
    ]
    assert not found


def test_only_anatomy_knows_architectures() -> None:
    words = ("encoder.layer", "model_type", "word_embeddings", ".attn", "intermediate.dense")
    for module in MODULES:
        if module != "plankwise.encoder.anatomy":
            text = text_of(module).replace("model_type=nncf.", "")  # an argument of NNCF's own
            assert not [word for word in words if word in text], module


def test_the_library_never_prints() -> None:
    printing = [f"{module}:{call.lineno}" for module in MODULES for call in calls(module, "print")]
    assert not printing
    assert not [module for module in MODULES if ".cuda()" in text_of(module)]


def test_no_file_is_too_long() -> None:
    lengths = {module: text_of(module).count("\n") for module in MODULES}
    longer = {module: lines for module, lines in lengths.items() if lines > LONGEST_FILE}
    assert not longer


def test_no_function_is_too_long() -> None:
    longer = [
        f"{module}.{node.name}"
        for module in MODULES
        for node in nodes_of(module)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if (node.end_lineno or 0) - node.lineno >= LONGEST_FUNCTION
    ]
    assert not longer
