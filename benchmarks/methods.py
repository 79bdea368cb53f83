"""Methods of compression side by side: one baseline a seed, the same training for each, one table for each task.

Runs every variant of `method_variants.py` through the command line into runs/methods/TASK/ and resumes what an earlier
call left unfinished; a variant that fails is reported and the others continue. Then all saved models are timed against
their baseline in one process (`method_timing.py`), since timings of runs that shared the machine prove little. The last
line is one JSON document.

Usage: python benchmarks/methods.py TASK [--seeds 1 2 3] [--only NAME ...] [--epochs 3] [--threads 1]
         [--do run time collect] [--data PATH] [--model FOLDER] [--baselines FOLDER] [--list]

`--baselines` names a folder with baseline-SEED/baseline made by `plankwise finetune` of the same recipe, data and
model; without it they are trained first. For davidson2017 without `--model` a small encoder is pretrained first.
Two processes may share the work by `--do run` with different seeds; run `--do time collect` alone, at the end.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from method_collect import collected
from method_timing import time_models
from method_variants import RECOVERY_RATE, STUDENT_RATE, Budget, Steps, variants
from plankwise import cli
from plankwise.core.files import write_json
from plankwise.core.recipe import read_recipe
from plankwise.core.records import FILE_NAME, read_record
from plankwise.data.task import TEST
from plankwise.run.recipe import Recipe
from results import ROOT
from workbench import SHARED, TOKENIZER

ROUNDS_OF_RUNS, RESAMPLES_OF_RUNS = 3, 100  # for the timing and intervals of single runs, which are not reported
TIMING, ITSELF = "timing.json", "baseline"


@dataclass(frozen=True)
class Bench:
    """One task of the comparison.

    Attributes:
        task: its name.
        data_key: key of the recipe that names the data.
        data: its default value.
        model: checkpoint to start from; `None` pretrains one.
        max_length: maximum tokens of a text.
    """

    task: str
    data_key: str
    data: Path
    model: Path | None
    max_length: int

    @property
    def recipe(self) -> Path:
        """The recipe; its steps are replaced."""
        return ROOT / "recipes" / f"{self.task}.yaml"

    @property
    def runs(self) -> Path:
        """The folder of all its runs."""
        return ROOT / "runs" / "methods" / self.task


BENCHES = {
    bench.task: bench
    for bench in (
        Bench("germeval2018", "task.path", SHARED / "data/germeval2018", TOKENIZER, 128),
        Bench("davidson2017", "task.train", SHARED / "data/davidson2017/labeled_data.csv", None, 96),
    )
}


@dataclass(frozen=True)
class Place:
    """Where a comparison reads and writes, and its number of threads."""

    bench: Bench
    data: Path
    model: Path
    baselines: Path
    threads: int

    def common(self, seed: int) -> list[str]:
        """Return the options of every verb."""
        model = json.dumps({"source": str(self.model), "max_length": self.bench.max_length})
        sets = [f"{self.bench.data_key}={self.data}", f"model={model}"]
        return ["--seed", str(seed), "--resume", *(part for each in sets for part in ("--set", each))]

    def baseline(self, seed: int) -> Path:
        """Return the stage of the uncompressed model of a seed."""
        return self.baselines / f"baseline-{seed}" / "baseline"

    def run(self, name: str, seed: int) -> Path:
        """Return the run of one variant."""
        return self.bench.runs / f"{name}-{seed}"


def plankwise(arguments: list[str], log: Path, threads: int) -> bool:
    """Run one verb in its own process, with its output in a file, and return whether it succeeded.

    The process is a fork of this one, which saves each of many runs the seconds of imports.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    process = multiprocessing.get_context("fork").Process(target=_verb, args=(arguments, log, threads))
    process.start()
    process.join()
    return process.exitcode == 0


def _verb(arguments: list[str], log: Path, threads: int) -> None:
    with log.open("w", encoding="utf-8") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
        torch.set_num_threads(threads)
        sys.argv = ["plankwise", *arguments]
        cli.main()


def place_of(bench: Bench, arguments: argparse.Namespace) -> Place:
    """Resolve all folders; pretrain the encoder if the task has none."""
    data = (arguments.data or bench.data).resolve()
    model = arguments.model or bench.model or bench.runs / "language-model" / "pretrained"
    place = Place(bench, data, model.resolve(), (arguments.baselines or bench.runs).resolve(), arguments.threads)
    if not model.exists() and "run" in arguments.do:
        sets = [f"{bench.data_key}={data}", "baseline.epochs=0.05", "baseline.evaluations_per_epoch=1"]
        said = [part for each in sets for part in ("--set", each)]
        whole = ["finetune", str(bench.recipe), "--out", str(model.parent), "--seed", "0", "--resume", *said]
        if not plankwise(whole, model.parent.with_suffix(".log"), arguments.threads):
            sys.exit(f"pretraining failed: {last_line(model.parent.with_suffix('.log'))}")
    return place


