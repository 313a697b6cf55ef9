#!/usr/bin/env python3
"""Prints the requests with which debugfs removes the tree /delete that ext4_peers.py has made."""

import subprocess
import sys


def names(image, path):
    out = subprocess.run(["debugfs", "-R", f"ls -p {path}", image], capture_output=True, text=True, check=True).stdout
    for line in out.splitlines():
        fields = line.split("/")
        if len(fields) > 5 and fields[5] not in ("", ".", ".."):
            yield fields[5]


image = sys.argv[1]
for folder in sorted(names(image, "/delete")):
    for name in names(image, f"/delete/{folder}"):
        print(f"rm /delete/{folder}/{name}")
    print(f"rmdir /delete/{folder}")
print("rmdir /delete")
