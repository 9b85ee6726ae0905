"""The HTML page of an explanation: safe against texts of strangers, complete, and usable by keyboard."""

import base64
import dataclasses
import hashlib
import io
import json
from html.parser import HTMLParser

import numpy as np
import pytest
from explain_toys import toy_attribute, toy_frames
from PIL import Image

from fact_eval.explain.html import inert_json, page_text
from fact_eval.explain.page import sprite, viewer_data, write_viewer

HOSTILE = '</script><img src=x onerror="document.title=1"><!--\u202e\x1b[2J{{style}} & ünï'


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
    document = Elements(page_text(name, dict.fromkeys(slots, "x"), {}))
    (policy,) = [a["content"] for tag, a in document.tags if a.get("http-equiv") == "Content-Security-Policy"]
    script = document.texts["script"].removeprefix("{}")
    for kind, content in (("script", script), ("style", document.texts["style"])):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")
    assert not [a for tag, a in document.tags if "src" in a or "href" in a or "style" in a]


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
