#!/usr/bin/env python3
"""customize_guest.py IMAGE [RUNS]: what four edits of a real guest cost, beside virt-customize where that is installed.

Each run customizes a fresh copy of IMAGE. Prints the median and the best of wall clock and CPU seconds (user + system), and the
greatest memory. Build first: cargo build --release
"""
import os
import shutil
import statistics
import sys
import tempfile
import time

EDITS = ["--write", "/etc/motd:golden", "--hostname", "golden.example", "--mkdir", "/srv/golden", "--delete", "/srv/none"]

image, runs = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 7
root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
target = os.environ.get("CARGO_TARGET_DIR", os.path.join(root, "target"))


def measure(command, copy):
    """Wall seconds, CPU seconds and memory in MiB of one run over a fresh copy."""
    shutil.copyfile(image, copy)
    with open(copy, "r+b") as f:
        os.fsync(f.fileno())
    start = time.monotonic()
    pid = os.spawnvp(os.P_NOWAIT, command[0], [*command, copy, *EDITS])
    _, status, usage = os.wait4(pid, 0)
    wall = time.monotonic() - start
    if status:
        sys.exit(f"{command} failed")
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def report(name, command, count):
    columns = list(zip(*[measure(command, copy) for _ in range(count + 1)][1:]))
    median, best = [statistics.median(column) for column in columns], [min(column) for column in columns]
    print(f"{name:15} wall {median[0]:8.3f} s (best {best[0]:.3f})   CPU {median[1]:7.3f} s (best {best[1]:.3f})   memory {max(columns[2]):6.1f} MiB")


with tempfile.TemporaryDirectory(dir=os.path.dirname(os.path.abspath(image))) as folder:
    copy = os.path.join(folder, "copy.qcow2")
    report("goldenseal", [os.path.join(target, "release", "goldenseal"), "customize", "-q"], runs)
    if shutil.which("virt-customize"):
        os.environ.setdefault("LIBGUESTFS_BACKEND", "direct")
        report("virt-customize", ["virt-customize", "-q", "-a"], min(runs, 2))
    else:
        print("virt-customize is not installed: no comparison")
