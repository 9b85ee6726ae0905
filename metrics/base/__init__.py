"""The ground every room stands on: errors, files, hashes, progress, devices."""
