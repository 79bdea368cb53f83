"""The reports in headless Chromium: their width, both colors, axe-core, and nothing loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser

from browsing import chromium, needs_chromium, violations
from crossed_trials import KEYS, crossed
from finished_run import REVIEW, write_run
from plankwise.evaluation.effects import main_effects, short_names, table_of
from plankwise.report.run_report import write_report
from plankwise.report.templates import render
from plankwise.search.study_report import effect_pictures

pytestmark = needs_chromium
NAMES = ("one", "several", "study")
PRINTED = 718  # pixels between the margins of a sheet of A4
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as made:
        yield made


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The page on one run, that on two recipes, one of them with two seeds and a review, and that of a study."""
    place = tmp_path_factory.mktemp("pages")
    runs = [write_run(place / f"run-{seed}", seed=seed, right=15 + seed, trained=True) for seed in (1, 2)]
    other = write_run(place / "other", name="another", right=19)
    write_report(runs[:1], place / "one.html")
    write_report([*runs, other], place / "several.html", reviews=[REVIEW])
    (place / "study.html").write_text(study_page())
    return {name: place / f"{name}.html" for name in NAMES}


def study_page() -> str:
    """Render the page of a study whose trials are made up."""
    trials = crossed(lambda a, b, seed: a + 0.01 * b, noise=0.01)
    table = table_of(trials, KEYS)
    effects, short = {key: main_effects(table, key) for key in KEYS}, short_names(list(KEYS))
    rest = {"state": "complete", "reason": None, "retained": 0.98, "train_seconds": 60.0}
    study = {
        "name": "made up",
        "task": "toy",
        "metric": "macro_f1",
        "sampler": "grid",
        "parameters": KEYS,
        "seeds": [0, 1, 2],
        "settings": 12,
        "counts": {"complete": len(trials), "failed": 0},
        "train_seconds": 60.0 * len(trials),
        "best": [{"setting": {"a": 0.5, "b": 4}, "mean": 0.54, "min": 0.53, "max": 0.55}],
        "effects": {key: [asdict(level) for level in levels] for key, levels in effects.items()},
        "loss_effects": {},
        "noise": 0.01,
        "trials": [{**trial, **rest, "number": number} for number, trial in enumerate(trials)],
    }
    pictures = effect_pictures(effects, short, "macro_f1")
    assert len(pictures) == 2
    assert "effect of b on macro_f1: b 1 -0.0" in pictures[1]
    return render("study.html.j2", study=study, images=[], short=short, pictures=pictures)


@pytest.mark.parametrize("name", NAMES)
def test_a_page_can_be_read(browser: Browser, pages: dict[str, Path], name: str) -> None:
    page = browser.new_context().new_page()
    loaded: list[str] = []
    page.on("request", lambda request: loaded.append(request.url))
    page.goto(pages[name].as_uri())
    for width in (400, 1400):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.set_viewport_size({"width": 400, "height": 800})  # where most has to scroll
    for scheme in SCHEMES:
        page.emulate_media(color_scheme=scheme)
        assert violations(page) == []
    page.emulate_media(media="print", color_scheme="light")
    page.set_viewport_size({"width": PRINTED, "height": 1000})
    assert page.evaluate("document.documentElement.scrollWidth") <= PRINTED
    assert page.pdf(format="A4").startswith(b"%PDF")
    assert loaded == [pages[name].as_uri()]
    page.context.close()
