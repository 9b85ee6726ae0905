"""The allocator keeps freed memory, measured by page faults in a process of its own."""

import platform
import subprocess
import sys

import pytest

from fact_metrics.base.memory import keep_freed_memory

MEGABYTES = 64
# Writes to a block that was freed just before; prints how many pages the second round had to fault in.
SECOND_ROUND = f"""
import ctypes, resource
from fact_metrics.base.memory import keep_freed_memory

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes, libc.free.argtypes = [ctypes.c_size_t], [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
{{setting}}
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = libc.malloc({MEGABYTES} << 20)
    libc.memset(block, 1, {MEGABYTES} << 20)
    libc.free(block)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
GLIBC = platform.libc_ver()[0] == "glibc"


def second_round(setting: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", SECOND_ROUND.format(setting=setting)],
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)


@pytest.mark.skipif(not GLIBC, reason="only glibc has these settings")
def test_with_glibc_a_freed_block_is_used_again_without_new_page_faults() -> None:
    pages = (MEGABYTES << 20) // 4096
    assert second_round("") > 0.5 * pages  # the block went back to the system
    assert second_round("assert keep_freed_memory()") < 0.01 * pages


def test_without_mallopt_nothing_is_set_and_the_caller_is_told(monkeypatch) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())
    assert keep_freed_memory() is False
