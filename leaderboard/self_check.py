"""Records held against themselves (`fact-eval leaderboard --check`): faults that show without computing.

Nothing here proves a value. `fact-eval recompute` makes values again.
"""

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import NormalDist

from fact_leaderboard.records import Key, Record
from fact_leaderboard.snapshots import snapshot_problem
from fact_leaderboard.verifications import beside, read_verifications
from fact_metrics.base.errors import UserError
from fact_metrics.engines.conventions import COVERED
from fact_metrics.registry import find_spec
from fact_train.datasets import DATASETS, dataset_entry

ROUNDING = 1e-9  # relative: sums of float64 in another order
DEGREES_OF_FREEDOM = 1e-3  # relative: an error over n or over n - 1 at the smallest n of a published metric
INTERVAL_SLACK = 2.0  # times: how far a skewed bootstrap interval may be from the normal one
HASH = set("0123456789abcdef")
SHARE, NOT_NEGATIVE = (0.0, 1.0), (0.0, math.inf)
# Family -> range of its values. A family that is not here can take any value.
RANGES = {
    **dict.fromkeys(("precision", "recall", "coverage", "reconprecision", "reconrecall"), SHARE),
    **dict.fromkeys(("legible", "reconlegible", "agreement"), SHARE),
    **dict.fromkeys(("flips", "effectiveness", "cfchanged", "minimality"), SHARE),
    **dict.fromkeys(("cffid", "cfsplitfid"), NOT_NEGATIVE),
    **dict.fromkeys(("fid", "fd", "sfid", "reconfid", "density", "ppl", "sharpness", "mifid"), NOT_NEGATIVE),
    "is": (1.0, math.inf),
    "authpct": (0.0, 100.0),
}
# Families whose standard error is that of a share of n images.
BINOMIAL = ("precision", "reconprecision", "legible", "reconlegible", "agreement")

Faults = Iterator[tuple[str, str]]  # (field, what is wrong)


def check_results(results: Path) -> list[str]:
    """One line per fault of the records in a folder and of their verifications: file, line, field, fault."""
    faults: list[str] = []
    hashes: dict[str, tuple[str, str]] = {}
    for path in sorted(Path(results).glob("*.jsonl")):
        records = []
        for number, text in enumerate(path.read_bytes().split(b"\n"), start=1):
            if not text.strip():
                continue
            where = f"{path} line {number}"
            try:
                record = Record.from_json(text.decode())
            except (ValueError, TypeError, RecursionError) as error:
                faults.append(f"{where}: not a record: {error}")
                continue
            records.append((where, record))
            faults += [f"{where}: {field}: {fault}" for field, fault in check_record(record)]
            if record.run_id != path.stem:
                faults.append(f"{where}: run_id: {record.run_id!r} in a file of {path.stem!r}")
            if problem := snapshot_problem(record, Path(results)):
                faults.append(f"{where}: training: {problem}")
            faults += _one_hash(where, record, hashes)
        faults += _between(records)
        faults += _check_verifications(path, {record.key: record for _, record in records})
    return faults


def check_record(record: Record) -> list[tuple[str, str]]:
    """(field, fault) of everything in one record that contradicts the rest of it."""
    return [fault for rule in RULES for fault in rule(record)]


def _outcome(r: Record) -> Faults:
    if r.status != "ok" and r.value is not None:
        yield "value", f"{r.value}, but status is {r.status}"
    if r.status == "ok" and r.value is None and not (r.error or r.extras):
        yield "value", "missing, although status is ok and no error says why"
    if r.stderr is not None and not r.stderr >= 0:
        yield "stderr", f"{r.stderr} is negative"


def _raw(r: Record) -> Faults:
    raw = r.extras.get("raw")
    if _is_number(raw) and r.value is not None and r.value != max(raw, 0.0):
        yield "value", f"{r.value}, but extras.raw is {raw}"


