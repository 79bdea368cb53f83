"""YAML documents, read with limits on their size, their depth and the growth of their aliases."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from plankwise.core.errors import RecipeError
from plankwise.core.files import read_text

MAX_BYTES = 1_000_000
MAX_NODES = 100_000  # with aliases expanded
MAX_DEPTH = 50
_WORDS = re.compile("^(?:true|True|TRUE|false|False|FALSE)$")
_WHOLE = re.compile("^[-+]?(?:0|[1-9][0-9_]*|0x[0-9a-fA-F_]+)$")  # not 010, octal for 8, nor 1:30, sexagesimal for 90
_FORMS = {"tag:yaml.org,2002:bool": _WORDS, "tag:yaml.org,2002:int": _WHOLE}


class Loader(yaml.SafeLoader):
    """A safe loader with the booleans and integers of YAML 1.2, and with keys that stay text."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """Return a mapping with string keys: as numbers and booleans, 1, 1.0 and true would be one key."""
        self.flatten_mapping(node)
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                key.tag = "tag:yaml.org,2002:str"
        return super().construct_mapping(node, deep)

    def fetch_flow_collection_start(self, kind: Any) -> None:
        """Read a bracket, unless it is too deep: PyYAML looks through all open brackets at every token."""
        if self.flow_level >= MAX_DEPTH:
            raise yaml.MarkedYAMLError(problem=f"nested more than {MAX_DEPTH} deep", problem_mark=self.get_mark())
        super().fetch_flow_collection_start(kind)

    def compose_scalar_node(self, anchor: Any) -> yaml.ScalarNode:
        """Read a scalar. JSON writes an emoji as a surrogate pair; its two halves become one character."""
        node: yaml.ScalarNode = super().compose_scalar_node(anchor)
        try:
            node.value = node.value.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            raise yaml.MarkedYAMLError(
                problem="one half of a surrogate pair is not a character", problem_mark=node.start_mark
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
        what: name of the document in messages.

    Returns:
        The root node, which knows its lines, and the values. An empty file has no node.

    Raises:
        RecipeError: with file and line, if the file cannot be read, is too large, or is not valid YAML.
    """
    try:
        text = read_text(path, max_bytes=MAX_BYTES)
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"cannot read {what} {path}: {getattr(error, 'strerror', None) or error}") from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, where: str, lines: bool = True) -> tuple[yaml.Node | None, Any]:
    """Parse YAML text.

    Args:
        text: at most one document.
        where: place that messages begin with, such as a path.
        lines: whether the line number follows the place.

    Returns:
        The root node and the values, as `read_yaml`.

    Raises:
        RecipeError: if the text is not valid YAML or exceeds a limit.
    """
    try:
        node = yaml.compose(text, Loader=Loader)
        if node is not None:
            _refuse_large(node)
        _refuse_duplicates(node, where)
        return node, yaml.load(text, Loader=Loader)  # derived from SafeLoader: it builds no objects
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a date such as 2024-13-45 is a ValueError
        mark = getattr(error, "problem_mark", None)
        at = f"{where}:{mark.line + 1}" if mark and lines else where
        problem = f"nested more than {MAX_DEPTH} deep" if isinstance(error, RecursionError) else error
        raise RecipeError(f"{at}: not valid YAML: {getattr(error, 'problem', None) or problem}") from None


def _refuse_large(root: yaml.Node) -> None:
    """Raise for a document that is too deep, or has too many values once its aliases are expanded."""
    sizes: dict[int, int] = {}

    def size(node: yaml.Node, depth: int) -> int:
        if depth > MAX_DEPTH:
            raise yaml.MarkedYAMLError(problem=f"nested more than {MAX_DEPTH} deep", problem_mark=node.start_mark)
        if id(node) not in sizes:  # an alias is the same object as its anchor, so it is counted once and added often
            sizes[id(node)] = 1 + sum(size(each, depth + 1) for each in _children(node))
        if sizes[id(node)] > MAX_NODES:
            problem = f"more than {MAX_NODES:,} values with aliases expanded"
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
