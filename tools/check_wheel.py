"""Check what a user gets: the wheel, in an empty environment, with the base dependencies alone.

Builds the sdist and from it the wheel, installs the wheel into a new virtual environment, links into it what the wheel
requires without any extra (from the environment that this runs in; installing it again takes two minutes), and there

- prints the help,
- trains, compresses and scores a tiny model on a table made on the spot,
- asks for what needs an extra, and expects one line that names it, and exit code 2.

Usage: python tools/check_wheel.py [--keep FOLDER]

Needs the `build` package, and an environment in which plankwise is installed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import venv
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
RECIPE = {
    "name": "toy",
    "task": {"name": "table", "train": "toy.csv", "text": "text", "label": "label"},
    "model": {
        "max_length": 16,
        "scratch": {
            "layers": 2,
            "width": 32,
            "heads": 2,
            "growth": [2],
            "epochs": [1],
            "block": 16,
            "vocabulary": {"size": 200},
        },
    },
    "baseline": {"epochs": 1, "learning_rate": 0.001},
    "steps": [{"method": "layer_subset", "layers": 1, "training": {"epochs": 1, "learning_rate": 0.001}}],
    "evaluation": {"rounds": 3, "bootstrap": 100},
}
STUDY = {"name": "toy", "recipe": "recipe.yaml", "space": {"seed": [1]}, "seeds": [1], "sampler": "grid"}


@dataclass(frozen=True)
class Refusal:
    """A command that needs an extra, and the words that its line has to contain."""

    arguments: tuple[str, ...]
    words: str


REFUSALS = (
    Refusal(
        ("export", "run/model", "--to", "openvino", "--precision", "fp32", "--out", "artefact"), "plankwise[openvino]"
    ),
    Refusal(("export", "run/model", "--to", "onnx", "--precision", "fp32", "--out", "artefact"), "plankwise[onnx]"),
    Refusal(("study", "study.yaml", "--out", "study"), "plankwise[study]"),
    Refusal(
        ("data", "mimic", "--definition", "first-48h", "--mimic-dir", "mimic", "--out", "notes"), "plankwise[mimic]"
    ),
    Refusal(
        ("run", "recipe.yaml", "--out", "logged", "--set", "baseline.log_to=tensorboard"), "plankwise[tensorboard]"
    ),
    Refusal(("run", "recipe.yaml", "--out", "logged", "--set", "baseline.log_to=mlflow"), "plankwise[mlflow]"),
)


def build(folder: Path) -> Path:
    """Build the sdist and from it the wheel, and return the wheel."""
    subprocess.run([sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT)], check=True, stdout=sys.stderr)
    (wheel,) = folder.glob("*.whl")
    (_,) = folder.glob("*.tar.gz")
    return wheel


def install(wheel: Path, environment: Path) -> Path:
    """Install a wheel without extras into a new environment and return the environment's programs."""
    venv.create(environment, with_pip=False, symlinks=True)
    programs = environment / ("Scripts" if os.name == "nt" else "bin")
    (packages,) = environment.glob("[Ll]ib/**/site-packages")
    pip = [sys.executable, "-m", "pip", "--python", str(programs / "python"), "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--no-deps", str(wheel)], check=True, cwd=environment)
    (installed,) = metadata.distributions(name="plankwise", path=[str(packages)])
    for needed in required_by(installed):
        for entry in {Path(each).parts[0] for each in needed.files or ()} - {"..", "__pycache__"}:
            if not (packages / entry).exists():  # distributions may share a folder
                (packages / entry).symlink_to(Path(str(needed.locate_file(entry))).resolve())
    return programs


def required_by(distribution: metadata.Distribution) -> list[metadata.Distribution]:
    """Return the distributions here that one requires, directly or not, with the extras that are asked for.

    Raises:
        PackageNotFoundError: if one of them is not installed here.
    """
    found: dict[tuple[str, str], metadata.Distribution] = {}
    left = [(distribution, "")]
    while left:
        one, extra = left.pop()
        for required in map(Requirement, one.requires or ()):
            if required.marker and not required.marker.evaluate({"extra": extra}):
                continue
            for wanted in ("", *required.extras):
                if (required.name, wanted) not in found:
                    found[required.name, wanted] = metadata.distribution(required.name)
                    left.append((found[required.name, wanted], wanted))
    return list(found.values())


def write_inputs(folder: Path) -> None:
    """Write a table of two classes that differ in their words, a recipe, a study, and empty MIMIC-III tables."""
    words = {"good": ("fine", "nice", "lovely"), "bad": ("awful", "poor", "nasty")}
    rows = [f"the {words[label][number % 3]} film number {number},{label}" for number in range(60) for label in words]
    (folder / "toy.csv").write_text("\n".join(["text,label", *rows, ""]), encoding="utf-8")
    (folder / "recipe.yaml").write_text(json.dumps(RECIPE), encoding="utf-8")  # JSON is YAML
    (folder / "study.yaml").write_text(json.dumps(STUDY), encoding="utf-8")
    (folder / "mimic").mkdir()


def plankwise(programs: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in `folder`, with nothing of this checkout on the path."""
    variables = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    variables |= {"PLANKWISE_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1"}
    command = [str(programs / "plankwise"), *arguments]
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)


def faults_of(programs: Path, folder: Path) -> list[str]:
    """Run all checks and return what failed, in words."""
    faults = []
    shown = plankwise(programs, folder, "--help")
    if shown.returncode or "export" not in shown.stdout:
        faults.append(f"--help ended with {shown.returncode}: {shown.stderr[-500:]}")
    done = plankwise(programs, folder, "run", "recipe.yaml", "--out", "run")
    if done.returncode or not (folder / "run" / "record.json").exists():
        faults.append(f"run ended with {done.returncode}: {done.stderr[-2000:]}")
    for refusal in REFUSALS:
        refused = plankwise(programs, folder, *refusal.arguments)
        line = (refused.stderr.strip().splitlines() or [""])[-1]
        print(line, file=sys.stderr)
        if refused.returncode != 2 or refusal.words not in line or "Traceback" in refused.stderr:
            said = refused.stderr.strip()[-500:]
            faults.append(f"{' '.join(refusal.arguments)}: exit code {refused.returncode}, {said}")
    return faults


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--keep", type=Path, help="a folder to work in that is kept; a temporary one by default")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="plankwise-wheel-") as temporary:
        folder = arguments.keep or Path(temporary)
        work = folder / "work"
        work.mkdir(parents=True)
        write_inputs(work)
        faults = faults_of(install(build(folder / "dist"), folder / "venv"), work)
    if faults:
        sys.exit("\n".join(faults))
    print("the wheel installs and works without extras")


if __name__ == "__main__":
    main()
