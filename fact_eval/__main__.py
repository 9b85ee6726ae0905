"""`python -m fact_eval`, the same as `fact-eval`: torchrun starts it this way."""

import sys

from fact_eval.cli import main

sys.argv[0] = "fact-eval"  # what records and messages call it
main()
