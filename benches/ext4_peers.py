#!/usr/bin/env python3
"""Measures ext4fs beside others on one image: the crates rsext4 and rust-fs-ext4, debugfs, and a loop mount of the kernel.

    python3 benches/ext4_peers.py [--files 40000] [--size-mib 4096] [--runs 3] [--only walk,read,delete,create,write]

The image (on tmpfs) holds a copy of /usr, up to so many files, a tree /delete of half as many small files, and an empty
/create. Each piece of work is done by all in turn, `--runs` times; the least CPU time (user and system) and the least wall time
are printed, and then our time as a part of each peer's, beside the most that it is to be. Every image that was written is then looked at by `e2fsck -fn`. Needs Rust, e2fsprogs, and root for the kernel's part.
"""

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
WORK = ["walk", "read", "delete", "create", "write"]
CRATES = ["ours", "rsext4", "rust-fs-ext4"]
# Work, which time, beside whom, and the most that ours may be of theirs.
GOALS = [
    ("walk", "CPU", "rsext4", 0.7),
    ("walk", "wall", "kernel", 1.0),
    ("read", "CPU", "rsext4", 1 / 1.2),
    ("delete", "CPU", "debugfs", 1.0),
    ("delete", "wall", "kernel", 1.0),
    ("create", "CPU", "rsext4", 0.25),
    ("create", "CPU", "kernel", 1.0),
    ("write", "CPU", "rsext4", 1.0),
    ("write", "wall", "kernel", 1.0),
]


def measure(command, **options):
    """CPU and wall seconds, and the exit code."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False, **options)
    wall, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime, wall, done.returncode


def peak_memory(command):
    """The most memory that a command took, in MiB."""
    script = "import resource,subprocess,sys; subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL);"
    script += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    out = subprocess.run([sys.executable, "-c", script, *map(str, command)], capture_output=True, text=True, check=True)
    return int(out.stdout) / 1024


def copy_usr(target, limit):
    """Copies /usr until there are `limit` inodes; hard links and holes do not matter here."""
    count = 0
    for folder, names, files in os.walk("/usr"):
        inside = target / Path(folder).relative_to("/")
        inside.mkdir(parents=True, exist_ok=True)
        for name in files + [name for name in names if os.path.islink(os.path.join(folder, name))]:
            source = os.path.join(folder, name)
            try:
                if os.path.islink(source):
                    os.symlink(os.readlink(source), inside / name)
                elif os.path.isfile(source):
                    shutil.copyfile(source, inside / name)
            except OSError:
                continue
            count += 1
        count += 1
        if count >= limit:
            return


def make_image(image, folder, files, mebibytes):
    tree = folder / "tree"
    copy_usr(tree, files)
    for n in range(files // 2):
        inside = tree / "delete" / f"d{n // 200}"
        if n % 200 == 0:
            inside.mkdir(parents=True)
        (inside / f"file-{n}").write_bytes(b"y" * (n * 37 % 9000))
    (tree / "create").mkdir()
    command = ["mke2fs", "-q", "-F", "-t", "ext4", "-d", tree, image, f"{mebibytes}M"]
    subprocess.run(command, check=True)
    shutil.rmtree(tree)


def on_mount(image, point, options, command):
    """What a command on a mounted image takes, with a sync where it writes."""
    subprocess.run(["mount", "-o", f"loop,{options}", image, point], check=True)
    try:
        if options == "ro":
            measure(command)  # once to have all in memory
        return measure(command)
    finally:
        subprocess.run(["umount", point], check=True)


def kernel(program, work, image, point):
    if work == "walk":
        return on_mount(image, point, "ro", ["find", point, "-printf", "%p %s %m %U %T@\\n"])
    if work == "read":
        return on_mount(image, point, "ro", ["sh", "-c", f"find {point} -type f -print0 | xargs -0 cat > /dev/null"])
    if work == "delete":
        return on_mount(image, point, "rw", ["sh", "-c", f"rm -rf {point}/delete && sync -f {point}"])
    return on_mount(image, point, "rw", [program, "kernel", work, point])


def debugfs(work, image, folder):
    script = folder / "debugfs.script"
    if work == "delete":
        files = subprocess.run([HERE / "ext4_delete_script.py", image], capture_output=True, text=True, check=True).stdout
        script.write_text(files)
        return measure(["debugfs", "-w", "-f", script, image])
    return None


def print_goals(least):
    """How ours compares with the peers that the goals name: `least` has CPU and wall seconds by work and by whom."""
    print(f"\n{'work':8} {'time':5} {'ours / peer':24} {'ratio':>6} {'goal':>6}")
    for work, time_of, peer, most in GOALS:
        if (work, "ours") in least and (work, peer) in least:
            index = 0 if time_of == "CPU" else 1
            ratio = least[work, "ours"][index] / max(least[work, peer][index], 0.001)
            verdict = "met" if ratio <= most else "NOT MET"
            print(f"{work:8} {time_of:5} {'ours / ' + peer:24} {ratio:6.2f} {most:6.2f}  {verdict}")
    print()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--files", type=int, default=40000)
    parser.add_argument("--size-mib", type=int, default=4096)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", default=",".join(WORK))
    arguments = parser.parse_args()

    crate = HERE / "peers-ext4"
    subprocess.run(["cargo", "build", "-q", "--release"], cwd=crate, check=True)
    target = Path(os.environ.get("CARGO_TARGET_DIR", crate / "target"))
    program = target / "release" / "peers-ext4"
    root = os.geteuid() == 0
    shm = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(dir=shm) as name:
        folder = Path(name)
        base, image, point = folder / "base.img", folder / "image.img", folder / "mnt"
        point.mkdir()
        make_image(base, folder, arguments.files, arguments.size_mib)
        least = {}
        print(f"{'work':8} {'by':14} {'CPU s':>8} {'wall s':>8}  {'runs':>4}  e2fsck")
        for work in arguments.only.split(","):
            writes = work not in ("walk", "read")
            for by in CRATES + (["kernel"] if root else []) + (["debugfs"] if work == "delete" else []):
                results, verdict = [], "-"
                for _ in range(arguments.runs):
                    if writes:
                        subprocess.run(["cp", "--sparse=always", base, image], check=True)
                    subject = image if writes else base
                    if by == "kernel":
                        result = kernel(program, work, subject, point)
                    elif by == "debugfs":
                        result = debugfs(work, subject, folder)
                    else:
                        result = measure([program, by, work, subject])
                    results.append(result)
                if writes:
                    checked = subprocess.run(["e2fsck", "-fn", image], capture_output=True, check=False)
                    verdict = "clean" if checked.returncode == 0 else f"exit code {checked.returncode}"
                if any(result[2] != 0 for result in results):
                    verdict += ", FAILED"
                cpu, wall = min(result[0] for result in results), min(result[1] for result in results)
                least[work, by] = (cpu, wall)
                print(f"{work:8} {by:14} {cpu:8.3f} {wall:8.3f}  {len(results):4}  {verdict}", flush=True)
        print_goals(least)
        for work in ("walk", "read"):
            print(f"ours, {work}: {peak_memory([program, 'ours', work, base]):.0f} MiB at most")
        for work in ("delete", "write"):
            subprocess.run(["cp", "--sparse=always", base, image], check=True)
            print(f"ours, {work}: {peak_memory([program, 'ours', work, image]):.0f} MiB at most")


if __name__ == "__main__":
    main()
