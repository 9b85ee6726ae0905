"""How long an idle thread of OpenMP spins before it sleeps. Called by commands, before torch is loaded."""

import os

SPINS = 10_000  # rounds of a spin; libgomp's own number is 300,000
VARIABLES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")  # of libgomp, read once when it is loaded


def bound_spinning() -> None:
    """Let idle threads sleep early, so that a program on the same core does not stop all threads of ours.

    A thread that spins holds the core that the last thread of the barrier needs. Results do not depend on it.
    The user's own setting of either variable stays. Figures: `python -m benchmarks busy`.
    """
    if not any(name in os.environ for name in VARIABLES):
        os.environ["GOMP_SPINCOUNT"] = str(SPINS)
