"""Speed, measured by hand (`make bench`), never as a timed test."""

from benchmarks.checkout import make_importable

make_importable()
