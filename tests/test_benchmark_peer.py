"""`python -m benchmarks peer`: ours and the reference by turns, on the same sizes."""

import dataclasses
import sys
import time

import pytest

from benchmarks import __main__, peer, reference

SMALL = dataclasses.replace(
    peer.NARROW["32 px, 64 channels, batch 32"],
    max_images=64,
    batch=4,
    channel_base=256,
    channel_max=8,
    z_dim=8,
    w_dim=8,
    precision="bf16",
)


class Slow:
    """In place of the reference: every step takes 20 ms."""

    def __init__(self, cfg, device, *, channels):
        Slow.given, Slow.steps = (cfg.resolution, channels, cfg.precision), 0

    def step(self, *, regularise=None):
        Slow.steps += 1
        time.sleep(0.02)


def test_both_take_equally_many_steps_and_the_ratio_is_that_of_their_times(monkeypatch):
    monkeypatch.setattr(reference, "Reference", Slow)
    monkeypatch.setattr(peer, "keep_freed_memory", lambda: None)
    monkeypatch.setattr(sys, "path", list(sys.path))
    found = peer.beside(SMALL, "cpu", 1, "no-such-folder", seconds=0)
    assert Slow.given == (32, 1, "fp32")  # a plain width and height, gray, whatever our precision
    assert Slow.steps == peer.WARM_UP + 3 * peer.STEPS and found["ratio"]["pairs"] == 3
    assert len(found["img_per_sec"]) == 3 and max(found["peer_img_per_sec"]) < 4 / 0.02
    result = {"threads": 1, "instructions": peer.instructions(), "cases": {"small": found}}
    assert f"| {found['ratio']['median']:.3g} (" in peer.table(result)


@pytest.mark.parametrize(("limit", "name"), [(None, "peer"), ("AVX2", "peer-avx2")])
def test_lowered_instruction_sets_have_a_file_of_their_own(monkeypatch, limit, name):
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    if limit:
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert peer.result_name({"instructions": peer.instructions()}) == name


@pytest.mark.parametrize("arguments", [["peer"], ["peer", "--peer", "no-such-folder"]])
def test_a_missing_checkout_is_named_before_anything_runs(monkeypatch, capsys, arguments):
    monkeypatch.setattr(sys, "argv", ["benchmarks", *arguments])
    with pytest.raises(SystemExit) as stopped:
        __main__.main()
    assert stopped.value.code == 2 and "stylegan2-ada-pytorch" in capsys.readouterr().err
