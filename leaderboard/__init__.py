"""The published tables: a pure function of the committed records."""
