"""`python -m fact_train.sweeps.attached MODULE ARGUMENTS`: a command that stops if its parent dies.

A killed sweep leaves no run behind on its machine: the run saves its state and ends, as on SIGTERM.
"""

import ctypes
import os
import runpy
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def end_with_parent() -> None:
    """Ask the kernel for SIGTERM when the parent dies. Only Linux has this; elsewhere a run goes on."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(os.environ.get("FACT_TRAIN_PARENT", os.getppid())):
        sys.exit(75)  # it died before the request


def leave_warnings_to_parent() -> None:
    """Ignore SIGUSR2, which Slurm sends to every process of a job shortly before its time is over.

    By default it kills. The parent takes it and asks the run to save its state.
    """
    if hasattr(signal, "SIGUSR2"):
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)


if __name__ == "__main__":
    leave_warnings_to_parent()
    end_with_parent()
    runpy.run_module(sys.argv.pop(1), run_name="__main__")
