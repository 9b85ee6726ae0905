"""The pages of explanations in a headless Chromium: skipped if there is none on PATH."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from chromium import CHROMIUM, NAMES, Page, browser
from explain_toys import toy_frames
from test_explain_page import hostile_frames

from fact_eval.explain.page import write_viewer
from fact_eval.explain.raters import FILMS, FORM, KEY, read_key, write_pack
from fact_eval.explain.ratings import read_answers, score_descriptions, score_identification

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=f"none of {', '.join(NAMES)} is on PATH")


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A browser for the tests of this file."""
    with browser(tmp_path_factory.mktemp("chromium")) as page:
        yield page


@pytest.fixture
def page(chromium: Page, tmp_path: Path) -> Page:
    """An empty tab that saves to `tmp_path`."""
    return chromium.renew(tmp_path)


PIXELS = """(async () => {
  await Promise.all([...sprites.values()]);
  await new Promise(requestAnimationFrame);
  const canvas = document.querySelectorAll(".row canvas")[%d];
  return Array.from(canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data);
})()"""


def pixels(page: Page, row: int) -> np.ndarray:
    size = toy_frames().parts[0].together.images.shape[-1]
    return np.array(page.eval(PIXELS % row), dtype=np.uint8).reshape(size, size, 4)[..., 0]


def choose(page: Page, select: str, value: str) -> None:
    page.eval(
        f"(() => {{ const s = document.getElementById('{select}'); s.value = {json.dumps(value)};"
        " s.dispatchEvent(new Event('change')); })()"
    )


def shown(page: Page, row: int) -> str:
    return page.eval(f"document.querySelectorAll('.row output')[{row}].textContent")


def test_sliders_show_the_frames_and_probabilities(page: Page, tmp_path: Path) -> None:
    frames = toy_frames()
    path = write_viewer(tmp_path / "page.html", frames)
    part = {(part.method, part.target): part for part in frames.parts}
    page.open(path)
    attfind = part["attfind-greedy", 0]
    for row, sweep in enumerate(attfind.sweeps, start=1):  # row 0 is all together
        own = int(sweep.own[0])
        np.testing.assert_array_equal(pixels(page, row), sweep.frames.images[0, own, 0].numpy())
    # keys alone: Tab from Reset through the images to the first slider, End, then one step back
    page.eval("document.getElementById('reset').focus()")
    page.press("Tab", 2)
    assert page.eval("document.activeElement.id") == "slider-0"
    page.press("End")
    last = attfind.together
    np.testing.assert_array_equal(pixels(page, 0), last.images[0, -1, 0].numpy())
    gained = round(float(last.log_odds[0, -1]), 2) - round(float(last.log_odds[0, 0]), 2)
    says = f"p(disc) = {float(last.probability[0, -1]):.2f}, log-odds {gained:+.2f}, class disc"
    assert shown(page, 0) == says
    page.press("ArrowLeft")
    np.testing.assert_array_equal(pixels(page, 0), last.images[0, -2, 0].numpy())
    # the third image, by arrow keys on the group of images; all sliders start again
    page.eval("document.querySelector('#images input').focus()")
    page.press("ArrowRight", 2)
    np.testing.assert_array_equal(pixels(page, 0), last.images[2, 0, 0].numpy())
    # another class, and another method beside
    choose(page, "target", "2")
    choose(page, "right", "attfind-greedy")
    choose(page, "left", "random")
    row = 1 + len(part["random", 2].sweeps) + 1  # the first attribute of the right column
    page.eval(f"document.getElementById('slider-{row}').focus()")
    page.press("Home")
    sweep = part["attfind-greedy", 2].sweeps[0]
    np.testing.assert_array_equal(pixels(page, row), sweep.frames.images[0, 0, 0].numpy())
    p = float(sweep.frames.probability[0, 0])
    assert 0.001 < p < 0.01  # small numbers keep a digit
    assert shown(page, row).startswith(f"p(<b>bar</b>) = {p * 1000:.0f}e-3, log-odds -")
    said = page.eval("document.activeElement.getAttribute('aria-valuetext')")
    assert said.startswith(f"value {float(sweep.values[0, 0]):.2f}") and said.endswith(shown(page, row))
    assert page.errors == []
    assert [url for url in page.requests if not url.startswith("data:")] == [path.as_uri()]


