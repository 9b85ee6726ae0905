"""How idle threads wait: bounded before torch is loaded, unless the user has decided."""

import os
import subprocess
import sys

import pytest

from fact_metrics.base.waiting import SPINS, VARIABLES

SHOW = (
    "import os, sys, {module}.cli as cli\n"
    "assert 'torch' not in sys.modules\n"
    "try: cli.main()\n"
    "except SystemExit: pass\n"
    "print(os.environ.get('GOMP_SPINCOUNT'), os.environ.get('OMP_WAIT_POLICY'))"
)


@pytest.mark.parametrize("module", ["fact_train", "fact_eval"])
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, [str(SPINS), "None"]),
        ({"OMP_WAIT_POLICY": "passive"}, ["None", "passive"]),
        ({"GOMP_SPINCOUNT": "7"}, ["7", "None"]),
    ],
)
def test_commands_bound_the_spin_of_idle_threads_and_keep_the_users_setting(module, given, expected):
    clean = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    done = subprocess.run(
        [sys.executable, "-c", SHOW.format(module=module), "--help"],
        env={**clean, **given},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split()[-2:] == expected
