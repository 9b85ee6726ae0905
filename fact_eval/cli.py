"""fact-eval: its commands and exit codes. Data goes to stdout, everything else to stderr.

The commands import heavy packages when they run, so that `--help` is fast.
"""

import signal
import sys
import warnings
from collections.abc import Sequence

import typer

from fact_eval.commands.audit import audit_
from fact_eval.commands.board import compare, leaderboard, publish_, show
from fact_eval.commands.cache import cache_app
from fact_eval.commands.catalog import list_, train_digits_
from fact_eval.commands.check import crosscheck, recompute
from fact_eval.commands.convert import convert
from fact_eval.commands.explain import explain
from fact_eval.commands.export import export
from fact_eval.commands.generate import generate
from fact_eval.commands.pairs import fused, reconstruct
from fact_eval.commands.raters import study_pack, study_score
from fact_eval.commands.score import all_, images, ref, run
from fact_eval.commands.study import study
from fact_eval.commands.weights import weights_app
from fact_metrics.base.errors import UserError
from fact_metrics.base.interruption import INTERRUPTED, STOPPED, exit_now
from fact_metrics.base.plain_text import for_terminal

COMMANDS = {
    "all": all_,
    "run": run,
    "convert": convert,
    "images": images,
    "ref": ref,
    "generate": generate,
    "export": export,
    "audit": audit_,
    "list": list_,
    "show": show,
    "compare": compare,
    "leaderboard": leaderboard,
    "study": study,
    "publish": publish_,
    "recompute": recompute,
    "crosscheck": crosscheck,
    "fused": fused,
    "reconstruct": reconstruct,
    "explain": explain,
    "study-pack": study_pack,
    "study-score": study_score,
    "train-digits": train_digits_,
}

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Score runs and images with fixed protocols, and build the leaderboard.",
)
for name, command in COMMANDS.items():
    app.command(name)(command)
app.add_typer(cache_app, name="cache")
app.add_typer(weights_app, name="weights")


class Stopped(BaseException):
    """SIGTERM: stops like Ctrl-C, with another exit code."""


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point: a user's mistake is one line on stderr and an exit code, never a traceback."""
    warnings.filterwarnings("ignore", module=r"PIL\.")  # our own checks of pictures say more
    code = _run(argv)
    if code in (INTERRUPTED, STOPPED):
        exit_now(code)
    sys.exit(code)


def _run(argv: Sequence[str] | None) -> int:
    def stop(signum, frame):
        raise Stopped

    argv = list(sys.argv[1:] if argv is None else argv)
    before = signal.signal(signal.SIGTERM, stop)
    try:
        code = app(args=argv or ["--help"], prog_name="fact-eval", standalone_mode=False)
        if code == INTERRUPTED:  # typer returns this code on Ctrl-C
            return _error(
                "interrupted; finished records and cached features are kept, run the same command again", code
            )
        return code if isinstance(code, int) else 0
    except UserError as error:
        return _error(str(error), error.exit_code)
    except Stopped:
        return _error(
            "stopped; finished records and cached features are kept, run the same command again", STOPPED
        )
    except OSError as error:
        return _error(f"{error.filename or 'input/output'}: {error.strerror or error}", 1)
    except Exception as error:
        if not hasattr(
            error, "format_message"
        ):  # only typer's usage errors have it; anything else is a bug and keeps its traceback
            raise
        return _error(f"{error.format_message()} (see fact-eval --help)", error.exit_code)
    finally:
        signal.signal(signal.SIGTERM, before)


def _error(line: str, code: int) -> int:
    print(for_terminal(f"fact-eval: {line}"), file=sys.stderr, flush=True)
    return code


if __name__ == "__main__":
    main()
