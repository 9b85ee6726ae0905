"""`make test` runs the tests of numbers a second time with lowered instruction sets and one thread."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def variable(name: str) -> list[str]:
    """The words of a variable of the Makefile."""
    text = (ROOT / "Makefile").read_text().replace("\\\n", " ")
    return re.search(rf"^{name} := (.*)$", text, flags=re.M)[1].split()


def test_the_second_pass_lowers_what_it_says() -> None:
    lowered = dict(word.split("=") for word in variable("LOWERED"))
    code = "import torch; print(torch.backends.cpu.get_cpu_capability(), torch.get_num_threads())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **lowered},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["DEFAULT", "1"]
    assert lowered["ONEDNN_MAX_CPU_ISA"] == "AVX2"


def test_the_second_pass_takes_tests_that_exist_and_make_test_runs_it() -> None:
    names = variable("NUMERIC")
    assert len(names) == len(set(names)) > 15
    assert [name for name in names if not (ROOT / "tests" / f"test_{name}.py").exists()] == []
    recipe = (ROOT / "Makefile").read_text().partition("\ntest: setup\n")[2].partition("\n\n")[0]
    assert "$(LOWERED) $(BIN)/python -m pytest" in recipe and "$(NUMERIC:%=tests/test_%.py)" in recipe
