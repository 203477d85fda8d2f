"""report.html in a real browser: read, clicked, and walked with the keyboard alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from vkemu.report import html
from vkemu.report.failure import Failure

from tests.inspect.streams import fleet, steps_from_events
from tests.report import w07
from tests.report.browser import Browser, missing

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing()), reason=missing()),
    pytest.mark.xdist_group("browser"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("report")


@pytest.fixture(scope="module")
def chromium(folder: Path) -> Iterator[Browser]:
    browser = Browser(folder / "profile")
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def page(folder: Path) -> Path:
    path = folder / "w07.html"
    path.write_text(html.render(w07.failure()))
    return path


@pytest.fixture(scope="module")
def long_page(folder: Path) -> Path:
    steps = steps_from_events(list(fleet(10_000)))
    path = folder / "long.html"
    path.write_text(html.render(Failure("a long run", steps)))
    return path


@pytest.fixture
def browser(chromium: Browser, page: Path) -> Browser:
    chromium.size(1440, 900)
    chromium.colours("light")
    chromium.open(page)
    return chromium


def current(browser: Browser) -> int:
    match = re.match(r"step (\d+)", browser.text("#step-title"))
    return int(match[1]) if match else 0


IN_VIEW = """
const box = document.querySelector("#scroll").getBoundingClientRect();
return [...document.querySelectorAll("#rows *")].filter((node) => {
  const at = node.getBoundingClientRect();
  return at.height && at.top >= box.top - 1 && at.bottom <= box.bottom + 1;
}).map((node) => node.textContent.trim());
"""


@pytest.mark.parametrize("size", [(1400, 900), (800, 600)])
def test_it_opens_on_the_two_accesses_without_an_error(
    browser: Browser, size: tuple[int, int], tmp_path: Path
) -> None:
    failure = w07.failure()
    page = tmp_path / "report.html"
    page.write_text(html.render(failure))
    browser.size(*size)
    browser.open(page)

    seen = browser.js(IN_VIEW)
    assert browser.text("#message").startswith("page 12 is written through 0x500000")
    assert current(browser) == max(access.step for access in failure.accesses)
    for access in failure.accesses:
        assert str(access.step) in seen
        assert any(text.startswith(access.role) for text in seen)
    assert browser.errors() == []


def test_it_fetches_nothing(browser: Browser) -> None:
    fetched = browser.js("return performance.getEntriesByType('resource').map((r) => r.name)")

    assert fetched == []


def test_a_click_selects_a_step_and_shows_what_it_changed(browser: Browser) -> None:
    access = w07.failure().accesses[0]

    browser.click(f"#row-{access.step} .t")

    assert current(browser) == access.step
    assert "page 12 freed" in browser.text("#step-what")
    assert "gone" in browser.text("#changes")
    assert browser.js("return location.hash") == f"#step-{access.step}"


def test_a_link_to_a_step_opens_there(browser: Browser, page: Path) -> None:
    browser.open(page, "#step-16")

    assert current(browser) == 16
    # Nothing has scrolled out of the window with it.
    assert browser.js("return document.querySelector('header').getBoundingClientRect().top") == 0


def test_the_keyboard_alone_walks_the_run(browser: Browser) -> None:
    first = current(browser)
    browser.press("ArrowLeft")
    along = current(browser)
    browser.press("End")
    end = current(browser)
    browser.press("ArrowUp")
    above = current(browser)
    browser.press("a")
    access = current(browser)
    browser.press("w")
    opens = current(browser)
    browser.press("Home")

    assert along < first
    assert (end, above) == (25, 24)
    assert access in {a.step for a in w07.failure().accesses}
    bracket = w07.failure().bracket
    assert bracket is not None
    assert opens in {bracket.opens, bracket.closes}
    assert browser.text("#step-title") == "set-up"


def test_a_fold_opens_by_keyboard(browser: Browser) -> None:
    folds = browser.js("return document.querySelectorAll('.fold').length")
    browser.press("Home", "ArrowDown", *["ArrowDown"] * 5)
    while browser.js("return document.querySelector('.fold.selected') === null"):
        browser.press("ArrowDown")
    browser.press("Enter")

    assert browser.js("return document.querySelectorAll('.fold').length") < folds


def test_filters_and_clear_by_keyboard(browser: Browser) -> None:
    browser.press("/")
    browser.press("1", "1")
    only = browser.text("#shown")
    browser.press("Escape")
    after = browser.text("#shown")
    browser.press("f")

    assert only == "2 of 25 steps"
    assert after != only
    assert browser.text("#shown") == "25 of 25 steps"
    assert browser.js("return document.activeElement.id") == "rows"


def test_filter_by_guest_and_address(browser: Browser) -> None:
    browser.type("#guest", "guest1")
    guest = browser.text("#shown")
    browser.click("#clear")
    browser.type("#va", "0x500123")

    steps = w07.failure().steps
    assert int(guest.split()[0]) == sum(step.actor.endswith("@guest1") for step in steps)
    assert int(browser.text("#shown").split()[0]) > 5
    browser.click("#clear")
    browser.type("#va", "zz")
    assert browser.js("return document.querySelector('#va').classList.contains('wrong')")


def test_the_life_of_the_page_follows_the_cursor(browser: Browser) -> None:
    browser.press("End")
    browser.click("#row-8 .t")
    early = browser.text("#page-state")
    browser.hover(f"#row-{w07.failure().accesses[0].step} .t")
    late = browser.text("#page-state")

    assert "pte 0x500000@1" in early
    assert "active" in early
    assert "free" in late
    assert "pte 0x500000@1" in late
    assert "owner" in browser.text("#page-life")


def test_every_state_is_that_of_a_forward_replay(browser: Browser) -> None:
    """Stepping backwards gives the state stepping forwards did."""
    script = """
        const seen = [];
        for (let s = 0; s <= last; s++) { moveState(s); seen.push(dump()); }
        for (let s = last; s >= 0; s--) { moveState(s); if (dump() !== seen[s]) return s; }
        function dump() {
          return JSON.stringify([...state].sort().map(([k, v]) => [k, [...v].sort()]));
        }
        return -1;
    """

    assert browser.js(script) == -1


def test_its_clocks_are_those_recorded(browser: Browser) -> None:
    """They are made up again from the arrows."""
    told = browser.js("return clocks.map((clock) => run.actors.map((a, i) => [a, clock[i]]))")
    steps = w07.failure().steps

    assert len(told) == len(steps)
    for step, clock in zip(steps[1:], told[1:], strict=True):
        assert {actor: count for actor, count in clock if count} == step.clock


def test_help_opens_and_closes(browser: Browser) -> None:
    browser.press("?")
    shown = browser.js("return document.querySelector('#help').open")
    browser.press("Escape")

    assert shown
    assert not browser.js("return document.querySelector('#help').open")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(1440, 900), (900, 800)])
def test_it_fits(chromium: Browser, page: Path, width: int, height: int, scheme: str) -> None:
    """Nothing but the steps scrolls sideways, in either colours, and text can be told apart."""
    chromium.size(width, height)
    chromium.colours(scheme)
    chromium.open(page, f"#step-{w07.failure().accesses[0].step}")

    overflow = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert chromium.js(overflow) <= 0
    assert chromium.js("return document.querySelector('#rows .row') !== null")
    for selector in ("body", ".row.window .t", ".row.access .t", "#side .what"):
        assert chromium.js(CONTRAST, selector) >= 4.5, selector
    chromium.click("#theme")
    assert chromium.js(CONTRAST, "body") >= 4.5


CONTRAST = """
    const light = (rgb) => {
      const [r, g, b] = rgb.map((v) => v / 255)
        .map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
      return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const numbers = (text) => text.match(/[\\d.]+/g).map(Number);
    let node = document.querySelector(arguments[0]);
    const front = light(numbers(getComputedStyle(node).color).slice(0, 3));
    let back = [0, 0, 0, 0];
    while (node && back[3] === 0) {
      const found = numbers(getComputedStyle(node).backgroundColor);
      back = found.length === 3 ? [...found, 1] : found;
      node = node.parentElement;
    }
    const behind = light(back.slice(0, 3));
    return (Math.max(front, behind) + 0.05) / (Math.min(front, behind) + 0.05);
"""


def test_ten_thousand_steps_stay_quick(chromium: Browser, long_page: Path) -> None:
    """Few nodes however long the run, and a jump that nobody waits for."""
    chromium.size(1440, 900)
    chromium.open(long_page, "#step-5000")
    assert current(chromium) == 5000
    nodes = chromium.js("return document.querySelectorAll('#rows *').length")
    chromium.press("PageDown", "PageDown", "ArrowDown")
    script = """
        const times = [];
        for (let i = 0; i < 30; i++) {
          const start = performance.now();
          select((i * 2371) % last);
          times.push(performance.now() - start);
        }
        return times.sort((a, b) => a - b)[15];
    """
    median_ms = chromium.js(script)

    assert nodes < 1000
    assert current(chromium) != 5000
    assert median_ms < 1000  # about 20 on two busy cores
    assert chromium.errors() == []
