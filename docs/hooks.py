"""mkdocs hooks: what docs/ links to elsewhere in the repository becomes part of the site, or plain text.

Pages link as a code host reads them, relative to the file: `../leaderboard/LEADERBOARD.md`. The files of
INCLUDED are built into the site and such links are rewritten; a link to any other file of the repository
becomes its text. A link to a file that does not exist stays, and fails the strict build.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parent.parent
INCLUDED = (
    "leaderboard/LEADERBOARD.md",
    "leaderboard/STUDIES.md",
    *(path.relative_to(ROOT).as_posix() for path in sorted(ROOT.glob("leaderboard/studies/*.[!t]*"))),
    "leaderboard/board.png",
    "benchmarks/results/learning.png",
    "CONTRIBUTING.md",
)
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")


def on_files(files, config):
    """Add the files of INCLUDED, each at its path in the repository."""
    for path in INCLUDED:
        files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Links of one page, from the repository's paths to the site's."""
    here = page.file.src_uri
    repository_path = here if here in INCLUDED else f"docs/{here}"
    markdown = markdown.replace("<details>", '<details markdown="1">')
    return LINK.sub(lambda link: _rewritten(link, repository_path, here), markdown)


def _rewritten(link: re.Match, repository_path: str, here: str) -> str:
    image, text, target, anchor = link[1], link[2], link[3], link[4] or ""
    if "://" in target or target.startswith("mailto:"):
        return link[0]
    path = posixpath.normpath(posixpath.join(posixpath.dirname(repository_path), target))
    if path in INCLUDED:
        on_site = path
    elif path.startswith("docs/") and path.endswith((".md", ".png")):
        on_site = path.removeprefix("docs/")
    else:
        return text if (ROOT / path).exists() else link[0]
    relative = posixpath.relpath(on_site, posixpath.dirname(here) or ".")
    return f"{image}[{text}]({relative}{anchor})"
