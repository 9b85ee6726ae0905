"""Checkpoints of strangers: nothing in them runs, memory stays bounded, and each is refused in one line."""

import json
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hostile_checkpoints import CASES

from fact_metrics.base.errors import UserError
from fact_train.imports import load_checkpoint

MOST_MB = 300  # beyond the 200 to 400 MB that importing torch takes: 500 MB together is what others have
READ = """
import json, re, sys, time
from fact_metrics.base.errors import UserError
from fact_train.imports import load_checkpoint

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024

for path in sys.argv[1:]:
    before = peak()
    try:
        load_checkpoint(path)
        line = "loaded"
    except UserError as error:
        line = str(error)
    print(json.dumps([path, line, peak() - before]), flush=True)
"""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, float]]:
    """Every hostile file read in one process, which must survive: {case: (the line, MB that it added)}."""
    folder = tmp_path_factory.mktemp("hostile")
    paths = {folder / f"{i:02d}.pt": name for i, name in enumerate(CASES)}
    for path, name in paths.items():
        CASES[name][0](path)
    done = subprocess.run(
        [sys.executable, "-c", READ, *map(str, paths)],
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=120,
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, (done.returncode, found[-1:], done.stderr[-2000:])
    assert not (folder / "harm").exists()
    return {paths[Path(path)]: (line, grown) for path, line, grown in found}


@pytest.mark.parametrize("case", CASES)
def test_a_hostile_checkpoint_is_refused_in_one_line_and_takes_little_memory(outcomes, case) -> None:
    line, grown = outcomes[case]
    assert re.search(CASES[case][1], line), line
    assert "\n" not in line and len(line) < 600
    assert grown < MOST_MB, f"{grown:.0f} MB"


def test_mutated_checkpoints_load_or_are_refused(tmp_path: Path) -> None:
    """200 seeded mutations of files of all three kinds; anything but UserError fails the test."""
    rng, kinds = random.Random(19), ["harmful source text", "a storage of 10 GB in a zip"]
    kinds += ["another count in a legacy file", "modules in a cycle"]
    seeds = []
    for name in kinds:
        CASES[name][0](tmp_path / "x")
        seeds.append((tmp_path / "x").read_bytes())
    refused = 0
    for _ in range(200):
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.randint(1, 6)):
            data[rng.randrange(min(len(data), 4000))] = rng.randrange(256)
        (tmp_path / "y").write_bytes(data)
        try:
            load_checkpoint(tmp_path / "y")
        except UserError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > 140 and not (tmp_path / "harm").exists()
