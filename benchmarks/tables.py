"""Write the tables and the picture of README.md and docs/ from results/; no number is typed by hand.

A page marks the place of a table by `<!-- table: NAME -->` and `<!-- end -->`. Between them go the table of each class
of machine that has results/CLASS/NAME.json, fastest first, the command that makes the result, and the machine.

Usage: python benchmarks/tables.py [--check]
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import encoder_tables
import error_tables
import headline
import picture
import score_tables
import speed_tables
import study_tables
import thesis_tables
from plankwise.report.domain_table import markdown
from results import RESULTS, ROOT, UNKNOWN, describe, environment_of, parser_of, results_of

PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
MARK = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.S)
TABLES = {
    **score_tables.TABLES,
    **speed_tables.TABLES,
    **study_tables.TABLES,
    **encoder_tables.TABLES,
    **error_tables.TABLES,
    **dict.fromkeys(("domain_e5", "domain_minilm", "domain_lm", "domain_lm_clinical"), markdown),
}
OF_SEVERAL = {"headline": headline.headline, "thesis": thesis_tables.thesis}  # made of several results
COMMANDS = {
    **encoder_tables.COMMANDS,
    **error_tables.COMMANDS,
    "demo": "make demo",
    "domain_e5": "python benchmarks/domain_encoders.py domain_e5 --seed N",
    "domain_minilm": "python benchmarks/domain_encoders.py domain_minilm --seed N",
    "domain_lm": "plankwise domain recipes/domain_lm.yaml --out runs/domain",
    "domain_lm_clinical": "plankwise domain recipes/domain_lm_clinical.yaml --out runs/domain-clinical",
    "methods_davidson2017": "python benchmarks/methods.py davidson2017",
    "methods_germeval2018": "python benchmarks/methods.py germeval2018",
    "predict_overhead": "python benchmarks/predict_overhead.py MODEL",
    "quantization_germeval2018": "python benchmarks/quantization.py",
    "study_theseus_e5": "python benchmarks/study_encoders.py --seed N",
    "study_initialization": "plankwise study recipes/study_initialization.yaml --out runs/initialization",
    "study_theseus": "plankwise study recipes/study_theseus.yaml --out runs/study",
    "throughput": "python benchmarks/throughput.py --work runs/throughput",
}


def block(name: str, root: Path = RESULTS) -> str:
    """Write a result's table of each class of machine, with the command and the machine.

    Raises:
        SystemExit: if a page asks for a table that does not exist.
    """
    if name in OF_SEVERAL:
        return OF_SEVERAL[name](root)
    if name not in TABLES:
        sys.exit(f"no table '{name}'; allowed: {', '.join(sorted({*OF_SEVERAL, *TABLES}))}")
    command = COMMANDS.get(name, f"python benchmarks/{name}.py")
    results = results_of(name, root)
    if len(results) > 1 and results.get(UNKNOWN, {}).get("ran") is False:  # a benchmark that found no GPU
        del results[UNKNOWN]
    if not results:
        return f"Not measured yet: `{command}`."
    tables = [
        f"{TABLES[name](result)}\n\nMade by `{command}` on {describe(environment_of(result))} (class `{machine}`)."
        for machine, result in results.items()
    ]
    return "\n\n".join(tables)


def filled(page: str, root: Path = RESULTS) -> str:
    """Return a page with every marked table rewritten."""
    return MARK.sub(lambda match: f"{match[1]}\n{block(match[2], root)}\n\n{match[3]}", page)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--check", action="store_true", help="only check whether the pages and the picture are current")
    arguments = parser.parse_args()
    for page in PAGES:
        before = page.read_text(encoding="utf-8")
        after = filled(before)
        if before != after and arguments.check:
            sys.exit(f"{page.relative_to(ROOT)} differs from results/; run: make tables")
        page.write_text(after, encoding="utf-8")
    if not picture.is_current():
        if arguments.check:
            sys.exit(f"{picture.PICTURE.relative_to(ROOT)} differs from results/; run: make tables")
        picture.draw()


if __name__ == "__main__":
    main()
