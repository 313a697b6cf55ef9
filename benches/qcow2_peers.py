#!/usr/bin/env python3
"""Measures the qcow2 crate beside QEMU and other crates, in turn, and prints a table in Markdown.

    benches/qcow2_peers.py [--size small|full] [--rounds N] [--dir DIR] [--only WORD,...] [--no-crates]

A disk of 4 GiB (small: 512 MiB) whose first half is data, taken from /usr, is made in DIR (it takes about 9 GiB, small:
1.2 GiB). Each piece of work is done once to warm up and then in N rounds, ours and the peers in turn. Work is timed from
inside where a program of ours does it, and as a whole process, less the time of `qemu-img --version`, where qemu-img does.
The last column is what is to be reached, as a ratio of medians (of CPU seconds for the check), and whether it was.
"""
import argparse, json, os, re, shutil, statistics, subprocess, sys, tarfile, tempfile, time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
MIB = 1 << 20
STRIDE = 104729 * 4096


def built(args, cwd):
    out = subprocess.run(["cargo", *args, "--message-format=json-render-diagnostics"], cwd=cwd, check=True, stdout=subprocess.PIPE)
    found = [json.loads(line).get("executable") for line in out.stdout.splitlines() if line.startswith(b"{")]
    return [name for name in found if name][-1]


def inside(*command):
    """A program that times its own work and says so in JSON."""
    def run():
        return json.loads(subprocess.run([str(part) for part in command], check=True, stdout=subprocess.PIPE).stdout)
    return run


def process(*command, amount=1, before=None, codes=(0,)):
    """A whole process, less what its start costs."""
    def run():
        if before:
            before()
        wall = time.perf_counter()
        child = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        text = child.stdout.read().decode()
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        wall = time.perf_counter() - wall
        if child.returncode not in codes:
            sys.exit(f"{command}: {child.returncode}\n{text}")
        said = re.search(r"Run completed in ([\d.]+) seconds", text)
        seconds = float(said[1]) if said else wall - START["seconds"]
        cpu = used.ru_utime + used.ru_stime - START["cpu"]
        return {"seconds": max(seconds, 1e-6), "cpu": cpu, "amount": amount, "peak_kib": used.ru_maxrss}
    return run


START = {"seconds": 0.0, "cpu": 0.0}


