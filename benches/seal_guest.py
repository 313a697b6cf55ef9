#!/usr/bin/env python3
"""seal_guest.py IMAGE [RUNS]: what sealing a real guest costs, beside virt-sysprep where that is installed.

Each run seals a fresh copy of IMAGE (kept on the same file system, in the page cache). Prints the median and the best of wall
clock, CPU seconds (user + system) and the greatest memory, and the ratio. Build first: cargo build --release
"""
import os
import shutil
import statistics
import sys
import tempfile
import time

image, runs = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 7
root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
target = os.environ.get("CARGO_TARGET_DIR", os.path.join(root, "target"))


def measure(command, copy):
    """Wall seconds, CPU seconds and memory in MiB of one run over a fresh copy."""
    shutil.copyfile(image, copy)
    with open(copy, "r+b") as f:
        os.fsync(f.fileno())
    with open(copy, "rb") as f:
        while f.read(1 << 22):
            pass
    start = time.monotonic()
    pid = os.spawnvp(os.P_NOWAIT, command[0], [*command, copy])
    _, status, usage = os.wait4(pid, 0)
    wall = time.monotonic() - start
    if status:
        sys.exit(f"{command} failed")
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def report(name, command, count):
    results = [measure(command, copy) for _ in range(count + 1)][1:]
    columns = list(zip(*results))
    medians = [statistics.median(column) for column in columns]
    best = [min(column) for column in columns]
    print(f"{name:14} wall {medians[0]:8.3f} s (best {best[0]:.3f})   CPU {medians[1]:7.3f} s (best {best[1]:.3f})   memory {max(columns[2]):6.1f} MiB")
    return medians


with tempfile.TemporaryDirectory(dir=os.path.dirname(os.path.abspath(image))) as folder:
    copy = os.path.join(folder, "copy.qcow2")
    ours = report("goldenseal", [os.path.join(target, "release", "goldenseal"), "seal", "-q"], runs)
    if shutil.which("virt-sysprep"):
        os.environ.setdefault("LIBGUESTFS_BACKEND", "direct")
        theirs = report("virt-sysprep", ["virt-sysprep", "-q", "-a"], min(runs, 3))
        print(f"goldenseal is {theirs[0] / ours[0]:.0f} times as fast, at 1/{theirs[1] / ours[1]:.0f} of the CPU")
    else:
        print("virt-sysprep is not installed: no comparison")
