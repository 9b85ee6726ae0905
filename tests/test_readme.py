"""The README's commands parse, its files exist, its sections stand in the house's order."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def code_blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.S)


def commands(program: str) -> list[list[str]]:
    """Arguments of every use of a program in the bash blocks, comments dropped."""
    lines = [line.split("#")[0].strip() for block in code_blocks("bash") for line in block.splitlines()]
    words = [shlex.split(line) for line in lines if line]
    return [w[1:] for w in words if Path(w[0]).name == program]


def torchrun(module: str) -> list[list[str]]:
    return [words for words in commands("torchrun") if module in words]


def test_every_training_command_resolves() -> None:
    shown = commands("fact-train") + [w[w.index("fact_train") + 1 :] for w in torchrun("fact_train")]
    assert len(shown) >= 4
    for arguments in (a for a in shown if a[0] != "classifier"):
        command = [sys.executable, "-m", "fact_train", *arguments, "--dry-run"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, (arguments, done.stderr)


def test_every_evaluation_command_exists() -> None:
    shown = [("fact_eval", a) for a in commands("fact-eval")]
    shown += [("fact_eval", w[w.index("fact_eval") + 1 :]) for w in torchrun("fact_eval")]
    shown += [("fact_train", a) for a in commands("fact-train") if a[0] == "classifier"]
    assert len(shown) > len(torchrun("fact_eval")) > 0
    for module, arguments in shown:
        command = [sys.executable, "-m", module, arguments[0], "--help"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, (arguments, done.stderr)
        for option in (a for a in arguments if a.startswith("--")):
            assert option in done.stdout, (arguments, option)


def test_every_linked_file_is_there() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    missing = [link for link in links if "://" not in link and not (ROOT / link).exists()]
    assert links and not missing, missing


def test_make_targets_are_there() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", "\n".join(code_blocks("bash")), flags=re.M):
        assert f"\n{target}:" in makefile, target


def test_python_examples_compile() -> None:
    for block in code_blocks("python"):
        compile(block, "README.md", "exec")


def test_the_api_examples_run(capsys) -> None:
    """With a stand-in for a diffusers pipeline (its call returns an object with `images`), a plain module."""
    from types import SimpleNamespace

    import torch
    from PIL import Image

    gen = torch.Generator().manual_seed(0)
    real = torch.rand(48, 3, 32, 32, generator=gen) * 2 - 1
    asked = []

    def pipe(prompts):
        asked.append(prompts)
        noise = torch.randint(0, 256, (len(prompts), 32, 32, 3), dtype=torch.uint8, generator=gen)
        return SimpleNamespace(images=[Image.fromarray(image.numpy()) for image in noise])

    G = torch.nn.Sequential(
        torch.nn.Linear(8, 3 * 32 * 32), torch.nn.Tanh(), torch.nn.Unflatten(1, (3, 32, 32))
    )
    names = {
        "pipe": pipe,
        "prompts": ["a digit"] * 8,
        "real_dataset": [((image + 1) * 127.5).to(torch.uint8) for image in real],
        "real_loader": [(real[:24], None), (real[24:], None)],
        "G": G, "z_dim": 8, "device": "cpu", "steps": 1,
    }  # fmt: skip
    pipeline, loop = [block for block in code_blocks("python") if "import metrics" in block]
    exec(pipeline.replace("count=2000", "count=48"), names)  # thousands of images would take minutes
    assert sum(map(len, asked)) == 48 and set(names["found"]) == {
        "fid10k_full_efficientnet_lite0",
        "kid10k_full_efficientnet_lite0",
    }
    exec(loop.replace("500", "48"), names)
    assert "kid10k_full_efficientnet_lite0" in capsys.readouterr().out
    assert names["scores"].compute()["kid10k_full_efficientnet_lite0"].n_generated == 48


@pytest.mark.parametrize("command", ["fact-train --list-presets", "fact-eval list"])
def test_tables_name_everything_there_is(command: str) -> None:
    """Every preset, and every metric of the board, stands in the README."""
    if command.startswith("fact-train"):
        from fact_train.settings.presets import PRESETS as names
    else:
        from fact_leaderboard.columns import metrics_for

        names = metrics_for("mnist")
    assert [name for name in names if f"`{name}`" not in README] == []


def test_sections_stand_in_the_order_of_the_house() -> None:
    sections = re.findall(r"^## (.*)$", README, flags=re.M)
    assert sections == [
        "Presets",
        "Metrics",
        "Your own data, your own checkpoints, anybody's pictures",
        "Many GPUs, many machines",
        "Add your own",
        "What the numbers do not tell you",
    ]