def make(args, disk, data):
    """The images, all of the same disk."""
    place = lambda name: os.path.join(args.dir, name)
    raw = place("disk.raw")
    if not (os.path.exists(raw) and os.path.getsize(raw) == disk):
        with open(raw, "wb") as out:
            tar = subprocess.Popen(["tar", "-cf", "-", "--sort=name", "/usr"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            left = data
            while left and (chunk := tar.stdout.read(min(left, MIB))):
                out.write(chunk)
                left -= len(chunk)
            tar.kill()
            tar.wait()
            if left:
                sys.exit(f"/usr holds {left} bytes too few")
            out.truncate(disk)
    kinds = {"plain": [], "extended": ["-o", "extended_l2=on"], "zlib": ["-c"], "zstd": ["-c", "-o", "compression_type=zstd"]}
    for kind, options in kinds.items():
        if not os.path.exists(place(f"{kind}.qcow2")):
            parallel = ["-m", "8", "-W"] if "-c" in options else []
            subprocess.run(["qemu-img", "convert", *parallel, "-f", "raw", "-O", "qcow2", *options, raw, place("new")], check=True)
            os.rename(place("new"), place(f"{kind}.qcow2"))
    if not os.path.exists(place("large.qcow2")):
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", "preallocation=metadata", place("new"), "1T"], check=True)
        os.rename(place("new"), place("large.qcow2"))
    return {kind: place(f"{kind}.qcow2") for kind in [*kinds, "large"]} | {"raw": raw}


def settle(path):
    """Fills the host's cache with a file anew, in order. As it was written it may lie there in pieces of other sizes than
    another file, which makes a tenth of the speed of reading either, whoever reads."""
    with open(path, "rb", buffering=0) as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        while file.read(MIB):
            pass


def first(image, length):
    """The first bytes of an image, as an option of qemu-img bench."""
    return ["--image-opts", f"driver=raw,size={length},file.driver=qcow2,file.file.driver=file,file.file.filename={image}"]


def works(args, ours, crates, images, disk, data):
    """Name, unit, what is to be compared with whom at least how fast, and the programs: label to function."""
    small = args.size == "small"
    reads = 40_000 if small else 300_000
    packed_reads = 4_000 if small else 8_000
    out = os.path.join(args.dir, "out.qcow2")
    remove = lambda: os.path.exists(out) and os.remove(out)

    def fresh(run):
        def work():
            remove()
            result = run()
            result["size"] = os.path.getsize(out)
            remove()
            return result
        return work

    null = lambda image: process("qemu-img", "convert", "-m", "8", "-W", "-n", "--image-opts", "--target-image-opts",
                                 f"driver=qcow2,file.filename={image}", f"driver=null-co,size={disk}", amount=data)
    bench = lambda image, size, count, *more: process(
        "qemu-img", "bench", "-c", count, "-s", size, *more, *first(image, data), amount=count * size if size > 4096 else count)
    steps = data // (2 * MIB)
    for kind, name in [("plain", "sequential read"), ("extended", "sequential read, extended L2")]:
        peers = {"raw pread": inside(ours, "read", "raw", images["raw"], data), "ours": inside(ours, "read", "qcow2", images[kind], data),
                 "qemu-img bench -d 8": bench(images[kind], 2 * MIB, steps, "-d", 8)}
        if crates and kind == "plain":
            peers |= {peer: inside(crates, "read", peer, images[kind], data) for peer in ["imago", "qcow2-rs"]}
        yield name, "MB/s", {"raw pread": 0.95, "qemu-img bench -d 8": 1.0}, peers
    peers = {"raw pread": inside(ours, "random", "raw", images["raw"], data, reads, 1),
             "ours": inside(ours, "random", "qcow2", images["plain"], data, reads, 1),
             "ours, 2 threads": inside(ours, "random", "qcow2", images["plain"], data, reads, 2),
             "qemu-img bench -d 1": bench(images["plain"], 4096, reads // 10, "-d", 1, "-S", STRIDE)}
    goals = {"raw pread": 0.9, "qemu-img bench -d 1": 10.0}
    if crates:
        peers |= {peer: inside(crates, "random", peer, images["plain"], data, reads) for peer in ["imago", "qcow2-rs"]}
        goals |= {"imago": 1.0, "qcow2-rs": 1.0}
    yield "random read, 4 KiB", "/s", goals, peers
    for kind, goal in [("zlib", 1.5), ("zstd", 1.2)]:
        peers = {"ours": inside(ours, "readall", "qcow2", images[kind], 2), "ours, one read of 2 MiB at a time": inside(ours, "read", "qcow2", images[kind], data),
                 "qemu-img convert -m 8 -W": null(images[kind])}
        if crates:
            peers |= {"codec, one core": inside(crates, "codec", {"zlib": "inflate", "zstd": "unzstd"}[kind], images["raw"], min(data, 256 * MIB))}
        yield f"read {kind}, 2 cores", "MB/s", {"qemu-img convert -m 8 -W": goal}, peers
        window = 12 * MIB
        peers = {"ours": inside(ours, "random", "qcow2", images[kind], window, packed_reads * 10, 1),
                 "qemu-img bench -d 1": process("qemu-img", "bench", "-c", packed_reads, "-s", 4096, "-d", 1, "-S", STRIDE, *first(images[kind], window), amount=packed_reads)}
        yield f"random read, 4 KiB, {kind}, neighbours hit again", "/s", {"qemu-img bench -d 1": 20.0}, peers
    for kind, goal in [("zlib", 2.2), ("zstd", 1.0)]:
        options = ["-o", "compression_type=zstd"] if kind == "zstd" else []
        peers = {"ours": fresh(inside(ours, "create", kind, images["raw"], out, 2)),
                 "qemu-img convert -c -m 8 -W": fresh(process("qemu-img", "convert", "-c", "-m", "8", "-W", "-f", "raw", "-O", "qcow2", *options, images["raw"], out, amount=disk))}
        if crates:
            peers |= {"codec, one core": inside(crates, "codec", {"zlib": "deflate", "zstd": "zstd"}[kind], images["raw"], min(data, 256 * MIB))}
        yield f"convert to {kind}", "MB/s", {"qemu-img convert -c -m 8 -W": goal}, peers
    length = 64 * MIB if small else 512 * MIB
    yield "sequential write, one fsync", "MB/s", {"raw pwrite": 0.95}, {
        "raw pwrite": fresh(inside(ours, "write", "raw", out, length)), "ours": fresh(inside(ours, "write", "qcow2", out, length))}
    count = 4_000 if small else 20_000
    empty = lambda: subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", out, "4G"], check=True)
    yield "allocating writes, 4 KiB, at random, one fsync", "/s", {"qemu-img bench -w -d 1": 5.0}, {
        "raw pwrite": fresh(inside(ours, "allocate", "raw", out, count)), "ours": fresh(inside(ours, "allocate", "qcow2", out, count)),
        "qemu-img bench -w -d 1": fresh(process("qemu-img", "bench", "-w", "-d", 1, "-c", count, "-s", 4096, "-S", STRIDE, "-f", "qcow2", "-t", "writeback", out, amount=count, before=empty))}
    yield "check, 1 TiB, metadata preallocated", "checks/s", {"qemu-img check (CPU)": 4.0}, {
        "ours": inside(ours, "check", "qcow2", images["large"]), "qemu-img check (CPU)": process("qemu-img", "check", "-q", images["large"])}
    opens = 2_000 if small else 20_000
    yield "open and close", "/s", {}, {
        "raw, with QEMU's locks": inside(ours, "open", "raw", images["raw"], opens), "ours, 4 GiB": inside(ours, "open", "qcow2", images["plain"], opens),
        "ours, 1 TiB": inside(ours, "open", "qcow2", images["large"], opens)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=["small", "full"], default="full")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dir", help="where the images are made, and kept; by default they are made anew and removed")
    parser.add_argument("--only", help="only work whose name holds one of these words")
    parser.add_argument("--no-crates", action="store_true", help="leave out imago, qcow2-rs and the codecs by themselves")
    args = parser.parse_args()
    temporary = args.dir is None
    args.dir = args.dir or tempfile.mkdtemp(prefix="qcow2-peers-")
    os.makedirs(args.dir, exist_ok=True)
    disk, data = (512 * MIB, 256 * MIB) if args.size == "small" else (4096 * MIB, 2048 * MIB)
    try:
        ours = built(["bench", "--no-run", "-p", "goldenseal-qcow2", "--bench", "image_io"], ROOT)
        crates = None if args.no_crates else built(["build", "--release", "--target-dir", "target"], os.path.join(ROOT, "benches", "peers"))
        images = make(args, disk, data)
        for kind, path in images.items():
            # That of 1 TiB is nothing but holes and tables.
            if kind != "large":
                settle(path)
        starts = [process("qemu-img", "--version")() for _ in range(6)][1:]
        START.update({key: statistics.median(start[key] for start in starts) for key in ["seconds", "cpu"]})
        began = time.time()
        goals_met = []
        version = subprocess.run(["qemu-img", "--version"], stdout=subprocess.PIPE, check=True).stdout.decode().split("\n")[0]
        print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {version}; {args.rounds} rounds; disk {disk // MIB} MiB, {data // MIB} MiB of it data\n")
        print("| work | program | median | best | CPU s (median) | ours, by medians (best) | ours, by CPU | at least |")
        print("|---|---|---|---|---|---|---|---|")
        for name, unit, goals, peers in works(args, ours, crates, images, disk, data):
            if args.only and not any(word in name for word in args.only.split(",")):
                continue
            results = {label: [] for label in peers}
            for turn in range(args.rounds + 1):
                for label, run in peers.items():
                    # What takes long needs no warming up, and a codec by itself no more than two rounds.
                    if (turn == 0 and name.startswith("convert")) or (turn > 2 and label.startswith("codec")):
                        continue
                    result = run()
                    if turn:
                        results[label].append(result)
            rate = lambda result: result["amount"] / result["seconds"] / (1e6 if unit == "MB/s" else 1)
            spent = lambda result: max(result["cpu"], 1e-9) / result["amount"]
            middle = lambda label, value: statistics.median(value(result) for result in results[label])
            best = lambda label: max(rate(result) for result in results[label])
            ours_label = next((other for other in results if other.startswith("ours")), None)
            for label, found in results.items():
                against, by_cpu, goal, met = "", "", "", None
                if ours_label and not label.startswith("ours"):
                    ratio, best_ratio = middle(ours_label, rate) / middle(label, rate), best(ours_label) / best(label)
                    cpu_ratio = middle(label, spent) / middle(ours_label, spent)
                    against, by_cpu = f"{ratio:.2f} ({best_ratio:.2f})", f"{cpu_ratio:.2f}"
                    if label in goals:
                        goal, met = f"{goals[label]:g}", (cpu_ratio if "(CPU)" in label else ratio) >= goals[label]
                if label == "ours, 2 threads":
                    ratio = middle(label, rate) / middle("ours", rate)
                    against, goal, met = f"{ratio:.2f} x one thread", "1.8 x one thread", ratio >= 1.8
                digits = 1 if unit == "MB/s" else 0
                note = ""
                if "size" in found[0] and name.startswith("convert"):
                    note = f", {found[0]['size'] / 1e6:.1f} MB"
                    if label in goals:
                        # The file is to be smaller, too, or with zstd no larger.
                        mine = results[ours_label][0]["size"]
                        met = met and (mine < found[0]["size"] or (mine == found[0]["size"] and "zstd" in name))
                if name.startswith("check"):
                    note = f", {found[0]['peak_kib'] / 1024:.0f} MiB"
                    digits = 2
                    if label == "ours":
                        goal, met = "64 MiB", found[0]["peak_kib"] <= 64 * 1024
                if name.startswith("open"):
                    micros = 1e6 / middle(label, rate)
                    note = f", {micros:.1f} us"
                    if label.startswith("ours"):
                        goal, met = "10 us", micros <= 10.0
                if met is not None:
                    goals_met.append((met, f"{name}: {label}"))
                    goal += ": met" if met else ": **MISSED**"
                print(f"| {name} | {label}{note} | {middle(label, rate):,.{digits}f} {unit} | {best(label):,.{digits}f} "
                      f"| {statistics.median(result['cpu'] for result in found):.3f} | {against} | {by_cpu} | {goal} |", flush=True)
        missed = [what for met, what in goals_met if not met]
        print(f"\n{len(goals_met) - len(missed)} of {len(goals_met)} goals met" + "".join(f"; missed: {what}" for what in missed))
        print(f"{time.time() - began:.0f} s; load {os.getloadavg()[0]:.1f}")
    finally:
        if temporary:
            shutil.rmtree(args.dir)


if __name__ == "__main__":
    main()
