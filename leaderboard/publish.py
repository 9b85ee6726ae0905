"""The files of the board: publishes records, writes LEADERBOARD.md, checks that it is up to date."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from fact_baselines.load import load_reported
from fact_leaderboard.build import Section, build_board, git_problem, section_key
from fact_leaderboard.records import Record, latest_records, read_folder, read_records
from fact_leaderboard.render import render_board
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
    return render_board(published_sections(results), reported=load_reported())


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
    local = read_folder(root, [] if problems is None else problems)
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
    paths: Iterable[Path], results: Path | None = None, *, allow_dirty: bool = False
) -> tuple[list[Path], list[str]]:
    """Copy the records of every `results.jsonl` under the paths into results/<run_id>.jsonl.

    One record per key: the latest ok record. Published records without a new one stay. Returns the files
    written or changed, and a line for every rejected run. A run is rejected if its code is not committed
    (unless `allow_dirty`); invalid records are always rejected.
    """
    by_run: dict[str, list[Record]] = {}
    changed, refused = [], []
    for record in (record for root in paths for record in read_folder(root, refused)):
        if record.status == "ok":
            by_run.setdefault(record.run_id, []).append(record)
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
        path = (results or RESULTS) / f"{run_id}.jsonl"
        lines = [record.to_json() for record in latest_records([*read_records(path), *records])]
        text = "".join(f"{line}\n" for line in lines)
        if not path.exists() or path.read_text() != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, text)
            changed.append(path)
    return changed, refused