def test_hostile_texts_are_shown_as_text(page: Page, tmp_path: Path) -> None:
    path = write_viewer(tmp_path / "page.html", hostile_frames())
    page.open(path)
    assert page.eval("document.title").startswith("Why </script><img")
    assert page.eval("document.querySelectorAll('img, b').length") == 0
    assert "onerror" in page.eval("document.querySelector('h1').textContent")
    assert "onerror" in page.eval("document.getElementById('target').textContent")
    for width in (360, 1100):  # nor do they make the page wider than its window
        page.open(path, width=width)
        assert page.eval("document.documentElement.scrollWidth") <= width
    assert page.errors == []


def test_play_moves_every_slider_and_stop_holds_them(page: Page, tmp_path: Path) -> None:
    path = write_viewer(tmp_path / "page.html", toy_frames())
    places = "[...document.querySelectorAll('input[type=range]')].map((s) => Number(s.value))"
    wait = "new Promise((done) => setTimeout(done, 500))"
    page.open(path)
    page.eval("document.getElementById('play').focus()")
    page.press("Enter")
    page.wait_for(f"{places}[0] >= 1")
    page.press("Enter")
    held = page.eval(places)
    page.eval(wait)
    assert page.eval(places) == held
    assert page.eval("document.getElementById('play').getAttribute('aria-pressed')") == "false"


def test_a_rater_fills_in_the_form_by_keyboard_and_the_file_is_scored(page: Page, tmp_path: Path) -> None:
    pack = tmp_path / "pack"
    write_pack(pack, toy_frames(), attributes=2)
    key = read_key(pack / KEY)
    rater, words = '=HYPERLINK("x"), Ann', '-bigger, "hole" <b>'
    orders = []
    for name in ("Bob", rater, rater):  # the last one answers
        page.open(pack / FORM)
        page.eval("document.getElementById('rater').focus()")
        page.write(name)
        page.press("Enter")
        orders.append(page.eval("state.order.map((question) => question.id)"))
    kinds = []
    for _ in key.questions:
        kinds.append(page.eval("state.order[state.place].kind"))
        if kinds[-1] == "identification":
            page.press("Enter")  # an unanswered question stays
            assert page.eval("state.place") == len(kinds) - 1
            page.press(" ")  # the focus is on film A
        else:
            page.write(words)
        page.press("Enter")
    assert page.eval("document.getElementById('end').hidden") is False
    page.press("Enter")  # the focus is on Save answers
    while not (files := list(tmp_path.glob("answers-*.csv"))):
        page.eval("new Promise((done) => setTimeout(done, 50))")
    assert page.errors == []
    assert {url.split(":")[0] for url in page.requests} <= {"file", "data", "blob"}
    assert orders[0] != orders[1] == orders[2] and sorted(orders[0]) == sorted(orders[1])
    assert kinds == sorted(kinds, reverse=True)  # identification first
    (path,) = files
    assert path.name == "answers-HYPERLINK-x-Ann.csv"
    answers = read_answers([path], key)
    assert answers == {
        "'" + rater: {q.id: "A" if q.kind == "identification" else "'" + words for q in key.questions}
    }
    asked = [q for q in key.questions if q.kind == "identification"]
    right = sum(one.right for one in score_identification(key, answers))
    assert right == sum(q.answer == "A" for q in asked)
    assert all(one.word in ("b", "bigger", "hole") for one in score_descriptions(key, answers))


def test_films_run_there_and_back_and_can_be_paused(page: Page, tmp_path: Path) -> None:
    pack = tmp_path / "pack"
    write_pack(pack, toy_frames(), attributes=2)
    page.open(pack / FORM)
    steps = page.eval("[...Array(40).keys()].map((tick) => frameAt(tick, 10))")
    assert steps[:10] == [*range(10)] and steps[10:15] == [9] * 5
    assert steps[14:24] == [*range(9, -1, -1)] and steps[24:29] == [0] * 5 and steps[28] == steps[0]
    page.eval("document.getElementById('rater').focus()")
    page.write("Ann")
    page.press("Enter")
    now = "[...document.querySelectorAll('canvas')].map((canvas) => Number(canvas.dataset.step))"
    wait = "new Promise((done) => setTimeout(done, 400))"
    page.wait_for(f"{now}.filter((step) => step >= 1).length === {FILMS}")
    assert len(set(page.eval(now))) == 1  # all films are at the same frame
    page.eval("document.getElementById('pause').click()")
    held = page.eval(now)
    page.eval(wait)
    assert page.eval(now) == held
    page.eval("document.querySelector('[name=option]').focus()")
    page.press(" ")
    page.press("Enter")
    page.wait_for("state.place === 1")  # and the next question is drawn although films are paused
    page.wait_for(f"{now}.filter((step) => step === 0).length === {FILMS}")
