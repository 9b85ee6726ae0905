"""The latest outcome of every key of a large results file, so that appending a record reads none of it.

An SQLite file beside the results, made again whenever the results are not as the last append left them. Small
files need none: reading them is as fast.
"""

import contextlib
import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

SMALL = 2**20  # bytes of results, some 300 records

Outcome = tuple[str, str | None]  # status, error
Outcomes = Iterable[tuple[tuple, Outcome]]  # of keys; the latest one counts


class KnownOutcomes:
    """The latest outcome of keys: `known.get(key)`, `known.put(key, outcome)`."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def get(self, key: tuple) -> Outcome | None:
        """The outcome of a key, None if it has no record."""
        found = self._database.execute("SELECT status, error FROM latest WHERE key = ?", (_text(key),))
        return found.fetchone()

    def put(self, key: tuple, outcome: Outcome) -> None:
        """Remember the outcome of a key."""
        self._database.execute("REPLACE INTO latest VALUES (?, ?, ?)", (_text(key), *outcome))


@contextlib.contextmanager
def known_outcomes(results: Path, read: Callable[[], Outcomes]) -> Iterator[KnownOutcomes]:
    """The outcomes in a results file, for the time that the caller holds its lock.

    `read` gives all of them, one per key; it is called where no index fits the file. What the caller appends
    to the file it puts into the index as well.
    """
    small = not results.exists() or results.stat().st_size <= SMALL
    place = results.with_name(f".{results.name}.index")
    database = _open(":memory:" if small else str(place))
    try:
        if small or database.execute("SELECT * FROM covered").fetchone() != _state(results):
            database.execute("DELETE FROM latest")
            rows = ((_text(key), *outcome) for key, outcome in read())
            database.executemany("REPLACE INTO latest VALUES (?, ?, ?)", rows)
        # Until the new state is written, an append that is cut short leaves an index that does not fit.
        database.execute("DELETE FROM covered")
        database.commit()
        yield KnownOutcomes(database)
        database.execute("INSERT INTO covered VALUES (?, ?, ?)", _state(results))
        database.commit()
    finally:
        database.close()


def _open(place: str) -> sqlite3.Connection:
    """The index, a new one where there is none or none that SQLite reads."""
    try:
        return _connect(place)
    except sqlite3.DatabaseError:
        os.unlink(place)
        return _connect(place)


def _connect(place: str) -> sqlite3.Connection:
    database = sqlite3.connect(place)
    try:
        database.execute("CREATE TABLE IF NOT EXISTS latest (key TEXT PRIMARY KEY, status TEXT, error TEXT)")
        database.execute("CREATE TABLE IF NOT EXISTS covered (size INTEGER, modified INTEGER, inode INTEGER)")
    except sqlite3.DatabaseError:
        database.close()
        raise
    return database


def _state(results: Path) -> tuple[int, int, int]:
    stat = results.stat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ino


def _text(key: tuple) -> str:
    return json.dumps(key)
