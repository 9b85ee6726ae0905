"""`python -m fact_train`, the same as `fact-train`: torchrun starts it this way."""

import sys

from fact_train.cli import main

sys.argv[0] = "fact-train"  # what records and messages call it
main()
