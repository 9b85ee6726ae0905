"""The same number by other people's code, from the features or images that the record was made from.

A peer gets what our metric gets, so a difference lies in the arithmetic of one of the two. The networks
behind the features are compared with their references by `python -m benchmarks.parity`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch

from fact_eval.checks import peers
from fact_eval.checks.claims import Claims, plan_claims
from fact_eval.scoring.evaluation import Evaluation
from fact_leaderboard.records import Record
from fact_leaderboard.verifications import Verification, verify
from fact_metrics.base import provenance
from fact_metrics.base.errors import UserError
from fact_metrics.features import DETECTORS, get_detector
from fact_metrics.inputs import DeclaredInputs
from fact_metrics.spec import MetricSpec

EXACT = 1e-6, "relative: float64 in both codes"
ROOTS = 1e-4, "relative: float64 in both codes; the peers' matrix root loses digits if N <= D"
FLOAT32 = 1e-5, "relative: float32 networks that sum in another order"
KERNELS = 1e-6  # of the mean kernel: ours multiplies in float32
EDGE = 2  # images that may lie on the edge of a ball within rounding
LARGEST_MATRIX = 2e8  # distances of torch-fidelity's precision, in memory at once: 10,000 x 20,000
SUBSETS, SUBSET_SIZE = 100, 1000  # torch-fidelity's defaults
SPREADS = 4.0  # standard errors of a mean over random subsets


@dataclass(frozen=True)
class Found:
    """A peer's value, how far ours may be from it, and why."""

    value: float
    tolerance: float
    reason: str


Compute = Callable[[MetricSpec, DeclaredInputs], Found | None]  # None: it does not take these sets


@dataclass(frozen=True)
class Outcome:
    """Verifications of one snapshot, and why metrics or peers are left out."""

    claims: Claims
    verifications: list[Verification] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def crosscheck(claims: Claims, evaluation: Evaluation, *, origin: dict) -> Outcome:
    """Compare every record of a snapshot that has peers with each of them."""
    outcome = Outcome(claims)
    planned = plan_claims(claims)
    outcome.left_out.extend(planned.left_out)
    by_metric = {(r.metric, r.seed): r for r in planned.records}
    checked = [pair for pair in planned.job.missing if pair[0].family in PEERS]
    without = sorted({spec.name for spec, _ in planned.job.missing if spec.family not in PEERS})
    if without:
        outcome.left_out.append(f"no independent implementation: {', '.join(without)}")
    for specs, seed, inputs in evaluation.passes(planned.job, checked):
        for spec in specs:
            record = by_metric[spec.name, seed]
            for name, compute in PEERS[spec.family]:
                _compare(outcome, record, spec, DeclaredInputs(spec, inputs), name, compute, origin)
    return outcome


def _compare(
    outcome: Outcome,
    record: Record,
    spec: MetricSpec,
    inputs: DeclaredInputs,
    name: str,
    compute: Compute,
    origin: dict,
) -> None:
    started = provenance.utc_now()
    try:
        found = compute(spec, inputs)
    except UserError as error:
        outcome.left_out.append(f"{spec.name}: {error}")
        return
    except TypeError as error:  # clean-fid under a newer scipy
        outcome.left_out.append(f"{spec.name}: {name} fails here: {error}")
        return
    if found is None:
        return
    outcome.verifications.append(
        verify(
            record,
            found.value,
            kind="crosscheck",
            tolerance=found.tolerance,
            reason=found.reason,
            by=peers.package(name),
            basis="the same features or images",
            provenance={**origin, "started": started, "finished": provenance.utc_now()},
        )
    )


def _relative(value: float, rule: tuple[float, str]) -> Found:
    share, reason = rule
    return Found(value, share * abs(value), reason)


def _both(spec: MetricSpec, inputs: DeclaredInputs) -> Iterator[torch.Tensor]:
    return (inputs.features(need) for need in spec.needs)


def _fid(peer: Callable[..., float]) -> Compute:
    def compute(spec: MetricSpec, inputs: DeclaredInputs) -> Found:
        gen, real = _both(spec, inputs)
        correction = {"N": 0, "N - 1": 1}[spec.settings["covariance"]]
        return _relative(max(peer(gen, real, correction=correction), 0.0), ROOTS)

    return compute


def _kid_scikit_learn(spec: MetricSpec, inputs: DeclaredInputs) -> Found:
    value, kernel = peers.kid_scikit_learn(*_both(spec, inputs))
    return Found(value, KERNELS * kernel, f"{KERNELS:g} of the mean kernel: our products are float32")


def _kid_clean_fid(spec: MetricSpec, inputs: DeclaredInputs) -> Found | None:
    gen, real = _both(spec, inputs)
    if len(gen) != len(real) or len(gen) * len(real) > LARGEST_MATRIX:
        return None
    kernel = ((real.double().square().sum(dim=1) / real.shape[1] + 1) ** 3).mean().item()
    reason = f"{KERNELS:g} of the mean kernel: our products are float32"
    return Found(peers.kid_clean_fid(gen, real), KERNELS * kernel, reason)


