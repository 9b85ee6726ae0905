"""Speed, measured by hand (`make bench`), never as a timed test."""
