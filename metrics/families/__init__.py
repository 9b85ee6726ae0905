"""One file a family of metrics: its `FAMILIES` say how names read and what they mean. Imports no torch.

The arithmetic is in `engines/`; `compute` imports it when a value is asked for.
"""