def _derived(r: Record) -> Faults:
    """Values that follow from the extras."""
    if r.value is None:
        return
    family, extras = _family(r), r.extras
    counts = extras.get("legible_per_class")
    if isinstance(counts, list) and all(map(_is_number, counts)):
        total = sum(counts)
        expected = {
            "legible": total / (r.n_effective or 1),
            "covered": float(sum(count > 0 and count >= COVERED * total for count in counts)),
        }.get(family)
        if expected is not None and not _near(r.value, expected):
            yield "value", f"{r.value}, but extras.legible_per_class gives {expected:g}"
    ratio = extras.get("ratio")
    if family == "sharpness" and _is_number(ratio) and ratio > 0:
        if not _near(r.value, abs(math.log2(ratio)), absolute=ROUNDING):
            yield "value", f"{r.value}, but extras.ratio gives {abs(math.log2(ratio)):g}"
        shares = extras.get("share_generated"), extras.get("share_real")
        if all(map(_is_number, shares)) and shares[1] and not _near(ratio, shares[0] / shares[1]):
            yield "extras.ratio", f"{ratio}, but its shares give {shares[0] / shares[1]:g}"


def _range(r: Record) -> Faults:
    low, high = RANGES.get(_family(r), (-math.inf, math.inf))
    if r.value is not None and not low <= r.value <= high:
        yield "value", f"{r.value} is outside [{low:g}, {high:g}]"


def _errors(r: Record) -> Faults:
    if r.value is None:
        return
    n = r.n_effective
    if _family(r) in BINOMIAL and r.stderr is not None and n and 0 <= r.value <= 1:
        shares = r.value, (r.value * n + 1) / (n + 2)  # by the second, none or all is not called certain
        expected = [math.sqrt(p * (1 - p) / n) for p in shares]
        if not any(_near(r.stderr, e, relative=max(DEGREES_OF_FREEDOM, 1 / n)) for e in expected):
            yield "stderr", f"{r.stderr}, but a share of {r.value} of {n:,} images has {expected[0]:g}"
    if r.ci is None:
        return
    try:
        level, low, high, count = (r.ci[name] for name in ("level", "low", "high", "n"))
        numbers = all(map(_is_number, (level, low, high, count)))
    except (KeyError, TypeError):
        numbers = False
    if not numbers:
        yield "ci", "not {level, low, high, method, n} with numbers"
        return
    if not 0 < level < 1:
        yield "ci", f"level {level} is not between 0 and 1"
        return
    slack = ROUNDING * max(map(abs, (low, r.value, high)))
    if not low - slack <= r.value <= high + slack:
        yield "ci", f"[{low}, {high}] does not hold the value {r.value}"
    if count < 1:
        yield "ci", f"n is {count}"
    if r.stderr:
        ratio = (high - low) / 2 / (NormalDist().inv_cdf(0.5 + level / 2) * r.stderr)
        if not 1 / INTERVAL_SLACK <= ratio <= INTERVAL_SLACK:
            yield "ci", f"[{low}, {high}] is {ratio:.2g} times as wide as stderr {r.stderr} allows"


def _counts(r: Record) -> Faults:
    needs = [need for need in r.protocol.get("needs") or [] if isinstance(need, dict)]
    scored = [need["count"] for need in needs if need.get("side") != "real" and need.get("count")]
    if scored and r.n_requested != max(scored):
        yield "n_requested", f"{r.n_requested}, but the protocol asks for {max(scored):,}"
    if r.value is None:
        return
    if r.n_effective is not None and r.n_effective < 1:
        yield "n_effective", f"{r.n_effective}, although there is a value"
    if None not in (r.n_effective, r.n_requested) and r.n_effective > r.n_requested:
        yield "n_effective", f"{r.n_effective:,} is more than n_requested, {r.n_requested:,}"
    real = next((need for need in needs if need.get("side") == "real"), None)
    if real is not None and r.n_real is not None:
        expected = real.get("count") or r.dataset.get("n")
        if r.n_real != expected:
            yield "n_real", f"{r.n_real}, but the protocol compares with {expected} images"
        split = real.get("split")
        if split != r.dataset.get("split"):
            yield "dataset", f"is the {r.dataset.get('split')} split; the protocol compares with {split}"


