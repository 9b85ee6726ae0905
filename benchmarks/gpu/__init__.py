"""`python -m benchmarks gpu`: what a CUDA machine does with this trainer, correct first, then fast.

One command for a machine that is at hand for minutes. The parts run in the order of their worth, each within
a share of the time. Results are written after every measurement, so an interrupted run still says something.
It needs torch, numpy, pillow, safetensors, typer and filelock. A part whose packages are missing is skipped
by name. Without a GPU the same code runs on tiny sizes: a dry run, not a measurement.
"""

from benchmarks.gpu.report import PARTS, run, table

__all__ = ["PARTS", "run", "table"]
