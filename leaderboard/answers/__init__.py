"""Answers to the questions of studies, computed from records: effects, verdicts, pages and plots."""
