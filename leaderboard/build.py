"""From records to the tables of a board: groups by configuration, gates, means over training seeds, rank.

A pure function of the records and of `columns.py`: equal records give an equal board, byte for byte. A value
is ranked only among values of the same dataset hash and protocol hash, with its full sample, from committed
code. Other values are listed unranked with the reason. A missing value is blank. A mean is over all training
seeds.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from fact_leaderboard.columns import EXPLANATIONS, PROTOCOLS, Column, columns_for, metrics_for
from fact_leaderboard.gate import CONTROLS, gate, git_problem
from fact_leaderboard.intervals import Mean, difference_of_means, holm, mean_over_seeds, variance_floor
from fact_leaderboard.records import DIVERGED, IMPORTED, Record, latest_records
from fact_metrics.base.image_size import Resolution
from fact_metrics.registry import find_spec

SIGNIFICANCE = 0.05  # chance that a board calls anything worse that is not, at most


@dataclass(frozen=True)
class Cell:
    """A metric's value in one row, mean over training seeds or value of a control row, and its sample."""

    mean: Mean
    n_requested: int | None
    n_effective: int | None
    degenerate: str | None = None  # why the value means nothing

    @property
    def short(self) -> bool:
        """Whether it used fewer images than the protocol requests (control rows of small datasets)."""
        return None not in (self.n_requested, self.n_effective) and self.n_effective < self.n_requested


@dataclass(frozen=True)
class Row:
    """One configuration or control of a board; `why` is the reason if it is not ranked."""

    label: str
    source: str
    preset: str | None
    kimg: float | None
    train_seeds: tuple[int, ...]
    cells: dict[str, Cell]
    records: tuple[Record, ...]  # behind the cells
    diverged: tuple[int, ...] = ()  # training seeds that ended without a value
    local: bool = False  # not among the published records
    why: str | None = None


@dataclass(frozen=True)
class Section:
    """A board of one dataset: columns that have a value, rows from best to worst."""

    dataset: dict
    protocol: str  # standard | embedded | explanations
    columns: tuple[Column, ...]
    higher_is_better: dict[str, bool]
    protocols: dict[str, Record]  # metric -> the record whose protocol and dataset the column is gated on
    ranked: tuple[Row, ...]
    controls: tuple[Row, ...]
    unranked: tuple[Row, ...]
    imported: bool = False  # of networks that other programs trained: never ranked with ours

    @property
    def local(self) -> bool:
        """Whether it has a row of records that are not published."""
        return any(row.local for row in (*self.ranked, *self.controls, *self.unranked))

    def best(self, metric: str) -> float | None:
        """The best ranked mean of a metric; None unless two means differ."""
        return self._best.get(metric)

    def tied(self, metric: str) -> frozenset[Mean]:
        """Ranked means that are not called worse than the best one of the metric.

        A mean without a spread of its own is not tested: it is neither tied nor worse.
        """
        return self._tied.get(metric, frozenset())

    @cached_property
    def _best(self) -> dict[str, float]:
        means = {metric: [mean.mean for mean in means] for metric, means in self._means.items()}
        best = {True: max, False: min}
        return {
            metric: best[self.higher_is_better[metric]](values)
            for metric, values in means.items()
            if len(set(values)) > 1
        }

    @cached_property
    def _tied(self) -> dict[str, frozenset[Mean]]:
        """All metrics at once: Holm's correction is over every comparison that a reader of the board makes.

        A column's best is chosen by the same values that are then tested, so the family holds all pairs of
        its tested means, and not those with the best alone.
        """
        metrics, others, p_values, family = [], [], [], 0
        for metric, best in self._best.items():
            means = self._means[metric]
            first = next(mean for mean in means if mean.mean == best)
            tested = sum(mean.stderr is not None for mean in means)
            family += tested * (tested - 1) // 2
            for other in means:
                if other.mean != best:
                    metrics.append(metric)
                    others.append(other)
                    p_values.append(difference_of_means(first, other).p)
        tied = defaultdict(set)
        for metric, other, p in zip(metrics, others, holm(p_values, family=family), strict=True):
            if p is not None and p >= SIGNIFICANCE:
                tied[metric].add(other)
        return {metric: frozenset(means) for metric, means in tied.items()}

    @cached_property
    def _means(self) -> dict[str, list[Mean]]:
        """The ranked means of each column."""
        means = {column.metric: [] for column in self.columns}
        for row in self.ranked:
            for metric, cell in row.cells.items():
                if not cell.degenerate:  # never the best, nor equal to it
                    means[metric].append(cell.mean)
        return means


Diverged = dict[tuple, set[int]]  # dataset and configuration -> training seeds