def _kid_torch_fidelity(spec: MetricSpec, inputs: DeclaredInputs) -> Found | None:
    gen, real = _both(spec, inputs)
    if min(len(gen), len(real)) < 2 * SUBSET_SIZE:
        return None
    mean, spread = peers.kid_torch_fidelity(gen, real, subsets=SUBSETS, size=SUBSET_SIZE)
    reason = f"{SPREADS:g} standard errors of its mean over {SUBSETS} random subsets of {SUBSET_SIZE:,}"
    return Found(mean, SPREADS * spread / SUBSETS**0.5, reason)


def _edge(value: float, n: int) -> Found:
    return Found(value, EDGE / n, f"{EDGE} of {n:,} images on the edge of a ball")


def _overlap_scikit_learn(of: str) -> Compute:
    def compute(spec: MetricSpec, inputs: DeclaredInputs) -> Found:
        gen, real = _both(spec, inputs)
        if of == "recall":
            gen, real = real, gen
        k, closed = spec.settings["k"], spec.settings["inside"] == "<= radius"
        key = ("scikit-learn overlap", spec.needs, k, closed, of == "recall")
        found = inputs.shared(key, lambda: peers.overlap_scikit_learn(gen, real, k=k, closed=closed))
        name = "precision" if of == "recall" else of
        return _edge(found[name], len(real) if of == "coverage" else len(gen))

    return compute


def _overlap_torch_fidelity(of: str) -> Compute:
    def compute(spec: MetricSpec, inputs: DeclaredInputs) -> Found | None:
        gen, real = _both(spec, inputs)
        if max(len(gen), len(real)) ** 2 > LARGEST_MATRIX:
            return None
        key = ("torch-fidelity overlap", spec.needs, spec.settings["k"])
        found = inputs.shared(
            key,
            lambda: peers.overlap_torch_fidelity(gen.double(), real.double(), k=spec.settings["k"]),
        )
        precision, recall = found
        return _edge(precision, len(gen)) if of == "precision" else _edge(recall, len(real))

    return compute


def _authentic(spec: MetricSpec, inputs: DeclaredInputs) -> Found:
    gen, real = _both(spec, inputs)
    value = peers.authentic_scikit_learn(gen, real)
    return Found(value, 100 * EDGE / len(gen), f"{EDGE} of {len(gen):,} images at equal distances")


def _inception_score(spec: MetricSpec, inputs: DeclaredInputs) -> Found:
    (need,) = spec.needs
    value = peers.inception_score_torch_fidelity(
        inputs.features(need),
        logits="class logits" in DETECTORS[need.detector].gives,
        splits=spec.settings["splits"],
        shuffle=False,
    )
    return _relative(value, EXACT)


def _recon_mse(spec: MetricSpec, inputs: DeclaredInputs) -> Found | None:
    pairs = inputs.encoder.pairs(spec.count)
    if not spec.name.endswith("_mse"):
        return None
    a, b = (images.double() / 127.5 - 1 for images in (pairs.originals, pairs.reconstructions))
    return _relative(peers.mse_scikit_learn(a, b), EXACT)


def _recon_lpips(spec: MetricSpec, inputs: DeclaredInputs) -> Found | None:
    from fact_metrics.features.images import to_rgb

    if not spec.detectors:
        return None
    pairs = inputs.encoder.pairs(spec.count)
    a, b = (to_rgb(images.float() / 127.5 - 1) for images in (pairs.originals, pairs.reconstructions))
    net = get_detector(spec.detectors[0], "cpu").net
    return _relative(peers.lpips_on(net, a, b).double().mean().item(), FLOAT32)


def _agreement(spec: MetricSpec, inputs: DeclaredInputs) -> Found:
    pairs = inputs.encoder.pairs(spec.count)
    value = peers.agreement_scikit_learn(pairs.logits_original, pairs.logits_reconstruction)
    return _relative(value, EXACT)


FRECHET = (
    ("torch-fidelity", _fid(peers.fid_torch_fidelity)),
    ("clean-fid", _fid(peers.fid_clean_fid)),
)


def _overlap(of: str, *, closed: bool) -> tuple[tuple[str, Compute], ...]:
    scikit_learn = ("scikit-learn", _overlap_scikit_learn(of))
    return (scikit_learn, ("torch-fidelity", _overlap_torch_fidelity(of))) if closed else (scikit_learn,)


# Family of metrics -> packages that have it.
PEERS: dict[str, tuple[tuple[str, Compute], ...]] = {
    **dict.fromkeys(("fid", "fd", "sfid", "reconfid"), FRECHET),
    "kid": (
        ("scikit-learn", _kid_scikit_learn),
        ("clean-fid", _kid_clean_fid),
        ("torch-fidelity", _kid_torch_fidelity),
    ),
    "precision": _overlap("precision", closed=True),
    "recall": _overlap("recall", closed=True),
    "reconprecision": _overlap("precision", closed=True),
    "reconrecall": _overlap("recall", closed=True),
    "density": _overlap("density", closed=False),
    "coverage": _overlap("coverage", closed=False),
    "authpct": (("scikit-learn", _authentic),),
    "is": (("torch-fidelity", _inception_score),),
    "recon": (("scikit-learn", _recon_mse), ("lpips", _recon_lpips)),
    "agreement": (("scikit-learn", _agreement),),
}
