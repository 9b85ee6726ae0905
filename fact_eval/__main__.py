"""`python -m fact_eval`, the same as `fact-eval`."""

from fact_eval.cli import main

main()
