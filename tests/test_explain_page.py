"""The HTML page of an explanation: safe against texts of strangers, complete, and usable by keyboard."""

import base64
import dataclasses
import hashlib
import io
import json
from html.parser import HTMLParser

import numpy as np
import pytest
from chromium import CHROMIUM, browser
from explain_toys import toy_attribute, toy_frames
from PIL import Image

from fact_eval.explain.html import inert_json, page_text
from fact_eval.explain.page import sprite, viewer_data, write_viewer

HOSTILE = '</script><img src=x onerror="document.title=1"><!--\u202e\x1b[2J{{style}} & ünï'

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH")


class Elements(HTMLParser):
    """All start tags with attributes, and the text inside each kind of element."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.texts, self._open = [], {}, []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open.append(tag)

    def handle_endtag(self, tag) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data) -> None:
        for tag in self._open:
            self.texts[tag] = self.texts.get(tag, "") + data


def hostile_frames():
    frames = toy_frames()
    part = frames.parts[1]
    attribute = toy_attribute(1, 1, 2.4, layer=HOSTILE)
    sweep = dataclasses.replace(part.sweeps[0], attribute=attribute)
    parts = (dataclasses.replace(part, sweeps=(sweep, *part.sweeps[1:])), *frames.parts[4:])
    return dataclasses.replace(
        frames,
        run_id=HOSTILE,
        snapshot=HOSTILE,
        classifier=HOSTILE,
        classes=(HOSTILE, HOSTILE + "2", HOSTILE + "3"),
        parts=parts,
    )


def test_texts_of_strangers_are_never_markup(tmp_path) -> None:
    path = tmp_path / "page.html"
    write_viewer(path, toy_frames())
    plain = Elements(path.read_text(encoding="utf-8"))
    write_viewer(path, hostile_frames())
    text = path.read_text(encoding="utf-8")
    hostile = Elements(text)
    assert [tag for tag, _ in hostile.tags] == [tag for tag, _ in plain.tags]
    assert "onerror" in hostile.texts["h1"] and "img" not in dict(hostile.tags)
    assert "\u202e" not in text and "\x1b" not in text


def test_data_of_the_page_is_equal_to_what_was_given(tmp_path) -> None:
    frames = hostile_frames()
    write_viewer(tmp_path / "page.html", frames)
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    inside = text.split('id="data">')[1].split("</script>")[0]
    assert not set("<>&") & set(inside) and inside.isascii()
    assert json.loads(inside) == json.loads(json.dumps(viewer_data(frames)))


def test_inert_json_has_no_markup_and_keeps_its_value() -> None:
    value = {"a<": ["</script>", "<!--", "&amp;", "\u2028", "\ud800"]}
    text = inert_json(value)
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == value


@pytest.mark.parametrize("name", ["page"])
def test_the_policy_allows_only_the_script_and_the_style_of_the_page(name: str) -> None:
    slots = ("title", "run", "snapshot", "sha256", "classifier", "pictures")
    page = Elements(page_text(name, dict.fromkeys(slots, "x"), {}))
    (policy,) = [a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    script = page.texts["script"].removeprefix("{}")
    for kind, content in (("script", script), ("style", page.texts["style"])):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")
    assert not [a for tag, a in page.tags if "src" in a or "href" in a or "style" in a]


def test_a_missing_text_is_an_error_and_not_an_empty_slot() -> None:
    with pytest.raises(KeyError, match="pictures"):
        page_text("page", {"title": "x", "run": "x", "snapshot": "x", "sha256": "x"}, {})


def test_sprites_are_stored_without_loss() -> None:
    frames = toy_frames()
    data = viewer_data(frames)["parts"][0]["attributes"][0]
    content = base64.b64decode(data["sprite"].removeprefix("data:image/webp;base64,"))
    with Image.open(io.BytesIO(content)) as opened:
        stored = np.asarray(opened.convert("RGB"))
    np.testing.assert_array_equal(stored, np.asarray(sprite(frames.parts[0].sweeps[0].frames.images)))


# In a browser

PIXELS = """(async () => {
  await Promise.all([...sprites.values()]);
  await new Promise(requestAnimationFrame);
  const canvas = document.querySelectorAll(".row canvas")[%d];
  return Array.from(canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data);
})()"""


def pixels(page, row: int) -> np.ndarray:
    size = toy_frames().parts[0].together.images.shape[-1]
    return np.array(page.eval(PIXELS % row), dtype=np.uint8).reshape(size, size, 4)[..., 0]


def choose(page, select: str, value: str) -> None:
    page.eval(
        f"(() => {{ const s = document.getElementById('{select}'); s.value = {json.dumps(value)};"
        " s.dispatchEvent(new Event('change')); })()"
    )


def shown(page, row: int) -> str:
    return page.eval(f"document.querySelectorAll('.row output')[{row}].textContent")


@needs_chromium
def test_sliders_show_the_frames_and_probabilities_in_chromium(tmp_path) -> None:
    frames = toy_frames()
    path = write_viewer(tmp_path / "page.html", frames)
    part = {(part.method, part.target): part for part in frames.parts}
    with browser(tmp_path) as page:
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
        assert shown(page, 0).startswith(f"p(disc) = {float(last.probability[0, -1]):.2f}, class ")
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
        assert f"p(<b>bar</b>) = {float(sweep.frames.probability[0, 0]):.2f}" in shown(page, row)
        said = page.eval("document.activeElement.getAttribute('aria-valuetext')")
        assert said.startswith(f"value {float(sweep.values[0, 0]):.2f}") and said.endswith(shown(page, row))
        assert page.errors == []
        assert [url for url in page.requests if not url.startswith("data:")] == [path.as_uri()]


@needs_chromium
def test_hostile_texts_are_shown_as_text_in_chromium(tmp_path) -> None:
    path = write_viewer(tmp_path / "page.html", hostile_frames())
    with browser(tmp_path) as page:
        page.open(path)
        assert page.eval("document.title").startswith("Why </script><img")
        assert page.eval("document.querySelectorAll('img, b').length") == 0
        assert "onerror" in page.eval("document.querySelector('h1').textContent")
        assert "onerror" in page.eval("document.getElementById('target').textContent")
        assert page.errors == []


@needs_chromium
def test_play_moves_every_slider_and_stop_holds_them_in_chromium(tmp_path) -> None:
    path = write_viewer(tmp_path / "page.html", toy_frames())
    places = "[...document.querySelectorAll('input[type=range]')].map((s) => Number(s.value))"
    wait = "new Promise((done) => setTimeout(done, 500))"
    with browser(tmp_path) as page:
        page.open(path)
        page.eval("document.getElementById('play').focus()")
        page.press("Enter")
        page.wait_for(f"{places}[0] >= 1")
        page.press("Enter")
        held = page.eval(places)
        page.eval(wait)
        assert page.eval(places) == held
        assert page.eval("document.getElementById('play').getAttribute('aria-pressed')") == "false"


@needs_chromium
@pytest.mark.parametrize("width", [360, 1100])
def test_the_page_fits_narrow_and_wide_windows_in_chromium(tmp_path, width: int) -> None:
    path = write_viewer(tmp_path / "page.html", hostile_frames())
    with browser(tmp_path) as page:
        page.open(path, width=width)
        assert page.eval("document.documentElement.scrollWidth") <= width