@dataclass
class _Group:
    """Records of one configuration that pass or fail the gate."""

    passed: dict[str, list[Record]] = field(default_factory=lambda: defaultdict(list))
    failed: dict[str, dict[str, list[Record]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )


def build_board(published: Iterable[Record], *, local: Iterable[Record] = ()) -> list[Section]:
    """One section per dataset and protocol, by name; values of two protocols are never ranked together.

    Imported networks have sections of their own, behind those of the same protocol. `local` records become
    rows marked as not published; they need no clean commit.
    """
    published, local = list(published), list(local)
    known = {_scored(record) for record in published}
    records = [r for r in latest_records(published + local) if r.status == "ok" and r.value is not None]
    diverged: Diverged = defaultdict(set)
    for r in records:
        if r.metric == DIVERGED and not r.invalid and (_scored(r) not in known or git_problem(r) is None):
            diverged[section_key(r.dataset), r.config_sha256].add(r.train_seed)
    by_dataset: dict[tuple, list[Record]] = defaultdict(list)
    for is_published in (True, False):
        same_origin = [r for r in records if (_scored(r) in known) is is_published]
        for record in _newest_snapshots(same_origin):
            by_dataset[section_key(record.dataset)].append(record)
    sections = []
    for _, group in sorted(by_dataset.items(), key=lambda item: _dataset_order(*item[0])):
        for protocol in PROTOCOLS:
            shown = sorted(_of_board(group, protocol), key=_order)
            for imported in (False, True):
                own = [record for record in shown if (record.source == IMPORTED) is imported]
                if own:
                    sections.append(_section(own, known, protocol, diverged, beside=shown))
        for _, explained in sorted(_by_classifier(group).items()):
            sections.append(_section(sorted(explained, key=_order), known, EXPLANATIONS, diverged))
    return sections


def _dataset_order(name: str, resolution: Resolution, channels: int) -> tuple:
    return name, isinstance(resolution, str), resolution, channels  # squares before HEIGHTxWIDTH


def section_key(dataset: dict) -> tuple:
    """Datasets with equal keys share a section."""
    return (dataset["name"], dataset["resolution"], dataset["channels"])


def _of_board(records: Sequence[Record], protocol: str) -> list[Record]:
    """A dataset's records for the board of a protocol: of sources that have a value specific to the protocol.

    Sources without a value specific to either protocol appear on the embedded board.
    """
    dataset = records[0].dataset["name"]
    specific = {
        name: {c.metric for c in columns_for(dataset, name) if c.protocol == name} for name in PROTOCOLS
    }
    own = {
        name: {_scored(record) for record in records if record.metric in metrics}
        for name, metrics in specific.items()
    }
    rows = own[protocol]
    if protocol == "embedded":
        rows = rows | ({_scored(record) for record in records} - own["standard"])
    shown = set(metrics_for(dataset, protocol))
    return [record for record in records if record.metric in shown and _scored(record) in rows]


def _by_classifier(records: Sequence[Record]) -> dict[tuple, list[Record]]:
    """Records of explanations by what was explained: the classifier and its classes of interest."""
    shown = set(metrics_for(records[0].dataset["name"], EXPLANATIONS))
    groups: dict[tuple, list[Record]] = defaultdict(list)
    for record in records:
        if record.metric in shown:
            groups[explained_classifier(record)].append(record)
    return groups


def explained_classifier(record: Record) -> tuple[str, str]:
    """Hash of the explained classifier, and the names of the classes of interest."""
    settings = record.protocol.get("settings", {})
    return str(settings.get("classifier")), ", ".join(map(str, settings.get("classes") or []))


def _scored(record: Record) -> tuple[str, str]:
    """The scored source of a record: its id and the hash of its content."""
    return record.run_id, record.snapshot_sha256


def _section(
    records: Sequence[Record], known: set, protocol: str, diverged: Diverged, *, beside: Sequence[Record] = ()
) -> Section:
    """`beside`: all records of the dataset and protocol; the reference of a column is one of them."""
    measured = {record.metric for record in records}

    def is_local(record: Record) -> bool:
        return _scored(record) not in known

    references: dict[str, Record] = {}
    for record in sorted(beside or records, key=lambda r: _authority(r, local=is_local(r))):
        if record.metric in measured:
            references[record.metric] = record
    groups: dict[tuple, _Group] = defaultdict(_Group)
    for record in records:
        local = is_local(record)
        group = groups[_group_key(record, local)]
        why = gate(record, references[record.metric], local=local)
        if why is None:
            group.passed[record.metric].append(record)
        else:
            group.failed[why][record.metric].append(record)
    ranked, controls, unranked = [], [], []
    for key, group in groups.items():
        local = key[-1]
        if group.passed:
            row = _row(group.passed, local=local, diverged=diverged)
            (controls if row.source in CONTROLS else ranked).append(row)
        for why, failed in group.failed.items():
            # Drop the value of an older protocol if the row has a value of the column's protocol.
            failed = {metric: rows for metric, rows in failed.items() if metric not in group.passed}
            if failed:
                unranked.append(_row(failed, local=local, why=why))
    columns = tuple(
        column for column in columns_for(records[0].dataset["name"], protocol) if column.metric in references
    )
    higher = {metric: record.higher_is_better for metric, record in references.items()}
    dataset = min((r.dataset for r in records), key=lambda d: (d["split"] != "train", d["sha256"]))
    return Section(
        dataset=dataset,
        protocol=protocol,
        columns=columns,
        higher_is_better=higher,
        protocols=references,
        ranked=tuple(sorted(ranked, key=lambda row: _rank_key(row, columns, higher))),
        controls=tuple(sorted(controls, key=lambda row: list(CONTROLS).index(row.source))),
        unranked=tuple(sorted(unranked, key=lambda row: (row.label, row.kimg or 0, row.why))),
        imported=records[0].source == IMPORTED,
    )


def _row(
    by_metric: dict[str, list[Record]],
    *,
    local: bool,
    diverged: Diverged | None = None,
    why: str | None = None,
) -> Row:
    records = tuple(record for group in by_metric.values() for record in group)
    first = records[0]
    seeds = {r.train_seed for r in records if r.train_seed is not None}
    lost = (diverged or {}).get((section_key(first.dataset), first.config_sha256), set()) - seeds
    return Row(
        label=CONTROLS.get(first.source, first.label),
        source=first.source,
        preset=first.training.get("preset"),
        kimg=first.kimg,
        train_seeds=tuple(sorted(seeds)),
        diverged=tuple(sorted(lost)),
        cells={metric: _cell(group) for metric, group in by_metric.items()},
        records=records,
        local=local,
        why=why,
    )


def _cell(records: Sequence[Record]) -> Cell:
    """Mean over training runs of the mean over evaluation seeds; the interval is over training runs only."""
    if records[0].source in CONTROLS:  # the same images can have several names: use one
        records = [r for r in records if r.run_id == max(r.run_id for r in records)]
    by_run: dict[str, list[float]] = defaultdict(list)
    for record in records:
        by_run[record.run_id].append(record.value)
    values = [mean_over_seeds(by_run[run]).mean for run in sorted(by_run)]
    rounding = variance_floor(step=_step(records[0].metric))
    evaluation = variance_floor(stderrs=[r.stderr for r in records]) / min(map(len, by_run.values()))
    mean = mean_over_seeds(values, floor=rounding + evaluation)
    reason = next((r.degenerate for r in records if r.degenerate), None)
    return Cell(mean, records[0].n_requested, records[0].n_effective, reason)


def _step(metric: str) -> float | None:
    spec = find_spec(metric)
    return None if spec is None else spec.step


def _order(record: Record) -> tuple:
    return (
        record.label,
        record.train_seed or 0,
        record.run_id,
        record.metric,
        record.seed,
        record.protocol_sha256,
    )


def _authority(record: Record, *, local: bool) -> tuple:
    """Sort key that puts the reference record of a column last.

    By validity, whether the network is ours, metric version, whether the code is committed or local, and
    time; the rest breaks ties.
    """
    git = record.provenance.get("git") or {}
    trusted = local or (bool(git.get("commit")) and not git.get("dirty"))
    finished = record.provenance.get("finished") or ""
    return (
        not record.invalid,
        record.source != IMPORTED,
        record.metric_version,
        trusted,
        finished,
        record.protocol_sha256,
        record.dataset["sha256"],
        record.run_id,
        record.seed,
    )


def _newest_snapshots(records: Sequence[Record]) -> list[Record]:
    """The records of the newest snapshot of every run: highest kimg, then latest scoring."""
    newest: dict[str, tuple] = {}
    for record in records:
        rank = (record.kimg or 0, record.provenance.get("finished") or "", record.snapshot_sha256)
        newest[record.run_id] = max(newest.get(record.run_id, rank), rank)
    return [r for r in records if newest[r.run_id][2] == r.snapshot_sha256]


def _group_key(record: Record, local: bool) -> tuple:
    if record.source in CONTROLS:
        return (record.source, "", "", 0.0, False)
    return (record.source, record.label, record.config_sha256 or record.run_id, record.kimg or 0.0, local)


def _rank_key(row: Row, columns: Sequence[Column], higher: dict[str, bool]) -> tuple:
    """By the first column, then the next; degenerate values come after others, rows without one last."""
    key: list = []
    for column in columns:
        cell = row.cells.get(column.metric)
        value = 0.0 if cell is None else cell.mean.mean
        group = 2 if cell is None else int(cell.degenerate is not None)
        key.append((group, -value if higher[column.metric] else value))
    return (*key, row.label, row.kimg or 0.0, row.local)
