"""What the README and docs/ tell a reader to type exists and runs: commands, flags, names, Python."""

import importlib
import importlib.util
import itertools
import re
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer
from typer.testing import CliRunner

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in PAGES}
PROGRAMS = ("fact-train", "fact-eval")
TRAIN_COMMANDS = ("classifier", "bake", "cost", "sweep", "tune")


def code_blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.S | re.M)


def command_lines(text: str) -> list[list[str]]:
    """Words of every line of the bash blocks, comments and a trailing & dropped."""
    blocks = (block.replace("\\\n", " ") for block in code_blocks(text, "bash"))
    lines = [line for block in blocks for line in block.splitlines()]
    return [words for line in lines if (words := shlex.split(line.rstrip(" &"), comments=True))]


def shown(program: str) -> list[tuple[str, list[str]]]:
    """(page, arguments) of every use of a program, under torchrun and taskset too."""
    module = program.replace("-", "_")
    uses = []
    for page, text in TEXTS.items():
        for words in command_lines(text):
            names = [module if word == module else Path(word).name for word in words]
            for name in (program, module):
                if name in names:
                    uses.append((page, words[names.index(name) + 1 :]))
                    break
    return uses


def app_of(program: str) -> typer.Typer:
    return importlib.import_module(f"{program.replace('-', '_')}.cli").app


def command_tree(program: str):
    """The program's click command, with its subcommands."""
    return typer.main.get_command(app_of(program))


def addressed(program: str, arguments: list[str]) -> tuple[object, list[str]]:
    """The (sub)command that these arguments call, and what is left of them for it."""
    command, rest = command_tree(program), list(arguments)
    while rest and rest[0] in getattr(command, "commands", {}):
        command = command.commands[rest.pop(0)]
    return command, rest


def options(command) -> set[str]:
    """All flags of a command and of its subcommands, `--no-` forms included."""
    own = {flag for p in command.params for flag in (*p.opts, *p.secondary_opts)} | {"--help"}
    return own.union(*map(options, getattr(command, "commands", {}).values()))


TRAINING = {tuple(a): page for page, a in shown("fact-train") if a[0] not in TRAIN_COMMANDS}


@pytest.mark.parametrize("arguments", sorted(TRAINING), ids=" ".join)
def test_every_training_command_resolves(arguments: tuple[str, ...]) -> None:
    dry = [] if arguments[0].startswith("--list") else ["--dry-run"]
    done = CliRunner().invoke(app_of("fact-train"), [*arguments, *dry])
    assert done.exit_code == 0, (TRAINING[arguments], done.exception)


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_command_and_its_flags_exist(program: str) -> None:
    uses = shown(program)
    assert len(uses) > 20
    for page, arguments in uses:
        command, rest = addressed(program, arguments)
        commands = getattr(command, "commands", {})
        assert not commands or rest[0].startswith("-"), f"{page}: no {program} {rest[0]}"
        unknown = [w for w in rest if re.match(r"--?[a-z]", w) and w.split("=")[0] not in options(command)]
        assert not unknown, f"{page}: {program} {' '.join(arguments)}"


@pytest.mark.parametrize("page", TEXTS)
def test_every_flag_named_in_the_text_exists(page: str) -> None:
    known = set().union(*(options(command_tree(program)) for program in PROGRAMS))
    prose = re.sub(r"^```.*?^```", "", TEXTS[page], flags=re.S | re.M)
    code = " ".join(re.findall(r"`([^`\n]+)`", prose))
    named = set(re.findall(r"--[a-z][\w-]*", code))
    families = {flag for flag in named if f"{flag}*" in prose}  # `--matrix-*`
    assert all(any(k.startswith(family) for k in known) for family in families)
    of_other_programs = {"--seconds", "--threads"}
    assert named - families - known - of_other_programs == set()


def test_make_targets_and_benchmarks_exist() -> None:
    from benchmarks.__main__ import BENCHMARKS

    makefile = (ROOT / "Makefile").read_text()
    named = 0
    for page, text in TEXTS.items():
        for words in command_lines(text):
            if words[0] == "make":
                assert f"\n{words[1]}:" in makefile, (page, words)
            if words[:2] == ["python", "-m"] and words[2].startswith("benchmarks."):
                assert importlib.util.find_spec(words[2]) is not None, (page, words)
            elif words[:3] == ["python", "-m", "benchmarks"]:
                names = [w for i, w in enumerate(words[3:]) if w[0] != "-" and words[2 + i][:2] != "--"]
                assert set(names) <= {*BENCHMARKS, "gpu"}, (page, words)
            named += words[0] in ("make", "python")
    assert named > 5


def test_metrics_detectors_and_weights_of_the_commands_are_registered() -> None:
    from fact_metrics.features import list_detectors
    from fact_metrics.features.weight_store import WEIGHTS
    from fact_metrics.registry import find_spec, list_metrics

    known = {"--metrics": set(list_metrics()), "--detector": set()}
    known["--eval"] = {*known["--metrics"], "study"}
    known["--detector"] = set(list_detectors())
    seen = set()
    for page, arguments in (use for program in PROGRAMS for use in shown(program)):
        for flag, value in itertools.pairwise(arguments):
            if flag in known:
                seen.add(flag)
                unlisted = set(value.split(",")) - known[flag]
                of_grammar = {name for name in unlisted if flag == "--metrics" and find_spec(name)}
                assert unlisted == of_grammar, (page, flag, value)
        if arguments[:2] == ["weights", "fetch"]:
            assert set(arguments[2:]) <= {*WEIGHTS, "all"}, (page, arguments)
    assert seen == set(known)


@pytest.mark.parametrize("page", TEXTS)
def test_tests_and_files_named_in_the_text_exist(page: str) -> None:
    code = "".join(path.read_text() for path in (ROOT / "tests").glob("test_*.py"))
    for name in re.findall(r"`(test_\w+)`", TEXTS[page]):
        assert f"def {name}(" in code, name
    for path in re.findall(r"`((?:tests|docs|baselines|benchmarks|leaderboard)/[\w./-]+)`", TEXTS[page]):
        assert (ROOT / path).exists(), path


def test_python_examples_compile() -> None:
    blocks = [(page, block) for page, text in TEXTS.items() for block in code_blocks(text, "python")]
    assert len(blocks) >= 4
    for page, block in blocks:
        compile(block, page, "exec")


def test_the_api_examples_run(capsys) -> None:
    """With a stand-in for a diffusers pipeline (its call returns an object with `images`), a plain module."""
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
    in_page = [b for b in code_blocks(TEXTS["docs/python.md"], "python") if "import fact_metrics" in b]
    in_readme = [b for b in code_blocks(TEXTS["README.md"], "python") if "import fact_metrics" in b]
    pipeline, loop = in_page
    assert in_readme == [pipeline]
    exec(pipeline.replace("count=2000", "count=48"), names)  # thousands of images would take minutes
    assert sum(map(len, asked)) == 48 and set(names["scores"]) == {
        "fid10k_full_efficientnet_lite0",
        "kid10k_full_efficientnet_lite0",
    }
    exec(loop.replace("500", "48"), names)
    assert "kid10k_full_efficientnet_lite0" in capsys.readouterr().out
    assert names["scores"].compute()["kid10k_full_efficientnet_lite0"].n_generated == 48
