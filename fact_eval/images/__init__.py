"""From snapshots, pictures and real data to images."""