def run_all(place: Place, seeds: list[int], chosen: dict[str, Steps]) -> None:
    for seed in seeds:
        if not train_baseline(place, seed):
            continue
        for name, steps in chosen.items():
            out = place.run(name, seed)
            sets = [f"name={name}", f"steps={json.dumps(steps)}"]
            sets += [f"evaluation.rounds={ROUNDS_OF_RUNS}", f"evaluation.threads={place.threads}"]
            sets += [f"evaluation.bootstrap={RESAMPLES_OF_RUNS}"]
            said = [*place.common(seed), *(part for each in sets for part in ("--set", each))]
            whole = ["compress", str(place.bench.recipe), "--baseline", str(place.baseline(seed)), "--out", str(out)]
            done = plankwise([*whole, *said], log_of(out), place.threads)
            print(f"{out.name}: {scores_of(out) if done else 'failed: ' + last_line(log_of(out))}", flush=True)


def train_baseline(place: Place, seed: int) -> bool:
    if place.baseline(seed).exists():
        return True
    out = place.baseline(seed).parent
    done = plankwise(
        ["finetune", str(place.bench.recipe), "--out", str(out), *place.common(seed)], log_of(out), place.threads
    )
    print(f"{out.name}: {'trained' if done else 'failed: ' + last_line(log_of(out))}", flush=True)
    return done


def log_of(run: Path) -> Path:
    return run.with_name(f"{run.name}.log")


def last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8").strip().splitlines() if log.exists() else []
    return lines[-1] if lines else "no output"


def scores_of(run: Path) -> str:
    final = read_record(run).final
    return ", ".join(f"{name} {value:.3f}" for name, value in final.scores.items()) if final else "unfinished"


def is_finished(run: Path) -> bool:
    return (run / FILE_NAME).exists() and read_record(run).final is not None


def time_all(place: Place, seed: int, names: list[str], rounds: int) -> None:
    """Time all finished models of one seed and write the measurements to the folder of the runs."""
    folders = {name: place.run(name, seed) / "model" for name in names if is_finished(place.run(name, seed))}
    if not folders:
        sys.exit(f"nothing to time: no run of seed {seed} is finished in {place.bench.runs}")
    recipe = recipe_of(place)
    texts = recipe.task.load().splits[TEST]
    folders[ITSELF] = place.baseline(seed)  # how far its ratio is from 1 is the noise of this machine
    measured = time_models(place.baseline(seed), folders, texts, recipe.model.plain_truncation, rounds, place.threads)
    about = {"itself": measured.pop(ITSELF)}
    about |= {"seed": seed, "rounds": rounds, "threads": place.threads, "runtime": "torch eager fp32"}
    write_json(place.bench.runs / TIMING, {**about, "variants": measured})


def recipe_of(place: Place) -> Recipe:
    sets = [part for part in place.common(0) if "=" in part]
    return read_recipe(place.bench.recipe, Recipe, sets)


def collect(place: Place, seeds: list[int], chosen: dict[str, Steps], budget: Budget) -> dict[str, Any]:
    finished = {name: [seed for seed in seeds if is_finished(place.run(name, seed))] for name in chosen}
    timing = place.bench.runs / TIMING
    return {
        "task": place.bench.task,
        "seeds": seeds,
        "training": {
            "student": budget.training(budget.student_rate),
            "recovery": budget.training(budget.recovery_rate),
        },
        **collected(
            recipe_of(place).task.load(),
            {seed: place.baseline(seed) for seed in seeds},
            {name: {seed: place.run(name, seed) for seed in found} for name, found in finished.items() if found},
            json.loads(timing.read_text()) if timing.exists() else {"variants": {}},
        ),
        "not_finished": {
            f"{name}-{seed}": last_line(log_of(place.run(name, seed)))
            for name, found in finished.items()
            for seed in seeds
            if seed not in found
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("task", choices=BENCHES)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--only", nargs="+", metavar="NAME", help="names of variants to run")
    parser.add_argument("--list", action="store_true", help="print the names of the variants and exit")
    parser.add_argument("--do", nargs="+", choices=["run", "time", "collect"], default=["run", "time", "collect"])
    parser.add_argument("--epochs", type=float, default=3.0)
    parser.add_argument("--learning-rate", type=float, default=STUDENT_RATE, help="of shallower students")
    parser.add_argument("--recovery-learning-rate", type=float, default=RECOVERY_RATE, help="of 12-layer recoveries")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15, help="of the timing")
    parser.add_argument("--timed-seed", type=int, help="whose models are timed; the first by default")
    for name in ("--data", "--model", "--baselines"):
        parser.add_argument(name, type=Path)
    arguments = parser.parse_args()
    budget = Budget(arguments.epochs, arguments.learning_rate, arguments.recovery_learning_rate)
    every = variants(budget)
    if unknown := [name for name in arguments.only or [] if name not in every]:
        parser.error(f"no variant '{unknown[0]}'; allowed: {', '.join(every)}")
    chosen = {name: steps for name, steps in every.items() if name in (arguments.only or every)}
    if arguments.list:
        print(json.dumps(list(chosen)))
        return
    place = place_of(BENCHES[arguments.task], arguments)
    if "run" in arguments.do:
        run_all(place, arguments.seeds, chosen)
    if "time" in arguments.do:
        time_all(place, arguments.timed_seed or arguments.seeds[0], list(chosen), arguments.rounds)
    if "collect" in arguments.do:
        print(json.dumps(collect(place, arguments.seeds, every if arguments.only is None else chosen, budget)))


if __name__ == "__main__":
    main()
