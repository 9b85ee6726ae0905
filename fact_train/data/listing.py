"""Names of the files in a folder and of the members of an archive: what counts, and what is passed over.

Links follow one rule in both: each real folder and file counts once, under its own name where it has one.
"""

import os
import posixpath
import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fact_metrics.base.errors import UserError

# File types that are never opened: a FIFO waits for a writer that may never come.
KINDS = {
    stat.S_IFIFO: "FIFO",
    stat.S_IFSOCK: "socket",
    stat.S_IFBLK: "device",
    stat.S_IFCHR: "device",
}
HIDDEN, TWICE, UPWARDS, OUTSIDE = "hidden", "linked twice", "link upwards", "outside the archive"


def is_visible(name: str) -> bool:
    """Whether no part of a relative path is hidden, or holds what macOS adds to archives."""
    return not any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def list_folder(path: Path, skipped: Counter[str]) -> list[str]:
    """Visible regular files below, relative with "/"; counts in `skipped` what is passed over, by reason.

    Links that lead nowhere are listed: opening them says so. UserError where a folder cannot be listed.
    """
    root = os.path.realpath(path)
    names: list[str] = []
    links: list[str] = []
    seen = {root}  # real paths of folders, and of files that only links lead to
    _list_real("", root, names, links, seen, skipped)
    for link in _growing(links):
        target = os.path.realpath(path / link)
        if root.startswith(os.path.join(target, "")):
            skipped[UPWARDS] += 1
        elif target in seen or (os.path.dirname(target) in seen and _is_listed(target)):
            skipped[TWICE] += 1
        elif os.path.isdir(target):
            seen.add(target)
            _list_real(link + "/", target, names, links, seen, skipped)
        elif (kind := _kind(target)) is not None:
            skipped[kind] += 1
        else:
            seen.add(target)
            names.append(link)
    return names


def _list_real(
    prefix: str, real: str, names: list[str], links: list[str], seen: set[str], skipped: Counter[str]
) -> None:
    """Add what lies below the real folder to `names`, and links to `links`; no link is followed."""
    folders = [(prefix, real)]
    for prefix, here in _growing(folders):
        try:
            with os.scandir(here) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            raise UserError(f"{here}: cannot be listed ({error.strerror})") from error
        for entry in found:
            name = prefix + entry.name
            if not is_visible(entry.name):
                skipped[HIDDEN] += 1
            elif entry.is_symlink():
                links.append(name)
            elif entry.is_dir():
                if entry.path not in seen:
                    seen.add(entry.path)
                    folders.append((name + "/", entry.path))
            elif entry.path in seen:
                skipped[TWICE] += 1
            elif (kind := _kind(entry.path)) is not None:
                skipped[kind] += 1
            else:
                names.append(name)


def _growing(items: list) -> Iterator:
    """The items, those included that are added meanwhile."""
    position = 0
    while position < len(items):
        yield items[position]
        position += 1


def _is_listed(target: str) -> bool:
    return is_visible(os.path.basename(target)) and os.path.isfile(target)


def _kind(path: str) -> str | None:
    """What a path is that is neither a regular file nor a folder; None for these, and where nothing is."""
    try:
        return KINDS.get(stat.S_IFMT(os.stat(path).st_mode))
    except OSError:
        return None


class Members:
    """Files of an archive by name, with what opens each; `skipped` counts what is passed over, by reason."""

    def __init__(self, path: Path):
        self.path, self.found, self.skipped = path, {}, Counter()
        self._links: dict[str, str] = {}

    def add(self, name: str, member: Any) -> None:
        """Add a file. UserError where two visible ones have one name."""
        if ".." in name.split("/"):
            self.skipped[OUTSIDE] += 1
        elif not is_visible(name):
            self.skipped[HIDDEN] += 1
        elif name in self.found:
            raise UserError(f"{self.path}: two members are called {name}; keep one")
        else:
            self.found[name] = member

    def add_link(self, name: str, target: str) -> None:
        """Add a symbolic link; `resolve_links` says what becomes of it."""
        if is_visible(name):
            self._links[name] = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
        else:
            self.skipped[HIDDEN] += 1

    def resolve_links(self) -> None:
        """Pass over links to members, which are read already; opening another link is an OSError."""
        folders = {posixpath.dirname(name) for name in self.found}
        folders |= {folder[:i] for folder in folders for i, c in enumerate(folder) if c == "/"} | {"."}
        for name, target in self._links.items():
            if target in self.found or target in self._links or target in folders:
                self.skipped[TWICE] += 1
            else:
                self.add(name, None)

    def get(self, name: str) -> Any:
        """What opens a file. Raises OSError for a link that leads out of the archive."""
        if self.found.get(name) is None:
            raise OSError("a link to what is not in the archive")
        return self.found[name]
