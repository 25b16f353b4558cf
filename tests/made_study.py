#!/usr/bin/env python3
"""made_study.py FOLDER COUNT: subjects for tests of the programs, brains of 8 mm whose front (region 1) is the brighter the older they are."""
import gzip
import os
import random
import struct
import sys

SIZE, MM = (16, 20, 12), 8.0


def write(path, values):
    """A NIfTI-1 file of float32 in RAS."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    head = bytearray(352)
    struct.pack_into("<i", head, 0, 348)
    struct.pack_into("<8h", head, 40, 3, *SIZE, 1, 1, 1, 1)
    struct.pack_into("<2h", head, 70, 16, 32)
    struct.pack_into("<8f", head, 76, 1, MM, MM, MM, 1, 1, 1, 1)
    struct.pack_into("<3f", head, 108, 352, 1, 0)
    head[123] = 2  # mm
    struct.pack_into("<2h", head, 252, 0, 1)
    for row, at in enumerate((280, 296, 312)):
        struct.pack_into("<4f", head, at, *[MM if row == column else 0 for column in range(3)], 0)
    head[344:348] = b"n+1\0"
    with gzip.open(path, "wb") as file:
        file.write(bytes(head) + struct.pack(f"<{len(values)}f", *values))


def label_at(x, y, z):
    if not (2 <= x < 14 and 2 <= y < 18 and 2 <= z < 10):
        return 0
    return 1 if y >= 12 else 2


def main(folder, count):
    random.seed(1)
    rows = ["participant_id\tage"]
    places = [(x, y, z) for z in range(SIZE[2]) for y in range(SIZE[1]) for x in range(SIZE[0])]
    labels = [label_at(*place) for place in places]
    for i in range(count):
        name, age = f"sub-{i:02}", 20 + 60 * i / (count - 1)
        brain = [0 if label == 0 else 100 + (2 * (age - 50) if label == 1 else 0) + random.gauss(0, 3) for label in labels]
        write(f"{folder}/{name}/anat/{name}_T1w.nii.gz", brain)
        write(f"{folder}/regions/{name}.nii.gz", labels)
        rows.append(f"{name}\t{age:.1f}")
    with open(f"{folder}/participants.tsv", "w") as file:
        file.write("\n".join(rows) + "\n")
    with open(f"{folder}/labels.tsv", "w") as file:
        file.write("label\tname\tplanted\n1\tfront\t1\n2\trear\t0\n")


main(sys.argv[1], int(sys.argv[2]))
