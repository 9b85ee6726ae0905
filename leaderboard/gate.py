"""Which records a board ranks: the same images and protocol, the full sample, committed code."""

from fact_leaderboard.records import Record

CONTROLS = {"reals": "real images, held out", "noise": "uniform noise"}


def gate(record: Record, reference: Record, *, local: bool) -> str | None:
    """Why a record is not comparable with the reference record of its column; None if it is."""
    if record.invalid:
        return f"invalid: {record.invalid}"
    if (record.metric_version, record.protocol_sha256) != (
        reference.metric_version,
        reference.protocol_sha256,
    ):
        return f"{record.metric}: {_protocol_difference(record, reference)}"
    if record.dataset["sha256"] != reference.dataset["sha256"]:
        d = record.dataset
        return f"other images: {d['name']} {d['split']} {d['sha256'][:12]}"
    if record.source in CONTROLS:
        return None
    if record.n_requested is not None and (record.n_effective or 0) < record.n_requested:
        return f"too few images: {record.n_effective or 0:,} of {record.n_requested:,}"
    return None if local else git_problem(record)


def git_problem(record: Record) -> str | None:
    """Why a record is not reproducible: trained or scored outside a clean commit; None if it is.

    Every start of a training run counts: its commit and its packages.
    """
    states = {"scored": [record.provenance.get("git")]}
    if record.source == "run":
        resumed = [start["git"] for start in record.training.get("resumed", [])]
        states["trained"] = [record.training.get("git"), *resumed]
    for work, gits in states.items():
        if any(not git or not git.get("commit") for git in gits):
            return f"{work} outside a git checkout"
        if any(git.get("dirty") for git in gits):
            return f"{work} with uncommitted code"
        if len({git["commit"] for git in gits}) > 1:
            return f"{work} with the code of several commits"
    starts = [record.training, *record.training.get("resumed", [])]
    packages = [start["packages"] for start in starts if start.get("packages")]
    for name in sorted(set().union(*packages)):
        if len({of_start.get(name) for of_start in packages}) > 1:
            return f"trained with several versions of {name}"
    return None


def _protocol_difference(record: Record, reference: Record) -> str:
    if record.metric_version != reference.metric_version:
        return f"version {record.metric_version}, the column is version {reference.metric_version}"
    own, column = flatten(record.protocol), flatten(reference.protocol)
    names = sorted(name for name in own.keys() | column.keys() if own.get(name) != column.get(name))
    shown = [f"{name} {short(own.get(name))}, not {short(column.get(name))}" for name in names[:2]]
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return "other protocol (" + "; ".join(shown) + more + ")"


def flatten(value: object, prefix: str = "") -> dict[str, object]:
    """{"a": {"b": 1}} -> {"a.b": 1}; lists are not flattened."""
    if not isinstance(value, dict):
        return {prefix: value}
    flat: dict[str, object] = {}
    for key, item in value.items():
        flat |= flatten(item, f"{prefix}.{key}" if prefix else str(key))
    return flat


def short(value: object) -> str:
    """A value as text; hashes are cut to twelve digits."""
    text = str(value)
    is_hash = len(text) == 64 and set(text) <= set("0123456789abcdef")
    return text[:12] if is_hash else text
