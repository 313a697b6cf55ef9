#!/usr/bin/env python3
"""Measures the deleting of 20,000 files on XFS: by the crate, committed as a whole, and by the kernel.

    python3 benches/xfs_kernel.py [--files 20000] [--runs 3]

The image (on tmpfs) is made by mkfs.xfs, with its own choice of features, and filled by the kernel: folders of 100 files of up to
8 KiB. The crate deletes them through a redo log (`xfs/examples/delete_tree.rs`); the kernel on a loop mount by `rm -rf`
and `sync -f`, without the time of mounting. CPU seconds are user and system time of the processes; what the kernel does in threads of its own
is not in them. Every image is then looked at by `xfs_repair -n`. Needs Rust, xfsprogs and root.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def run(*command):
    subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def peak_memory(*command):
    """The most memory that a command took, in MiB."""
    script = "import resource,subprocess,sys; subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True);"
    script += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    out = subprocess.run([sys.executable, "-c", script, *map(str, command)], capture_output=True, text=True, check=True)
    return int(out.stdout) / 1024


def measure(*command):
    """CPU and wall seconds."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    run(*command)
    wall, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime, wall


class Mounted:
    def __init__(self, image, at):
        self.image, self.at = image, at

    def __enter__(self):
        run("mount", "-o", "loop", self.image, self.at)
        return self.at

    def __exit__(self, *_):
        run("umount", self.at)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    run("cargo", "build", "--quiet", "--release", "-p", "goldenseal-xfs", "--example", "delete_tree", "--manifest-path", ROOT / "Cargo.toml")
    target = subprocess.run(["cargo", "metadata", "--format-version", "1", "--no-deps", "--manifest-path", str(ROOT / "Cargo.toml")], check=True, capture_output=True, text=True).stdout
    target = Path(target.split('"target_directory":"')[1].split('"')[0])
    results = {"ours": [], "kernel": []}
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        folder = Path(folder)
        image, copy, at = folder / "image", folder / "copy", folder / "mount"
        at.mkdir()
        run("truncate", "-s", "1G", image)
        run("mkfs.xfs", "-q", image)
        with Mounted(image, at):
            for number in range(options.files):
                place = at / "delete" / f"folder-{number // 100}"
                place.mkdir(parents=True, exist_ok=True)
                (place / f"file-{number}").write_bytes(b"x" * (number * 37 % 8192))
        for _ in range(options.runs):
            for who in results:
                run("cp", "--sparse=always", image, copy)
                if who == "ours":
                    results[who].append(measure(target / "release/examples/delete_tree", copy, "/delete"))
                else:
                    with Mounted(copy, at):
                        results[who].append(measure("sh", "-c", f"rm -rf {at}/delete/* && sync -f {at}"))
                run("xfs_repair", "-n", "-f", copy)
        run("cp", "--sparse=always", image, copy)
        print(f"ours     {peak_memory(target / 'release/examples/delete_tree', copy, '/delete'):.1f} MiB of memory at most")
    for who, times in results.items():
        cpu, wall = ([each[index] for each in times] for index in (0, 1))
        print(f"{who:8} CPU {statistics.median(cpu):.3f} s (best {min(cpu):.3f}), wall {statistics.median(wall):.3f} s (best {min(wall):.3f})")


if __name__ == "__main__":
    main()
