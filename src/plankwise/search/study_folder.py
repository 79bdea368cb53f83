"""The folder of a study: what is in it, and that it belongs to one study only."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from plankwise.core.documents import read_yaml
from plankwise.core.errors import OutputError
from plankwise.core.files import contents, make_writable_folder, write_text
from plankwise.search.study_plan import StudyPlan

STUDY, TABLE, DATABASE, TRIALS, BASELINES = "study.yaml", "trials.csv", "trials.db", "trials", "baselines"
DOCUMENT, REPORT, PLOTS = "study.json", "report.html", "plots"


def take_folder(plan: StudyPlan, out: Path, *, resume: bool) -> None:
    """Make `out` the folder of this study and write the study's definition into it.

    Raises:
        OutputError: if the folder holds something else, or this very study and `resume` is false.
    """
    definition = json.loads(json.dumps(plan.definition()))
    if out.exists() and not out.is_dir():
        raise OutputError(f"cannot write to {out}: it is a file")
    present = contents(out)
    if present and STUDY not in present:
        raise OutputError(f"{out} holds files that are not of a study; choose an empty or a new folder")
    if STUDY in present:
        known = read_yaml(out / STUDY, "the study")[1]
        if known != definition:
            mapping = known if isinstance(known, dict) else {}
            names = ", ".join(key for key in definition if definition[key] != mapping.get(key))
            raise OutputError(f"{out} holds another study (it differs in {names}); choose another folder")
        if not resume:
            raise OutputError(f"{out} holds this study already; add --resume to resume or join it")
    make_writable_folder(out)
    write_text(out / STUDY, yaml.safe_dump(definition, sort_keys=False, allow_unicode=True))
