"""Baking and the cost table: plain weights make the same image; multiply-adds are those of the formulas."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from eval_toys import make_data, make_run

from fact_metrics.base.errors import UsageError, UserError
from fact_train import bake as baked
from fact_train import cost
from fact_train.networks.injection import ModulatedConv
from fact_train.snapshot import load_snapshot

SNAPSHOT = "network-snapshot-000004.safetensors"
STYLES = {
    "modconv": {},
    "adain": {"injection": "adain"},
    "vectors": {"injection": "vectors", "style_vectors": 4},
    "first vector in ToRGB": {"injection": "vectors", "style_vectors": 4, "torgb_style": "first"},
    "plain ToRGB": {"torgb_style": "none"},
    "matrix": {"injection": "matrix", "style_vectors": 8, "matrix_centre": True, "matrix_identity": True},
    "instance": {"injection": "matrix", "style_vectors": 8, "matrix_postnorm": "instance"},
    "adaconv": {"injection": "adaconv"},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"), labelled=True)


def snapshot_of(folder: Path, data: Path, **style):
    return load_snapshot(make_run(folder, data, **style) / SNAPSHOT)


@pytest.mark.parametrize("style", STYLES.values(), ids=STYLES)
def test_a_baked_network_makes_the_image_of_its_w(tmp_path: Path, data: Path, style: dict) -> None:
    snapshot = snapshot_of(tmp_path, data, **style)
    ws = baked.draw_ws(snapshot.G, seed=3, label=None, truncation_psi=0.8)
    proof = baked.prove(snapshot.G, ws)
    assert proof.holds and proof.image < 1e-10  # float64, sums in another order
    injected = sum(hasattr(m, "inject") for m in snapshot.G.synthesis.modules())
    assert len(proof.layers) == injected >= 3
    baked.save_baked(tmp_path / "plain.safetensors", snapshot, ws)
    plain = baked.load_baked(tmp_path / "plain.safetensors")
    assert not any("affine" in name for name in plain.state_dict())
    image = snapshot.G.synthesis(ws, noise_mode="const")
    torch.testing.assert_close(plain(torch.zeros_like(ws), noise_mode="const"), image, rtol=0, atol=1e-4)
    other = snapshot.G.synthesis(ws + 1, noise_mode="const")
    assert (other - image).abs().max() > 1e-3


KERNELS = {"matrix": {"style_vectors": 8}, "adaconv": {}}


@pytest.mark.parametrize("injection", KERNELS)
def test_a_3x3_style_that_was_trained_unbaked_is_not_called_equal(tmp_path, data, injection: str) -> None:
    style = {"injection": injection, "style_kernel": 3, "fused_modconv": "never", **KERNELS[injection]}
    snapshot = snapshot_of(tmp_path, data, **style)
    ws = baked.draw_ws(snapshot.G, seed=0, label=None, truncation_psi=1.0)
    proof = baked.prove(snapshot.G, ws)
    assert proof.layers_hold and not proof.holds and not proof.fused
    assert max(row.border for row in proof.layers) > 1e-3 and proof.image > 1e-3
    last = baked.proof_table(proof).splitlines()[-1]
    assert last == f"NOT equal: at the borders of unbaked 3x3 styles; images differ by {proof.image:.2g}"
    file = tmp_path / f"vectors/{SNAPSHOT}"
    command = [sys.executable, "-m", "fact_train", "bake", str(snapshot.path), "--out", str(file)]
    refused = subprocess.run(command, capture_output=True, text=True)
    assert refused.returncode == 1 and not file.exists()
    assert "was trained with --fused-modconv never" in refused.stderr and "--borders" in refused.stderr
    file.parent.mkdir()
    assert subprocess.run([*command, "--borders"], capture_output=True).returncode == 0 and file.exists()


@pytest.mark.parametrize("injection", KERNELS)
def test_a_3x3_style_that_was_trained_baked_is_equal_to_the_border(tmp_path, data, injection: str) -> None:
    style = {"injection": injection, "style_kernel": 3, "fused_modconv": "always", **KERNELS[injection]}
    snapshot = snapshot_of(tmp_path, data, **style)
    proof = baked.prove(snapshot.G, baked.draw_ws(snapshot.G, seed=0, label=None, truncation_psi=1.0))
    assert proof.holds and proof.fused and proof.verdict == "equal"
    assert all(row.border is None for row in proof.layers)
    assert "in the order of training, fused" in baked.proof_table(proof)


def test_a_network_that_does_not_bake_is_found_in_its_layer(tmp_path, data, monkeypatch) -> None:
    snapshot = snapshot_of(tmp_path, data)
    original = ModulatedConv.kernels

    def wrong(self, w):
        return original(self, w) * (1 + 1e-6 * hasattr(self, "off"))

    monkeypatch.setattr(ModulatedConv, "kernels", wrong)
    snapshot.G.synthesis.b8.conv0.inject.off = True
    proof = baked.prove(snapshot.G, baked.draw_ws(snapshot.G, seed=0, label=None, truncation_psi=1.0))
    assert not proof.holds
    assert [row.layer for row in proof.layers if row.relative > baked.TOLERANCE] == ["b8.conv0"]
    assert "NOT equal" in baked.proof_table(proof)


def test_labels_are_asked_for_where_there_are_classes(tmp_path: Path, data: Path) -> None:
    conditional = snapshot_of(tmp_path / "a", data, cond=True).G
    plain = snapshot_of(tmp_path / "b", data).G
    a, b = (baked.draw_ws(conditional, seed=0, label=k, truncation_psi=1.0) for k in (0, 1))
    assert not torch.equal(a, b)
    for G, label in ((conditional, None), (conditional, 3), (plain, 0)):
        with pytest.raises(UsageError, match="--label"):
            baked.draw_ws(G, seed=0, label=label, truncation_psi=1.0)


def test_the_command_proves_writes_and_says_where(tmp_path: Path, data: Path) -> None:
    run = make_run(tmp_path, data)
    command = [sys.executable, "-m", "fact_train", "bake", str(run / SNAPSHOT), "--seed", "5"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    path = Path(done.stdout.strip())
    assert path.name == "network-snapshot-000004-baked-seed5.safetensors" and path.is_file()
    assert done.stderr.strip().endswith("\nequal")
    with pytest.raises(UserError, match="is not a baked network"):
        baked.load_baked(run / SNAPSHOT)
    missing = subprocess.run([*command[:-3], "nowhere"], capture_output=True, text=True)
    assert missing.returncode == 2 and "nowhere does not exist" in missing.stderr


def test_multiply_adds_are_those_of_the_formulas() -> None:
    """C = I = O: a convolution H W C^2 9; a matrix H W C^2 unbaked and 9 C^3 baked, its 3x3 form 9 times."""
    c, side, w_dim = 8, 8, 4
    options = dict(resolution=side, channels=c, batch=2, w_dim=w_dim, seconds=0.0)
    conv, affine = side * side * c * c * 9, c * w_dim

    def macs(case: cost.Case, fused: bool) -> float:
        return cost.measure(case, fused=fused, **options).mega_macs * 1e6

    found = {case.name: (macs(case, False), macs(case, True)) for case in cost.CASES}
    assert found["modconv"] == pytest.approx((conv + affine + c * c, conv + affine + c * c))  # + demodulation
    rows = c * affine
    assert found["matrix 1x1"][0] == pytest.approx(conv + rows + side * side * c * c)
    assert found["matrix 1x1"][1] == pytest.approx(conv + rows + 9 * c**3)
    assert found["matrix 3x3"][0] == pytest.approx(conv + 9 * rows + 9 * side * side * c * c)
    assert found["matrix 3x3"][1] == pytest.approx(conv * 25 / 9 + 9 * rows + 81 * c**3)
    # by Gram matrices: of W once for both samples, of M, and their products
    assert found["matrix 1x1, composite"][0] == pytest.approx(found["matrix 1x1"][0] + (9 / 2 + 2) * c**3)


def test_parameters_and_times_stand_in_the_table() -> None:
    text = cost.report(resolution=4, channels=16, batch=2, w_dim=4, seconds=0.0, threads=1)
    row = next(line for line in text.splitlines() if line.startswith("| modconv | unfused"))
    assert f"| {16 * 16 * 9 + 16 * 4 + 16:,} |" in row
    assert "O k^2 = 144 pixels (12 x 12)" in text
    assert sum(line.startswith("| ") for line in text.splitlines()) == 1 + 2 * len(cost.CASES)


def test_the_cost_command_runs() -> None:
    command = "fact_train cost --resolution 4 --channels 16 --batch 1 --seconds 0 --w-dim 4".split()
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True)
    assert done.returncode == 0 and "| vectors, K = C | fused |" in done.stdout, done.stderr
