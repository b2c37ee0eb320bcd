"""The page in a real browser: it draws what the session tells, and its keys and buttons do what they say."""

import functools
import http.server
import re
import shutil
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from dreamer import Agent
from dreamer.tools.dream.messages import Who
from dreamer.tools.dream.reality import Reality
from dreamer.tools.dream.session import Session
from tests.dream.untrained_agents import DICT, PIXELS, VECTOR, agent, session

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest.importorskip("starlette", reason="the extra dream is not installed")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed: apt-get install chromium")
LONG = "environment.kwargs={length: 100000}"


@pytest.fixture(scope="module")
def browser():
    flags = ["--no-sandbox", "--js-flags=--expose-gc", "--enable-precise-memory-info"]
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield opened
        opened.close()


@contextmanager
def opened(browser, make):
    """The page of a server of sessions, until the end of the block. It must make no errors."""
    from tests.dream.test_server import serving

    with serving(make) as server:
        page, errors = browser.new_page(viewport={"width": 480, "height": 480}), []
        page.set_default_timeout(90_000)
        page.on("console", lambda message: message.type == "error" and errors.append(message.text))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(server.address)
        wait_for(page, lambda: number(page) is not None)
        page.server = server
        try:
            yield page
        finally:
            page.close()
        assert not errors


def wait_for(page, condition, pause=20):
    end = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < end, page.inner_text("#state")
        page.wait_for_timeout(pause)


def number(page):
    """The step that is shown; None if there is none yet."""
    found = re.search(r"step (\d+)", page.inner_text("#state"))
    return found and int(found[1])


def steps(page, count):
    """Make so many steps by the key for one."""
    for _ in range(count):
        before = number(page)
        page.keyboard.press(".")
        wait_for(page, lambda: number(page) > before)  # noqa: B023
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")  # curves are drawn


def pause(page):
    page.keyboard.press(" ")
    wait_for(page, lambda: "Play" in page.inner_text("#play"))


def pixels(page, canvas):
    """The colours of a canvas as a list of bytes."""
    return page.evaluate(
        "id => { const canvas = document.querySelector(id);"
        " return [...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data] }",
        canvas,
    )


def numbers(page, side):
    """The numbers of the parts of an observation, as they are written beside their curves."""
    return [float(text) for text in page.locator(f"#numbers i.{side}").all_inner_texts()]


@functools.cache
def cartpole():
    return Agent.load("cartpole")


def play_cartpole():
    agent = cartpole()
    return Session(agent, Reality(agent))


def test_keys_move_the_cart_and_a_dream_departs_from_reality(browser):
    with opened(browser, play_cartpole) as page:
        pause(page)
        for key, sign in ("ArrowRight", 1), ("ArrowLeft", -1):
            before = numbers(page, "real")
            page.keyboard.down(key)
            steps(page, 4)
            page.keyboard.up(key)
            assert page.get_attribute("#you", "aria-checked") == "true"
            assert sign * (numbers(page, "real")[3] - before[3]) > 0.1, "the cart's velocity"
        reality, seen = numbers(page, "real"), numbers(page, "dream")
        page.keyboard.press("d")
        wait_for(page, lambda: "dreaming" in page.inner_text("#state"))
        assert numbers(page, "dream") == seen and numbers(page, "real") == reality
        page.keyboard.press("a")
        steps(page, 10)
        apart = [abs(one - other) for one, other in zip(numbers(page, "real"), numbers(page, "dream"), strict=True)]
        assert max(apart) > 0.01
        page.keyboard.press("w")
        wait_for(page, lambda: "awake" in page.inner_text("#state"))


def test_nine_dreams_time_strip_and_saved_film(browser, tmp_path, monkeypatch):
    monkeypatch.setattr("dreamer.tools.dream.player.seconds_per_step", lambda session: 0.01)
    with opened(browser, lambda: session("dreamer", PIXELS)) as page:
        wait_for(page, lambda: number(page) >= 12)
        pause(page)
        small = len(pixels(page, "#dream"))
        page.keyboard.press("g")
        wait_for(page, lambda: page.inner_text("#dream-title") == "Dreams")
        assert len(pixels(page, "#dream")) > 9 * small and len(pixels(page, "#real")) == small
        page.locator("#strip").click(position={"x": 2.5 * page.locator("#strip").bounding_box()["width"] / 200, "y": 9})
        wait_for(page, lambda: "back" in page.inner_text("#state"))
        assert page.get_attribute("#again", "aria-checked") == "true"
        wait_for(page, lambda: "Play" in page.inner_text("#play"))  # the episode's end: no action leads beyond
        page.keyboard.press("n")
        wait_for(page, lambda: "awake" in page.inner_text("#state"))
        with page.expect_download() as download:
            page.select_option("#save", "gif")
        download.value.save_as(tmp_path / "dream.gif")
        assert Path(tmp_path / "dream.gif").read_bytes()[:6] == b"GIF89a"


