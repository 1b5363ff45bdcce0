"""The page in a real browser: from a file, at two widths, in both themes.

Needs Chromium (``apt install chromium``) and the ``playwright`` package; set PDM_TEST_ARTIFACTS to a folder to keep the
screenshots there.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pdm_lightning.report import write_report

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
playwright = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed: pip install .[dev]"
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed: apt install chromium")

WIDTHS = (1400, 400)
THEMES = ("light", "dark")


@pytest.fixture(scope="module")
def address(make: Any, tmp_path_factory: Any) -> str:
    page: Path = write_report(tmp_path_factory.mktemp("page"), make.rich_study())
    return page.as_uri()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        # root has no sandbox
        started = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def opened(browser: Any, address: str) -> Iterator[Any]:
    """Opens the page; whatever it complains of, or asks for, fails the test."""
    complaints: list[str] = []
    contexts = []

    def open_page(width: int = 1400, theme: str = "light", **more: Any) -> Any:
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme, **more)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
        page.on("request", lambda request: complaints.extend(_outside(request.url)))
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def _outside(url: str) -> list[str]:
    return [] if url.startswith(("file:", "data:")) else [f"request: {url}"]


@pytest.fixture(scope="module")
def screenshots(tmp_path_factory: Any) -> Path:
    folder = Path(os.environ.get("PDM_TEST_ARTIFACTS") or tmp_path_factory.mktemp("screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_fits_its_width(opened: Any, screenshots: Path, width: int, theme: str) -> None:
    page = opened(width, theme)
    page.screenshot(path=screenshots / f"page-{width}-{theme}.png", full_page=True)
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    # every picture of the theme in use is decoded and seen, those of the other one are not
    for kind in THEMES:
        shown = page.evaluate(f"Array.from(document.querySelectorAll('.panels .{kind}'), i => i.offsetWidth)")
        assert shown and all((one > 0) == (kind == theme) for one in shown)
    assert page.evaluate("Array.from(document.images).every(one => one.complete && one.naturalWidth > 0)")
    # what is wider than the page scrolls in itself, and can be reached with the keyboard
    boxes = "Array.from(document.querySelectorAll('.scroll'), one => [one.scrollWidth, one.clientWidth, one.tabIndex])"
    found = page.evaluate(boxes)
    assert all(reach == 0 for _, _, reach in found)
    assert width > 400 or any(inner > outer for inner, outer, _ in found)


def column(page: Any, table: str, number: int) -> list[list[str]]:
    """Texts of a column, a list a section; 0 is that of the rows' labels."""
    script = """([id, n]) => Array.from(document.querySelectorAll(`#${id} tbody`), body =>
      Array.from(body.querySelectorAll('tr[data-row]'), row => row.cells[n])
        .map(cell => (cell.querySelector('.v, .gap') || cell).textContent))"""
    found: list[list[str]] = page.evaluate(script, [table, number])
    return found


def test_a_column_of_numbers_is_sorted_by_click_and_by_keyboard(opened: Any) -> None:
    page = opened()
    (before,) = column(page, "detection-white_box", 1)
    assert before == [".900", "n/a (n=100)", ".920"]
    head = page.locator("#detection-white_box thead tr:last-child th").nth(1)
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert column(page, "detection-white_box", 1) == [[".920", ".900", "n/a (n=100)"]]
    head.locator("button").focus()
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    assert column(page, "detection-white_box", 1) == [[".900", ".920", "n/a (n=100)"]]
    # the rows moved as a whole
    assert column(page, "detection-white_box", 0)[0][0].startswith("FGSM-0.05")
    page.keyboard.press("Space")
    assert head.get_attribute("aria-sort") is None
    assert column(page, "detection-white_box", 1) == [before]


def test_labels_are_sorted_and_rows_stay_in_their_sections(opened: Any) -> None:
    page = opened()
    sections = "Array.from(document.querySelectorAll('#timings tr.part'), one => one.textContent)"
    headings, before = page.evaluate(sections), column(page, "timings", 0)
    assert len(before) > 3 and all(len(one) == 3 and one != sorted(one) for one in before)
    head = page.locator("#timings thead th").first
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert column(page, "timings", 0) == [sorted(one) for one in before]
    head.locator("button").click()
    assert column(page, "timings", 0) == [sorted(one, reverse=True) for one in before]
    # another column takes over: one is sorted at a time
    page.locator("#timings thead th").nth(1).locator("button").click()
    assert head.get_attribute("aria-sort") is None
    assert page.locator("#timings [aria-sort]").count() == 1
    assert page.evaluate(sections) == headings
    first = "document.querySelectorAll('#timings tbody tr:first-child.part').length"
    assert page.evaluate(first) == len(headings)


