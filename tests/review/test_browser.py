"""The page in headless Chromium: labelling by keyboard, reload, two annotators, markup in a text, 400 texts."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from playwright.sync_api import Browser, Page, expect

from browsing import chromium, needs_chromium, violations
from plankwise.review.app import make_app
from plankwise.review.server import bound
from plankwise.review.store import FILE, Item, ReviewStore

TOKEN = "s3cret"
pytestmark = needs_chromium


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as made:
        yield made


@contextmanager
def served(store: ReviewStore) -> Iterator[str]:
    """Serve a review from a thread, and return its address without the token."""
    with closing(bound(0)) as listening:
        port = listening.getsockname()[1]
        server = uvicorn.Server(uvicorn.Config(make_app(store, TOKEN, port), log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{port}"
        server.should_exit = True
        thread.join(30)


@pytest.fixture
def address(store: ReviewStore) -> Iterator[str]:
    with served(store) as found:
        yield found


def at(page: Page, number: int, of: int = 6) -> None:
    """Wait until a text is shown and its keys are listened for."""
    expect(page.locator("header")).to_contain_text(f"text {number} of {of}")
    page.wait_for_load_state()


def entered(browser: Browser, address: str, name: str, **options: Any) -> Page:
    """Open the page in a browser of its own, and enter as an annotator."""
    page = browser.new_context(**options).new_page()
    page.goto(f"{address}/?token={TOKEN}")
    assert "token" not in page.url
    page.get_by_label("Your name").fill(name)
    page.keyboard.press("Enter")
    expect(page.locator("header")).to_contain_text("of ")
    page.wait_for_load_state()
    return page


def test_six_texts_are_labelled_without_a_mouse(browser: Browser, address: str, store: ReviewStore) -> None:
    page = entered(browser, address, "Ada")
    page.keyboard.press("1")
    at(page, 2)
    page.keyboard.press("n")
    page.keyboard.type("no 1 reason")  # its letters and digits are no keys while it is written
    page.keyboard.press("Enter")
    at(page, 3)
    page.keyboard.press("m")
    page.keyboard.type("a note, 2 words")
    page.keyboard.press("Escape")
    page.keyboard.press("2")
    at(page, 4)
    page.keyboard.press("u")
    at(page, 3)
    page.keyboard.press("3")
    at(page, 4)
    page.keyboard.press("ArrowLeft")
    at(page, 3)
    expect(page.get_by_role("button", name="no 1 reason")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("ArrowRight")
    for number in (4, 5, 6):
        at(page, number)
        page.keyboard.press("1")
    expect(page.locator("main")).to_contain_text("All 6 texts have an answer by Ada")
    classes = [answer.error_class for answer in store.answers("Ada")]
    assert classes == ["irony", "no 1 reason", "no 1 reason", "irony", "irony", "irony"]
    page.context.close()


def test_a_reload_or_a_new_browser_resumes_where_it_was(browser: Browser, address: str) -> None:
    page = entered(browser, address, "Ada")
    page.keyboard.press("1")
    at(page, 2)
    page.reload()
    at(page, 2)
    page.context.close()
    again = entered(browser, address, "Ada")
    expect(again.locator("header")).to_contain_text("text 2 of 6")
    again.context.close()


def test_two_annotators_at_once_have_answers_of_their_own(browser: Browser, address: str, store: ReviewStore) -> None:
    pages = {name: entered(browser, address, name) for name in ("Ada", "Bob")}
    for number in range(1, 7):
        for key, (_, page) in enumerate(pages.items(), 1):
            at(page, number)
            page.keyboard.press(str(key))
    for page in pages.values():
        expect(page.locator("main")).to_contain_text("All 6 texts")
        page.context.close()
    assert {answer.error_class for answer in store.answers("Ada")} == {"irony"}
    assert {answer.error_class for answer in store.answers("Bob")} == {"quotation"}


def test_markup_in_a_text_is_shown_and_not_run(browser: Browser, address: str) -> None:
    page = entered(browser, address, "Ada")
    faults: list[str] = []
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.goto(f"{address}/by/Ada/2")
    expect(page.locator("blockquote")).to_have_text("<script>document.title = 'broken'</script> & <b>bold</b>")
    assert page.title().startswith("2 of 6")
    assert page.locator("blockquote script, blockquote b").count() == 0
    assert faults == []  # the policy forbids nothing that the page itself does
    page.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
def test_the_page_fits_its_window(browser: Browser, address: str, width: int, scheme: Any) -> None:
    page = entered(browser, address, "Ada", viewport={"width": width, "height": 800}, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert violations(page) == []
    page.context.close()


def test_a_form_on_another_site_changes_nothing(browser: Browser, address: str, store: ReviewStore) -> None:
    page = entered(browser, address, "Ada")
    page.goto("data:text/html,<title>elsewhere</title>")
    form = f"<form id=f method=post action='{address}/by/Ada/1'><input name=class value=1></form>"
    page.evaluate(f"document.body.innerHTML = `{form}`; document.getElementById('f').submit()")
    page.wait_for_load_state()
    time.sleep(0.5)
    assert store.answers() == []
    page.context.close()


def test_four_hundred_texts(browser: Browser, tmp_path: Path) -> None:
    items = [
        Item(number, f"row-{number}", f"text {number} " * 40, None, "good", ("bad",), "false positive", ("baseline",))
        for number in range(1, 401)
    ]
    meta = {"title": "Many", "class": "bad", "counts": {}, "access": "open"}
    store = ReviewStore.create(tmp_path / f"many-{FILE}", items, ["irony"], meta)
    for number in range(1, 396):
        store.answer(number, "Ada", 1, "")
    with served(store) as address:
        page = entered(browser, address, "Ada")
        for number in range(396, 401):
            at(page, number, 400)
            page.keyboard.press("1")
        expect(page.locator("main")).to_contain_text("All 400 texts have an answer")
        page.context.close()
    assert len(store.answers("Ada")) == 400