class Late(Session):
    """A session in which the agent acts three more times after the person has chosen to act."""

    left = 0

    def handle(self, message):
        if message != Who(kind="who", who="you"):
            return super().handle(message)
        self.left = 4
        return False

    def advance(self):
        super().advance()
        self.left -= 1
        if self.left == 0:
            self.who = "you"


def test_disagreement_is_a_heat_strip_and_digits_choose_actions(browser):
    def make():
        own = agent("plan2explore", DICT, LONG)
        return Late(own, Reality(own))

    with opened(browser, make) as page:
        for key in "1", "2", "3":
            page.keyboard.press("a")
            wait_for(page, lambda: page.get_attribute("#agent", "aria-checked") == "true")
            page.keyboard.press(key)
            page.keyboard.press("7")  # is none of the actions
            wait_for(page, lambda: page.get_attribute("#you", "aria-checked") == "true")
            assert page.inner_text("#controls output") == key, "whatever the agent has done since"
        page.keyboard.press("d")
        wait_for(page, lambda: number(page) >= 10)
        pause(page)
        heat = [plot.inner_text().startswith("disagreement") for plot in page.locator("#curves .plot").all()].index(
            True
        )
        page.evaluate("place => { document.querySelectorAll('#curves canvas')[place].id = 'heat' }", heat)
        colours = pixels(page, "#heat")
        assert len({tuple(colours[place : place + 4]) for place in range(0, len(colours), 4)}) > 5


def test_page_of_another_origin_cannot_open_a_session(browser):
    class Foreign(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    with opened(browser, session) as page, http.server.HTTPServer(("127.0.0.1", 0), Foreign) as foreign:
        threading.Thread(target=foreign.serve_forever).start()
        try:
            other = browser.new_page()
            other.goto(f"http://127.0.0.1:{foreign.server_port}/")
            opening = """address => new Promise(resolve => {
                const socket = new WebSocket(address);
                socket.onopen = () => resolve("opened");
                socket.onerror = () => resolve("refused");
            })"""
            address = page.server.address.replace("http", "ws") + "session"
            assert other.evaluate(opening, address) == "refused" and page.evaluate(opening, address) == "opened"
            other.close()
        finally:
            foreign.shutdown()


def test_memory_stays_flat_over_three_thousand_steps(browser, monkeypatch):
    """After the first 250: 200 are kept. The page's heap varies by 1.7 MB, however many steps it has shown; keeping a
    step's message would take more than 1 KB."""
    monkeypatch.setattr("dreamer.tools.dream.player.seconds_per_step", lambda session: 0.001)

    def make():
        played = session("dreamer", VECTOR, LONG)
        played.reality.without_pictures = "drawing them would take this test most of its time"
        return played

    with opened(browser, make) as page:
        used = []
        for until in (250, 3000):
            wait_for(page, lambda: number(page) >= until, 300)  # noqa: B023
            resident = int(Path("/proc/self/statm").read_text().split()[1]) * 4096
            heaps = []
            for _ in range(5):  # what arrives during a collection of garbage stays until the next
                page.evaluate("gc()")
                page.wait_for_timeout(50)
                heaps.append(page.evaluate("performance.memory.usedJSHeapSize"))
            used.append((min(heaps), resident))
        assert used[1][0] - used[0][0] < 3e6 and used[1][1] - used[0][1] < 2e7


def test_everything_can_be_seen_on_wide_and_narrow_screens(browser):
    with opened(browser, lambda: session("plan2explore", PIXELS)) as page:
        wait_for(page, lambda: number(page) >= 3)
        for width in (1280, 400):
            page.set_viewport_size({"width": width, "height": 800})
            for scheme in ("light", "dark"):
                page.emulate_media(color_scheme=scheme)
                assert page.evaluate("document.documentElement.scrollWidth") <= width
                for button in page.locator("button, select").all():
                    box = button.bounding_box()
                    assert box["x"] >= 0 and box["x"] + box["width"] <= width and box["height"] >= 30
                dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(18, 19, 22)"
                assert dark == (scheme == "dark")
