"""What users read is plain English: help, error messages, command messages, presets and the list of axes."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("fact_train", "fact_eval", "metrics", "leaderboard", "baselines")
LONGEST_SENTENCE = 30  # words
SHOWN_KEYWORDS = {"help", "reported", "summary", "source", "rule", "text"}
SHOWN_CALLS = {"say", "_say", "finish"}
# Files whose every string of several words is shown: reasons why a setting is rejected, sources.
SHOWN_FILES = {"checks.py", "stylex_checks.py", "sources.py", "fields.py"}
DIALECT = {
    r"\bthe notes\b": "name the paper or the repository",
    r"\bsuch (a )?ones?\b": "name the thing",
    r"\btheirs\b": "name the owner",
    r"\bthat of those\b": "name the thing",
    r"\b(is|are) none where\b": "if ...",
    r"\bis none of\b": "is not one of",
    r"\bis no (?!longer\b|more\b)[a-z]": "is not a",
    r"\b(found|seen|made) then\b": "before ..., when ...",
    r"\band else\b": "otherwise",
    r"\bsays? the same of\b": "assigns the same class",
    r"\bare read too\b": "also load",
    r"\bgoes? on\b|\bgo on\b": "continue",
    r"\b(of|for) (so|as) (many|long|few|much)\b": "state the number",
    r"\btakes? (so few|none)\b|\btakes? one$": "accepts, too few",
    r"\bwithout it[;,.]|\bwithout it$": "[default: ...]",
    r"\blies? (now|in|at|there)\b(?! [\[(])": "is",
    r"\bat last\b": "last, finally",
    r"\bmends?\b": "fix",
    r"\bmakes? (it|one|them) again\b|\bmakes some\b|\bmake them\b": "create, compute, run",
    r"\bmakes? (it|one|them)$": "create, compute, run",
    r"\b(is|are) to be\b": "must be",
    r"\b(tells?|told|telling)\b.* apart\b": "distinguish",
    r"\bnobody\b|\banybody'?s?\b": "say who",
    r"\b(can|cannot) stand\b": "is rejected",
    r"\bnot what (it|was|they)\b": "say what differs",
    r"\bafter a look\b|\blooked at\b": "verify, inspect",
    r"\bon your word\b": "unverified",
    r"\bas many or more\b": "at least as many",
    r"\b(is|are|was|were) asked for\b": "name the option",
    r"\bhas no end\b": "never ends",
    r"\bwhere you\b": "if you",
    r"\bstands? apart\b": "is separate",
    r"\bwhose turn\b": "say who",
    r"\bone row is its own\b|\bhave no 1\b": "say that it has no effect",
    r"\bis off, (as|see)\b": "name the setting that switches it off",
    r"\bleft out\b(?=[^:;]*$)(?<=or left out)": "or none",
    r"\bwhere (its|their|it|they|there|nothing|none|one) (is|are|has|have|files)\b": "if ...",
    r"\bexit 1 where\b": "exits with 1 if",
    r"\bas in training\b": "name the option",
    r"\bmeant to (have|be)\b|\bmeant it\b": "intends",
}


def strings(node: ast.AST) -> list[str]:
    """The texts of an expression: literals, f-strings with X for their values, both sides of `+` and `if`."""
    if isinstance(node, ast.Constant):
        return [node.value] if isinstance(node.value, str) else []
    if isinstance(node, ast.JoinedStr):
        return ["".join(p.value if isinstance(p, ast.Constant) else "X" for p in node.values)]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = strings(node.left), strings(node.right)
        return [left[-1] + right[0]] if left and right else left + right
    return [text for child in ast.iter_child_nodes(node) for text in strings(child)]


def error_classes(trees: dict[Path, ast.Module]) -> set[str]:
    """Names of UserError and all classes below it."""
    bases = {
        c.name: {b.id for b in c.bases if isinstance(b, ast.Name)}
        for tree in trees.values()
        for c in ast.walk(tree)
        if isinstance(c, ast.ClassDef)
    }
    found = {"UserError"}
    while more := {name for name, above in bases.items() if above & found} - found:
        found |= more
    return found


def called(node: ast.Call) -> str:
    return getattr(node.func, "id", getattr(node.func, "attr", ""))


def shown_texts(root: Path) -> list[tuple[str, str]]:
    """(place, text) of everything that the packages of a checkout show to users."""
    files = sorted(p for package in PACKAGES for p in (root / package).rglob("*.py"))
    trees = {p: ast.parse(p.read_text(encoding="utf-8")) for p in files}
    errors, found = error_classes(trees), []
    for path, tree in trees.items():
        place = str(path.relative_to(root))
        is_command = path.name == "cli.py" or path.parent.name == "commands"
        shown: list[tuple[int, ast.AST]] = []
        hidden = {
            id(n.body[0].value)
            for n in ast.walk(tree)
            if isinstance(n, ast.Module | ast.ClassDef | ast.FunctionDef)
            and n.body
            and isinstance(n.body[0], ast.Expr)
        }
        hidden |= {id(part) for n in ast.walk(tree) if isinstance(n, ast.JoinedStr) for part in n.values}
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                shown += [(k.value.lineno, k.value) for k in node.keywords if k.arg in SHOWN_KEYWORDS]
                if called(node) in errors | SHOWN_CALLS | {"setting", "_field", "Axis", "_named", "_afhqcat"}:
                    shown += [(a.lineno, a) for a in node.args]
            elif isinstance(node, ast.FunctionDef) and is_command and not node.name.startswith("_"):
                if isinstance(node.body[0], ast.Expr):
                    shown.append((node.lineno, node.body[0].value))
            elif path.name in SHOWN_FILES and isinstance(node, ast.Constant | ast.JoinedStr):
                if id(node) not in hidden:
                    shown.append((node.lineno, node))
        texts = {(line, text) for line, node in shown for text in strings(node) if " " in text.strip()}
        found += [(f"{place}:{line}", " ".join(text.split())) for line, text in sorted(texts)]
    return found


def faults(text: str) -> list[str]:
    """What is wrong with a text: dialect, and sentences that are too long."""
    wrong = [f"{m[0]!r}: {better}" for p, better in DIALECT.items() if (m := re.search(p, text, re.I))]
    for sentence in re.split(r"(?<=[.!?])\s+", text):
        words = len(re.findall(r"[\w'-]*\w", sentence))
        if words > LONGEST_SENTENCE:
            wrong.append(f"{words} words")
    return wrong


def test_what_users_read_is_plain_english() -> None:
    texts = shown_texts(ROOT)
    assert len(texts) > 500
    wrong = [f"{place}: {', '.join(f)}\n    {text}" for place, text in texts if (f := faults(text))]
    assert not wrong, "\n" + "\n".join(wrong)


@pytest.mark.parametrize(
    "text",
    [
        "layers have latents of their own, the notes gave such a one a recall of 0.17",
        "metrics by name, comma separated or repeated, or all; the board's columns without it",
        "where the real images lie now, if they were moved",
        "X is no run folder: it has no X",
        "Hash every installed file again; exit 1 where one is not what it should be.",
        "X has no snapshot yet; let its training go on",
        "it must be positive, or left out",
        "every turn reconstructs under --alternation off: nothing is to be made up for",
        "AFHQv2 cat at 256 px, 512 style vectors a layer: the notes' final recipe",
        " ".join(["word"] * 31) + ".",
    ],
)
def test_the_check_sees_dialect_and_long_sentences(text: str) -> None:
    assert faults(text)


def test_the_check_reads_all_kinds_of_text(tmp_path: Path) -> None:
    package = tmp_path / "fact_train"
    (package / "commands").mkdir(parents=True)
    (package / "errors.py").write_text("class Odd(UserError):\n    pass\n\nclass Odder(Odd):\n    pass\n")
    (package / "commands" / "a.py").write_text(
        'def run(x: Annotated[str, typer.Option(help="an option text")]):\n'
        '    """A command text."""\n'
        '    raise Odder(f"an error {x} text" + ", in two parts")\n'
    )
    (package / "checks.py").write_text(
        'def check(cfg):\n    """No text."""\n    return "a", f"a {cfg} reason"\n'
    )
    texts = {text for _, text in shown_texts(tmp_path)}
    assert texts == {"an option text", "A command text.", "an error X text, in two parts", "a X reason"}