def test_the_theme_button_goes_through_the_themes(opened: Any) -> None:
    page = opened(theme="dark")
    button = page.locator("button.theme")
    seen = []
    for _ in range(3):
        button.click()
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        seen.append((button.inner_text(), ground))
    light, dark = "rgb(243, 245, 248)", "rgb(15, 19, 24)"
    assert seen == [("Theme: light", light), ("Theme: dark", dark), ("Theme: auto", dark)]


@pytest.mark.parametrize("width", WIDTHS)
def test_contents_stay_at_hand(opened: Any, screenshots: Path, width: int) -> None:
    page = opened(width)
    page.evaluate("document.getElementById('examples').scrollIntoView()")
    contents = page.locator(".contents details")
    assert (contents.get_attribute("open") is not None) == (width > 1000)
    if width < 1000:
        page.locator(".contents summary").click()
        page.screenshot(path=screenshots / f"contents-{width}.png")
    link = page.locator(".contents a[href='#made']")
    link.scroll_into_view_if_needed()
    link.click()
    assert page.evaluate("location.hash") == "#made"
    assert (contents.get_attribute("open") is not None) == (width > 1000)
    places = page.evaluate("Array.from(document.querySelectorAll('.contents a'), one => one.hash.slice(1))")
    missing = page.evaluate("places => places.filter(id => !document.getElementById(id))", places)
    assert len(places) > 10 and missing == [] and len(set(places)) == len(places)


def test_what_a_link_names_is_unfolded(opened: Any) -> None:
    page = opened()
    folded = page.locator("main details").first
    assert folded.get_attribute("open") is None
    page.evaluate("id => { location.hash = id; }", folded.get_attribute("id"))
    page.wait_for_function("document.querySelector('main details').open")
    assert folded.evaluate("one => one.getBoundingClientRect().top < innerHeight")


def test_a_long_caption_makes_way_for_its_table_on_a_phone(opened: Any) -> None:
    page = opened(400)
    caption, more = (
        page.locator("#ablation-mnist-gray_box .caption"),
        page.locator("#ablation-mnist-gray_box .more"),
    )
    short = caption.evaluate("one => one.offsetHeight")
    more.click()
    assert more.get_attribute("aria-expanded") == "true"
    assert caption.evaluate("one => one.offsetHeight") > 2 * short
    more.click()
    assert caption.evaluate("one => one.offsetHeight") == short
    page.set_viewport_size({"width": 1400, "height": 900})
    more.wait_for(state="hidden")
    assert caption.evaluate("one => one.scrollHeight == one.clientHeight")


def test_a_key_is_copied_as_a_command(opened: Any) -> None:
    page = opened(permissions=["clipboard-read", "clipboard-write"])
    key = page.locator("#timings code.key").first
    key.focus()
    page.keyboard.press("Enter")
    page.locator("#timings code.key.copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == "pdml store show 0123456789abcdef"


def test_the_page_is_printed_with_everything_unfolded(opened: Any, screenshots: Path) -> None:
    page = opened()
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = false)")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert page.locator("main details:not([open])").count() == 0
    page.emulate_media(media="print")
    assert not page.locator(".contents").is_visible() and not page.locator("button.theme").is_visible()
    page.screenshot(path=screenshots / "print.png", full_page=True)
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert page.locator("main details[open]").count() == 0


def test_a_page_without_scripts_still_shows_everything(opened: Any) -> None:
    page = opened(java_script_enabled=False)
    assert page.locator(".contents details[open]").count() == 1
    assert page.locator("table.gallery").count() == 2 and page.locator("#timings tbody").first.is_visible()


def test_the_page_is_small(address: str) -> None:
    assert Path(address.removeprefix("file://")).stat().st_size < 10_000_000
