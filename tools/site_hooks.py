"""Hooks of MkDocs: pages that exist elsewhere in the repository, pages made of the code, and links out of the site.

Method cards lie beside their code and the changes at the top; both become pages as they are. The reference of commands
is made of the command line itself. A link to a file that is no page becomes its name.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

import typer
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
CARDS = ROOT / "src" / "plankwise" / "methods"
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)\s]+)\)")
MOVED = {"src/plankwise/methods/": "methods/", "docs/": "", "CHANGELOG.md": "changes.md"}


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are not in docs/."""
    cards = sorted(CARDS.glob("*.md"))
    pages = {
        f"methods/{card.name}": moved(card.read_text("utf-8"), f"src/plankwise/methods/{card.name}") for card in cards
    }
    pages["methods/index.md"] = index("Methods", "Each card is kept beside the method's code.", cards)
    decisions = sorted((ROOT / "docs" / "decisions").glob("0*.md"))
    pages["decisions/index.md"] = index("Decisions", "What was chosen, and why.", decisions)
    pages["changes.md"] = (ROOT / "CHANGELOG.md").read_text("utf-8")
    pages["reference/commands.md"] = commands()
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn links to files of the repository that are no pages into their names."""
    here = posixpath.dirname(page.file.src_uri)

    def replaced(match: re.Match[str]) -> str:
        text, target = match[1], match[2]
        if "://" in target or target.startswith(("#", "mailto:")):
            return match[0]
        path = posixpath.normpath(posixpath.join("docs", here, target.partition("#")[0]))
        return match[0] if path.startswith("docs/") else text

    return LINK.sub(replaced, markdown)


def moved(text: str, source: str) -> str:
    """Rewrite the links of a page that is elsewhere in the repository, relative to its place in the site."""
    here = posixpath.dirname(site_path(source))

    def replaced(match: re.Match[str]) -> str:
        label, target = match[1], match[2]
        if "://" in target or target.startswith("#"):
            return match[0]
        path, hash_, anchor = target.partition("#")
        inside = site_path(posixpath.normpath(posixpath.join(posixpath.dirname(source), path)))
        return f"[{label}]({posixpath.relpath(inside, here or '.')}{hash_}{anchor})"

    return LINK.sub(replaced, text)


def site_path(path: str) -> str:
    """Return where a file of the repository is in the site; one that is no page stays outside."""
    for old, new in MOVED.items():
        if path.startswith(old):
            return new + path.removeprefix(old)
    return f"../{path}"


def index(title: str, about: str, pages: list[Path]) -> str:
    """Return a page that lists others by their titles."""
    lines = [f"- [{page.read_text('utf-8').splitlines()[0].lstrip('# ')}]({page.name})" for page in pages]
    return "\n".join([f"# {title}", "", about, "", *lines, ""])


def commands() -> str:
    """Return the reference of all commands, from the command line itself."""
    import plankwise.cli  # noqa: F401 - registers the verbs
    from plankwise.cli.options import app  # takes a second, and other hooks do not need it

    group = typer.main.get_command(app)
    lines = ["# Options of each command", "", "Made from the command line; each takes `--help` too."]
    for path, command in sorted(leaves(group, ())):
        lines += ["", f"## {' '.join(path)}", "", (command.help or "").strip(), "", *options(command, path)]
    return "\n".join(lines) + "\n"


def leaves(command: Any, path: tuple[str, ...]) -> list[tuple[tuple[str, ...], Any]]:
    """List the commands below one, with the words that call each."""
    below = getattr(command, "commands", None)
    if below is None:
        return [(path, command)]
    return [leaf for name, each in below.items() for leaf in leaves(each, (*path, name))]


def options(command: Any, path: tuple[str, ...]) -> list[str]:
    """Return the usage of a command and the table of its options."""
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    shown = {each.metavar or each.name.upper(): getattr(each, "help", None) for each in arguments}
    usage = " ".join(("plankwise", *path, *shown, "[OPTIONS]"))
    rows = ["| option | what it is |", "| --- | --- |"]
    for parameter in command.params:
        if parameter.name == "help" or parameter.param_type_name == "argument":
            continue
        names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
        about = (getattr(parameter, "help", None) or "").replace("|", "\\|").replace("[", "\\[")
        rows.append(f"| {names} | {about} |")
    described = [f"- `{name}`: {about}" for name, about in shown.items() if about]
    return [f"```\n{usage}\n```", "", *described, *([""] if described else []), *rows]
