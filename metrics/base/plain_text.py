"""Text that others wrote, made harmless for where it is shown: terminals, Markdown, HTML, CSV, file names.

Labels, run ids, command lines, file names and error messages may hold anything. They are stored as they are
and escaped where they are shown, by these functions alone.
"""

import html
import re
import unicodedata

# Control characters (Cc), and format characters (Cf) that reorder or hide text: bidi controls, zero width.
_HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
_SHOWN = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_NOT_IN_NAMES = re.compile(r"[/\\\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # folders, controls (Cc), surrogates (Cs)
_SUSPECT = re.compile(r"[^\x20-\x7e]")
# What would be markup in GitHub's or Python's Markdown, and only that: `a < b`, `[0, 1]` and `x * y` are not.
_MARKDOWN = (
    (re.compile(r"\\(?=[^\w\s])|`|(?<!\s)\*|\*(?!\s)|](?=[(:\[])|!(?=\[)|(?<=\[)\^"), r"\\\g<0>"),
    (re.compile(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])"), r"\\_"),
    (re.compile(r"&(?=#|\w+;)"), "&amp;"),
    (re.compile(r"<(?=[A-Za-z/!?])"), "&lt;"),
    (re.compile(r"~(?=~)|(?<=~)~"), "&#126;"),
    (re.compile(r"^>"), "&gt;"),
    (re.compile(r"^(\d*)(#|[-+.)](?=\s|$))"), r"\1\\\2"),
)
DEGENERATE = "†"  # follows a number that means nothing; the reason stands below the table
FLAGGED = "‡"  # follows a number that its own control puts in doubt
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
LONGEST_NAME = 4096  # bytes; the file system says earlier what is too long for it


def for_terminal(text: object) -> str:
    r"""The text on one line, hidden characters spelled out: ESC becomes \x1b, a right-to-left mark \u200f."""
    return _SUSPECT.sub(lambda match: _spell(match[0]), str(text))


def lines_for_terminal(text: object) -> str:
    """`for_terminal` of every line; line ends and tabs stay. For tables and tracebacks."""
    return re.sub(r"[^\n\t\x20-\x7e]", lambda match: _spell(match[0]), str(text))


def for_markdown(text: object) -> str:
    """The text as Markdown that renders as itself, on one line."""
    line = for_terminal(text)
    for markup, harmless in _MARKDOWN:
        line = markup.sub(harmless, line)
    return line


def for_cell(text: object) -> str:
    """`for_markdown` inside a table."""
    return for_markdown(text).replace("|", "&#124;")


def for_code(text: object) -> str:
    """The text as a Markdown code span on one line; renderers escape HTML inside."""
    line = for_terminal(text)
    longest = max((len(run) for run in re.findall("`+", line)), default=0)
    fence = "`" * (longest + 1)
    space = " " if longest or not line.strip() else ""
    return f"{fence}{space}{line}{space}{fence}"


def for_html(text: object) -> str:
    """The text as HTML content or attribute value, on one line."""
    return html.escape(for_terminal(text))


def for_csv(text: object) -> str:
    """The text as a CSV cell that no spreadsheet runs as a formula: a quote goes before = + - @."""
    line = str(text)
    return f"'{line}" if line.startswith(_FORMULA) else line


def for_json(text: str) -> str:
    r"""JSON text whose hidden characters are written as \uXXXX: equal values, harmless on a terminal."""

    def escape(match: re.Match) -> str:
        units = match[0].encode("utf-16-be", "surrogatepass")
        pairs = (units[i : i + 2].hex() for i in range(0, len(units), 2))
        return match[0] if _is_shown(match[0]) else "".join(f"\\u{pair}" for pair in pairs)

    return re.sub(r"[^\n\t\x20-\x7e]", escape, text)


def is_file_name(text: object) -> bool:
    """Whether a text is the name of one file: no folder, no control character, not too long."""
    return (
        isinstance(text, str)
        and text not in ("", ".", "..")
        and _NOT_IN_NAMES.search(text) is None
        and len(text.encode()) <= LONGEST_NAME
    )


def check_file_name(text: object, what: str) -> None:
    """Raise ValueError unless `text` can name a file; `what` is the field that holds it."""
    if not is_file_name(text):
        raise ValueError(f"{what} {for_terminal(repr(text))[:80]} cannot name a file")


def _is_shown(character: str) -> bool:
    return unicodedata.category(character) not in _HIDDEN


def _spell(character: str) -> str:
    if _is_shown(character):
        return character
    code = ord(character)
    form = "\\x{:02x}" if code < 0x100 else "\\u{:04x}" if code < 0x10000 else "\\U{:08x}"
    return _SHOWN.get(character) or form.format(code)
