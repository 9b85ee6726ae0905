"""Self-contained HTML pages from a template, a style sheet and a script of `templates/`.

A page works from disk: nothing is loaded from elsewhere. Texts are escaped and data is inert JSON, so text of
strangers is never markup. A content security policy allows this script and this style sheet only.
"""

import base64
import hashlib
import io
import json
import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from PIL import Image

from fact_metrics.base.atomic import write_text
from fact_metrics.base.plain_text import for_html

_SLOT = re.compile(r"\{\{(\w+)\}\}")


def write_page(path: Path, name: str, texts: Mapping[str, object], data: Any) -> Path:
    """Write the page `name` (page or study): its slots filled with `texts`, `data` for its script."""
    write_text(path, page_text(name, texts, data))
    return path


def page_text(name: str, texts: Mapping[str, object], data: Any) -> str:
    """The page as text. KeyError for a slot without text."""
    template, style, script = (_template(f"{name}.{kind}") for kind in ("html", "css", "js"))
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    slots = {key: for_html(text) for key, text in texts.items()}
    slots |= {"policy": for_html(policy), "style": style, "script": script, "data": inert_json(data)}
    return _SLOT.sub(lambda match: slots[match[1]], template)


def inert_json(data: Any) -> str:
    """JSON that ends no script element and holds no markup: ASCII, with < > & as escapes."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return re.sub("[<>&]", lambda match: f"\\u{ord(match[0]):04x}", text)


def data_uri(picture: Image.Image) -> str:
    """A picture as a lossless WebP inside an address."""
    content = io.BytesIO()
    picture.save(content, format="WEBP", lossless=True, method=4)
    return webp_uri(content.getvalue())


def webp_uri(content: bytes) -> str:
    """The bytes of a WebP file as an address."""
    return "data:image/webp;base64," + base64.b64encode(content).decode()


def _template(name: str) -> str:
    return (files("fact_eval.explain") / "templates" / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """How a content security policy names an inline script or style sheet."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
