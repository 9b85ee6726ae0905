"""`python -m fact_train`, so that torchrun can start it."""

from fact_train.cli import main

main()