def _protocol(r: Record) -> Faults:
    for field, name in (("metric", "metric"), ("metric_version", "version")):
        stated = r.protocol.get(name, getattr(r, field))
        if stated != getattr(r, field):
            yield field, f"{getattr(r, field)!r}, but the protocol is of {stated!r}"
    spec = find_spec(r.metric)
    if spec is not None and spec.higher_is_better != r.higher_is_better:
        yield "higher_is_better", f"{r.higher_is_better}, but {r.metric} has {spec.higher_is_better}"


def _identity(r: Record) -> Faults:
    hashes = {
        "snapshot_sha256": r.snapshot_sha256,
        "config_sha256": r.config_sha256,
        "dataset.sha256": r.dataset.get("sha256"),
    }
    for field, value in hashes.items():
        if value is not None and not (isinstance(value, str) and len(value) == 64 and set(value) <= HASH):
            yield field, f"{value!r} is not a SHA-256"
    if r.source == "run" and r.config_sha256 is not None:
        expected = f"{r.label}-seed{r.train_seed}-{r.config_sha256[:8]}"
        if r.run_id != expected and "(random weights)" not in r.label:
            yield "run_id", f"{r.run_id!r}, but label, seed and configuration give {expected!r}"


def _dataset(r: Record) -> Faults:
    d = r.dataset
    entry = dataset_entry(str(d.get("name")))
    known = entry.sha256.get((d.get("split"), d.get("resolution")))
    plain = d.get("max_images") is None and d.get("channels") == entry.channels
    if known is not None and plain and d.get("sha256") != known:
        yield "dataset.sha256", f"{str(d.get('sha256'))[:12]}, but {d['name']} {d['split']} has {known[:12]}"


RULES: tuple[Callable[[Record], Faults], ...] = (
    *(_outcome, _raw, _derived, _range, _errors, _counts, _protocol, _identity, _dataset),
)


def _one_hash(where: str, record: Record, hashes: dict[str, tuple[str, str]]) -> list[str]:
    """A fault if an earlier record gives another hash to the same images of a dataset known by its name."""
    if record.dataset.get("name") not in DATASETS:  # folders of two people may share a name
        return []
    described = {key: value for key, value in record.dataset.items() if key not in ("sha256", "n")}
    found = str(record.dataset.get("sha256"))
    first_where, first = hashes.setdefault(json.dumps(described, sort_keys=True), (where, found))
    if first == found:
        return []
    return [f"{where}: dataset.sha256: {found[:12]}, but {first_where} has {first[:12]} for the same images"]


def _between(records: list[tuple[str, Record]]) -> Iterator[str]:
    """Records of one key with other values, and of one snapshot with other descriptions."""
    by_key: dict[Key, tuple[str, Record]] = {}
    by_snapshot: dict[str, tuple[str, Record]] = {}
    for where, record in records:
        first_where, first = by_key.setdefault(record.key, (where, record))
        if first.status == record.status == "ok" and first.value != record.value:
            yield f"{where}: value: {record.value}, but {first_where} has {first.value} under the same key"
        first_where, first = by_snapshot.setdefault(record.snapshot_sha256, (where, record))
        for field in ("label", "kimg", "train_seed", "config_sha256", "snapshot"):
            ours, theirs = getattr(record, field), getattr(first, field)
            if ours != theirs:
                yield f"{where}: {field}: {ours!r}, but {first_where} has {theirs!r} for the same snapshot"


def _check_verifications(results: Path, records: dict[Key, Record]) -> Iterator[str]:
    path = beside(results)
    try:
        verifications = read_verifications(path)
    except UserError as error:
        yield str(error)
        return
    for number, verification in enumerate(verifications, start=1):
        record = records.get(verification.key)
        if record is None:
            yield f"{path} line {number}: key: no record in {results} has it"
        elif record.value != verification.claimed:
            yield f"{path} line {number}: claimed: {verification.claimed}, but the record has {record.value}"


def _family(record: Record) -> str | None:
    spec = find_spec(record.metric)
    return None if spec is None else spec.family


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _near(a: float, b: float, *, relative: float = ROUNDING, absolute: float = 0.0) -> bool:
    return math.isclose(a, b, rel_tol=relative, abs_tol=absolute)
