#!/usr/bin/env python3
"""Made brains for the tests of programs.

make_study.py FOLDER [FAULT]: eight subjects of 12 voxels a side and 4 mm with their ages and maps of regions; with a FAULT, something is
wrong about subject s3.
make_study.py FOLDER ageing COUNT: subjects of 8 mm in BIDS folders, whose front (region 1) is the brighter the older they are.
make_study.py FOLDER template: a brain and its atlas of AAL's numbers, as tests/made_brain.h has them.
"""
import gzip
import math
import os
import random
import struct
import sys


def nifti(values, size, spacing, frames=1, shift=0.0):
    """The bytes of a .nii.gz of float32, in RAS and around the origin, moved by `shift` mm."""
    head = bytearray(352)
    struct.pack_into("<i", head, 0, 348)
    struct.pack_into("<8h", head, 40, 3 if frames == 1 else 4, *size, frames, 1, 1, 1)
    struct.pack_into("<2h", head, 70, 16, 32)
    struct.pack_into("<8f", head, 76, 1, spacing, spacing, spacing, 1, 1, 1, 1)
    struct.pack_into("<f", head, 108, 352)
    head[123] = 2
    struct.pack_into("<h", head, 254, 1)
    for row in range(3):
        line = [0.0] * 3 + [shift - spacing * (size[row] - 1) / 2]
        line[row] = spacing
        struct.pack_into("<4f", head, 280 + 16 * row, *line)
    head[344:348] = b"n+1\0"
    return gzip.compress(bytes(head) + struct.pack("<%df" % len(values), *values), 1)


def put(path, data):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(data)


def voxels(size):
    return [(x, y, z) for z in range(size[2]) for y in range(size[1]) for x in range(size[0])]


def study(folder, fault):
    size, table = (12, 12, 12), "participant_id\tage\tsplit\n"
    inside = [math.dist(v, (5.5, 5.5, 5.5)) < 5 for v in voxels(size)]
    for s in range(8):
        wrong = fault if s == 3 else ""
        brain = [(100.0 + s + i % 7) * b for i, b in enumerate(inside)]
        if wrong == "nan":
            brain[len(brain) // 2] = math.nan
        if wrong == "flat":
            brain = [5.0] * len(brain)
        if wrong == "skull":
            brain = [v + 1 for v in brain]
        volume = nifti(brain * 2, size, 4, 2) if wrong == "series" else nifti(brain, size, 4)
        if wrong == "cut":
            volume = volume[: len(volume) // 2]
        put(f"{folder}/t1/s{s}.nii.gz", volume)
        halves = [float(b) * (1 + i % 12 // 6) for i, b in enumerate(inside)]
        if wrong == "vague":
            halves[len(halves) // 2] = 0.5
        put(f"{folder}/regions/s{s}_regions.nii.gz", nifti(halves, size, 4, shift=2.0 * (wrong == "grid")))
        age = {"ageless": "n/a", "old": "430", "wordy": "young", "unborn": "-3"}.get(wrong, str(20 + 5 * s))
        table += f"s{s}\t{age}\t{'val' if s > 5 else 'train'}\n"
    if fault == "leak":
        table += "s3\t35\tval\n"
    if fault == "lost":
        os.remove(f"{folder}/t1/s3.nii.gz")
    put(f"{folder}/participants.tsv", table.encode())


def ageing(folder, count):
    random.seed(1)
    size, table = (16, 20, 12), "participant_id\tage\n"
    labels = [0 if not (2 <= x < 14 and 2 <= y < 18 and 2 <= z < 10) else 1 if y >= 12 else 2 for x, y, z in voxels(size)]
    for i in range(count):
        name, age = f"sub-{i:02}", 20 + 60 * i / (count - 1)
        brain = [0.0 if r == 0 else 100 + (2 * (age - 50) if r == 1 else 0) + random.gauss(0, 3) for r in labels]
        put(f"{folder}/{name}/anat/{name}_T1w.nii.gz", nifti(brain, size, 8))
        put(f"{folder}/regions/{name}.nii.gz", nifti([float(r) for r in labels], size, 8))
        table += f"{name}\t{age:.1f}\n"
    put(f"{folder}/participants.tsv", table.encode())
    put(f"{folder}/labels.tsv", b"label\tname\tplanted\n1\tfront\t1\n2\trear\t0\n")


def label(mm, depth):
    """AAL's number at a place in mm from the middle; `depth` is 1 at the surface."""
    def near(center, radius):
        return sum(((a - c) / r) ** 2 for a, c, r in zip(mm, center, radius)) < 1

    for side in (-1, 1):
        if near((side * 32, -12, -22), (11, 20, 11)):
            return 37
        if near((side * 26, 8, 8), (9, 14, 9)):
            return 71
        if near((side * 44, 14, 4), (6, 16, 9)):
            return 29
    if depth < 0.72:
        return 0
    if mm[2] < -12:
        return 91 if mm[1] < -30 else 85
    if mm[1] > 20:
        return 7
    return 51 if mm[1] < -45 else 59


def template(folder):
    size, spacing, brain, atlas = (35, 41, 33), 5, [], []
    for v in voxels(size):
        mm = [spacing * (a - (n - 1) / 2) for a, n in zip(v, size)]
        depth = math.hypot(mm[0] / 70, mm[1] / 85, mm[2] / 65)
        ventricle = math.hypot(mm[0] / 14, (mm[1] - 2) / 28, (mm[2] - 10) / 14) < 1
        number = 0 if depth >= 1 or ventricle else label(mm, depth)
        atlas.append(float(number))
        brain.append(0.0 if depth >= 1 else 30.0 if ventricle else 85.0 if number else 110.0)
    put(f"{folder}/brain.nii.gz", nifti(brain, size, spacing))
    put(f"{folder}/atlas.nii.gz", nifti(atlas, size, spacing))


if __name__ == "__main__":
    where, what = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else ""
    if what == "template":
        template(where)
    elif what == "ageing":
        ageing(where, int(sys.argv[3]))
    else:
        study(where, what)
