"""YAML documents, read with bounds: on their size, their depth, and what their aliases grow to."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from plankwise.core.errors import RecipeError
from plankwise.core.files import read_text

MOST_BYTES = 1_000_000
MOST_NODES = 100_000  # once aliases are written out
DEEPEST = 50
_WORDS = re.compile("^(?:true|True|TRUE|false|False|FALSE)$")
_WHOLE = re.compile("^[-+]?(?:0|[1-9][0-9_]*|0x[0-9a-fA-F_]+)$")  # not 010, octal for 8, nor 1:30, sexagesimal for 90
_FORMS = {"tag:yaml.org,2002:bool": _WORDS, "tag:yaml.org,2002:int": _WHOLE}


class Loader(yaml.SafeLoader):
    """Reads YAML with the booleans and whole numbers of YAML 1.2, and keys as they are written."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """Make a mapping whose keys are strings: as numbers and booleans, 1, 1.0 and true were one key."""
        self.flatten_mapping(node)
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                key.tag = "tag:yaml.org,2002:str"
        return super().construct_mapping(node, deep)

    def compose_scalar_node(self, anchor: Any) -> yaml.ScalarNode:
        """Read a scalar; the two halves of a surrogate pair, as JSON writes an emoji, are one character."""
        node: yaml.ScalarNode = super().compose_scalar_node(anchor)
        try:
            node.value = node.value.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            raise yaml.MarkedYAMLError(
                problem="a lone half of a surrogate pair is no character", problem_mark=node.start_mark
            ) from None
        return node


Loader.yaml_implicit_resolvers = {
    first: [(tag, _FORMS.get(tag, form)) for tag, form in forms]
    for first, forms in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_yaml(path: Path, what: str = "the recipe") -> tuple[yaml.Node | None, Any]:
    """Read a YAML file.

    Args:
        path: of the file.
        what: it is, for messages.

    Returns:
        Its nodes, which know their lines, and its values.

    Raises:
        RecipeError: with file and line, if it cannot be read, is too large, or is not valid YAML.
    """
    try:
        text = read_text(path, most_bytes=MOST_BYTES)
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"cannot read {what} {path}: {getattr(error, 'strerror', None) or error}") from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, where: str, lines: bool = True) -> tuple[yaml.Node | None, Any]:
    """Read YAML out of `text`; `where` begins the message of a RecipeError, and the line follows if `lines` count."""
    try:
        node = yaml.compose(text, Loader=Loader)
        if node is not None:
            _refuse_large(node)
        _refuse_duplicates(node, where)
        return node, yaml.load(text, Loader=Loader)  # a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a date such as 2024-13-45 is a ValueError
        mark = getattr(error, "problem_mark", None)
        at = f"{where}:{mark.line + 1}" if mark and lines else where
        problem = f"nested more than {DEEPEST} deep" if isinstance(error, RecursionError) else error
        raise RecipeError(f"{at}: not valid YAML: {getattr(error, 'problem', None) or problem}") from None


def _refuse_large(root: yaml.Node) -> None:
    """Refuse a document that is too deep, or whose aliases make more of it than anybody wrote."""
    sizes: dict[int, int] = {}

    def size(node: yaml.Node, depth: int) -> int:
        if depth > DEEPEST:
            raise yaml.MarkedYAMLError(problem=f"nested more than {DEEPEST} deep", problem_mark=node.start_mark)
        if id(node) not in sizes:  # an alias is the very node that it names
            sizes[id(node)] = 1 + sum(size(each, depth + 1) for each in _children(node))
        if sizes[id(node)] > MOST_NODES:
            problem = f"more than {MOST_NODES:,} values, aliases written out"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        return sizes[id(node)]

    size(root, 0)


def _children(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        for pair in node.value:
            yield from pair
    elif isinstance(node, yaml.SequenceNode):
        yield from node.value


def _refuse_duplicates(node: yaml.Node | None, where: str) -> None:
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            name = str(key.value)
            if name in seen:
                raise RecipeError(f"{where}:{key.start_mark.line + 1}: the key '{name}' appears twice")
            seen.add(name)
            _refuse_duplicates(value, where)
    elif isinstance(node, yaml.SequenceNode):
        for each in node.value:
            _refuse_duplicates(each, where)
