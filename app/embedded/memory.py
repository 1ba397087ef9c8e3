"""How much memory the embedded server may take for its pages: a share of what the machine, or the container, has."""

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

MIB = 1 << 20
LEAST_BUFFERS_MIB = 128
MOST_BUFFERS_MIB = 2048
MEMORY_IF_UNKNOWN = 2048 * MIB

# Of control groups, version 2 and 1, as a container sees its own. Those of a systemd unit stand elsewhere.
LIMIT_FILES = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def memory_settings(available_bytes: int) -> Mapping[str, str]:
    """Settings of PostgreSQL on a machine of so much memory: an eighth of it for pages, within bounds.

    Web processes and worker need the rest, and so do files: ``effective_cache_size``, half of the memory, tells plans
    what may be in both.
    """
    available_mib = available_bytes // MIB
    buffers = min(max(available_mib // 8, LEAST_BUFFERS_MIB), MOST_BUFFERS_MIB)
    return {"shared_buffers": f"{buffers}MB", "effective_cache_size": f"{max(available_mib // 2, LEAST_BUFFERS_MIB)}MB"}


def memory_bytes(limit_files: Sequence[Path] = LIMIT_FILES) -> int:
    """The memory of the machine, or of the container where that has less."""
    bounds = []
    with contextlib.suppress(OSError, ValueError):  # Not every system tells.
        bounds.append(os.sysconf("SC_PAGESIZE") * os.sysconf("SC_PHYS_PAGES"))
    for file in limit_files:
        with contextlib.suppress(OSError, ValueError):  # There is no such file, or it says "max".
            bounds.append(int(file.read_text()))
    return min((bound for bound in bounds if bound > 0), default=MEMORY_IF_UNKNOWN)
