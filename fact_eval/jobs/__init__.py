"""Which records are missing: bookkeeping over files and specs."""
