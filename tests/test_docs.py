"""The documentation is current, short where it must be, has no broken link, and builds as a strict site."""

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "metrics/README.md", "benchmarks/README.md")),
    ROOT / "leaderboard" / "LEADERBOARD.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
NOT_TEXT = re.compile(r"^```.*?^```|`[^`\n]*`", flags=re.S | re.M)


def load_generator():
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


generate = load_generator()


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as code hosts and the site make them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.S | re.M)
    titles = re.findall(r"^#+ (.*)$", text, flags=re.M)
    return {re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-") for title in titles}


def broken_links(page: Path) -> list[str]:
    """The links to files or headings that are not there, of those that stay inside the repository."""
    links = re.findall(r"\]\(([^)\s]+)\)", NOT_TEXT.sub("", page.read_text(encoding="utf-8")))
    broken = []
    for link in (link for link in links if "://" not in link):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    return broken


def build_site(folder: Path, out: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", out]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


def test_generated_regions_are_current() -> None:
    assert [path.name for path in generate.stale_pages()] == [], "run `make docs`"


def test_every_table_of_the_generator_stands_in_a_page() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in PAGES)
    assert sorted(name for _, name, _ in generate.REGION.findall(text)) == sorted(generate.TABLES)


def test_an_edited_region_is_stale_and_the_generator_mends_it(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- generated: axes -->\nby hand\n<!-- end -->\nafter\n")
    stale = generate.stale_pages(tmp_path)
    assert list(stale) == [page] and "by hand" not in stale[page]
    assert stale[page].startswith("before\n") and stale[page].endswith("\nafter\n")
    page.write_text(stale[page])
    assert generate.stale_pages(tmp_path) == {}


def test_a_bar_in_a_cell_does_not_split_it() -> None:
    assert generate.table(["a", "b"], [["C(x) || C(y)", "<int> *"]]).splitlines()[-1] == (
        r"| C(x) \|\| C(y) | \<int> \* |"
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_anchors_lead_somewhere(page: Path) -> None:
    assert broken_links(page) == []


def test_a_broken_link_and_a_broken_anchor_are_found(tmp_path: Path) -> None:
    (tmp_path / "there.md").write_text("# What's `here`?\n")
    page = tmp_path / "page.md"
    page.write_text("[a](there.md#whats-here) [b](gone.md) [c](there.md#gone) [d](#gone) `[e](gone.md)`\n")
    assert broken_links(page) == ["gone.md", "there.md#gone", "#gone"]


def test_every_page_is_reached_from_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    linked = set(re.findall(r"\]\(docs/([\w-]+\.md)", readme))
    pages = {path.name for path in (ROOT / "docs").glob("*.md")}
    behind = {"index.md", "training-speed.md", "injection-figures.md"}  # from the pages that they detail
    assert pages - linked == behind


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 1500


def test_the_site_builds_strictly_with_all_pages(tmp_path: Path) -> None:
    done = build_site(ROOT, tmp_path)
    assert done.returncode == 0, done.stderr
    for page in (ROOT / "docs").glob("*.md"):
        assert (tmp_path / page.with_suffix(".html").name).is_file(), page.name
    assert (tmp_path / "leaderboard" / "LEADERBOARD.html").read_text().count("<table") > 5
    assert (tmp_path / "leaderboard" / "board.png").is_file()


def test_the_strict_build_refuses_a_broken_link(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    outside = ("mkdocs.yml", "CONTRIBUTING.md", "README.md", "leaderboard/LEADERBOARD.md")
    for name in (*outside, "leaderboard/board.png", "benchmarks/results/learning.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    with open(tmp_path / "docs" / "index.md", "a", encoding="utf-8") as page:
        page.write("\n[broken](gone.md)\n")
    done = build_site(tmp_path, tmp_path / "site")
    assert done.returncode != 0 and "gone.md" in done.stderr
