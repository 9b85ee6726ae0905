"""`python -m benchmarks.parity`: the parity matrix as a Markdown table."""

from benchmarks.parity import rows, table

if __name__ == "__main__":
    print(table(rows()))
