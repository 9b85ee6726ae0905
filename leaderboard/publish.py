"""The files of the board: publishes records, writes LEADERBOARD.md, checks that it is up to date."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from fact_baselines.load import load_reported
from fact_leaderboard.build import Section, build_board, section_key
from fact_leaderboard.gate import git_problem
from fact_leaderboard.records import RESULTS as RESULTS_FILE
from fact_leaderboard.records import Record, latest_records, read_folder, read_records
from fact_leaderboard.render import render_board
from fact_leaderboard.snapshots import LARGEST, keep_published, publish_snapshot
from fact_leaderboard.verifications import (
    append_verifications,
    beside,
    published_verifications,
    read_verifications,
)
from fact_metrics.base.atomic import write_text
from fact_metrics.base.errors import UserError

HOME = Path(__file__).parent
RESULTS = HOME / "results"
BOARD = HOME / "LEADERBOARD.md"
LOCAL_BOARD = "LEADERBOARD.md"


def published_records(folder: Path | None = None) -> list[Record]:
    """All committed records, files in order of name. Raises UserError on a broken file."""
    return [record for path in sorted((folder or RESULTS).glob("*.jsonl")) for record in read_records(path)]


def board_text(results: Path | None = None) -> str:
    """The text of LEADERBOARD.md that follows from the published records."""
    verifications = published_verifications(results or RESULTS)
    return render_board(published_sections(results), reported=load_reported(), verifications=verifications)


def write_board(out: Path | None = None, results: Path | None = None) -> bool:
    """Write LEADERBOARD.md; False if it was up to date."""
    out, text = out or BOARD, board_text(results)
    if out.exists() and out.read_text() == text:
        return False
    write_text(out, text)
    return True


def check_board(out: Path | None = None, results: Path | None = None) -> None:
    """Raise UserError if LEADERBOARD.md differs from the published records."""
    out = out or BOARD
    if not out.exists() or out.read_text() != board_text(results):
        raise UserError(f"{out} is stale; fact-eval leaderboard builds it again")


def local_sections(
    root: Path, results: Path | None = None, *, problems: list[str] | None = None
) -> list[Section]:
    """The board of the records under a folder of runs, beside the published rows of the same datasets.

    Files that cannot be read are left out; `problems` gets a line for each.
    """
    found = read_folder(root, [] if problems is None else problems)
    local = [record for _, latest in found for record in latest]
    sections = build_board(published_records(results), local=local)
    here = {section_key(record.dataset) for record in local}
    return [section for section in sections if section_key(section.dataset) in here]


def published_sections(results: Path | None = None) -> list[Section]:
    """The board of the published records."""
    return build_board(published_records(results))


def write_local_board(root: Path, *, problems: list[str] | None = None) -> tuple[list[Section], Path]:
    """Write root/LEADERBOARD.md from the records under root; returns its sections and path."""
    sections = local_sections(root, problems=problems)
    text = local_text(sections, root)
    path = Path(root) / LOCAL_BOARD
    if not path.exists() or path.read_text() != text:
        write_text(path, text)
    return sections, path


def local_text(sections: Sequence[Section], root: Path) -> str:
    """The local board as Markdown, with the values that papers report on its datasets."""
    names = {section.dataset["name"] for section in sections}
    reported = [group for group in load_reported() if group.dataset in names]
    return render_board(sections, reported=reported, made_by=f"fact-eval all {root}")


def publish_records(
    paths: Iterable[Path],
    results: Path | None = None,
    *,
    allow_dirty: bool = False,
    with_snapshots: bool = False,
    largest_snapshot: float = LARGEST,
) -> tuple[list[Path], list[str]]:
    """Copy the records of every `results.jsonl` under the paths into results/<run_id>.jsonl.

    One record per key: the latest ok record. Published records without a new one stay. Verifications of the
    records come with them, and `with_snapshots` the newest snapshot, up to `largest_snapshot` MB. Returns the
    files written or changed, and a line for every rejected run or snapshot. A run is rejected if its code is
    not committed (unless `allow_dirty`); invalid records are always rejected.
    """
    results = results or RESULTS
    by_run: dict[str, list[Record]] = {}
    folders: dict[str, list[Path]] = {}
    changed, refused = [], []
    for path, latest in (file for root in paths for file in read_folder(root, refused)):
        for record in latest:
            if record.status == "ok":
                by_run.setdefault(record.run_id, []).append(record)
                if path.parent not in folders.setdefault(record.run_id, []):
                    folders[record.run_id].append(path.parent)
    for run_id, measured in sorted(by_run.items()):
        records = [record for record in measured if not record.invalid]
        if len(records) < len(measured):
            why = next(record.invalid for record in measured if record.invalid)
            refused.append(f"{run_id}: {len(measured) - len(records)} records are invalid: {why}")
        if not records:
            continue
        problem = next((p for p in map(git_problem, records) if p), None)
        if problem and not allow_dirty:
            refused.append(
                f"{run_id}: {problem}; commit and score again, or --allow-dirty to list it unranked"
            )
            continue
        path = results / f"{run_id}.jsonl"
        before = read_records(path)
        if with_snapshots and records[0].source == "run":
            try:
                records = publish_snapshot(folders[run_id][-1], records, results, largest=largest_snapshot)
            except UserError as error:
                refused.append(f"{run_id}: no snapshot: {error}")
        known = {record.key: record for record in before}
        records = [keep_published(record, known.get(record.key)) for record in records]
        lines = [record.to_json() for record in latest_records([*before, *records])]
        text = "".join(f"{line}\n" for line in lines)
        if not path.exists() or path.read_text() != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, text)
            changed.append(path)
        changed += _publish_verifications(folders[run_id], path)
    return changed, refused


def _publish_verifications(folders: Iterable[Path], published: Path) -> list[Path]:
    """Copy the new verifications of published records from run folders; the file, if it changed."""
    path = beside(published)
    known = read_verifications(path)
    keys = {record.key for record in read_records(published)}
    found = [v for folder in folders for v in read_verifications(beside(folder / RESULTS_FILE))]
    new = [v for v in found if v.key in keys and v not in known]
    if new:
        append_verifications(path, new)
    return [path] if new else []
