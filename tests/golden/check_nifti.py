#!/usr/bin/env python3
"""Compares the NIfTI reader with nibabel: voxel values, affine, and the form with axes in RAS order.

    check_nifti.py build/cpu/tests/ermoe_nifti_dump

Over small files that the program makes, and over every NIfTI file of ixi_t1_2mm.tar and corrupt_inputs.tar in the folder that
ERMOE_TEST_DATA names. Ends with 77 (skipped) where nibabel is missing.
"""
import collections
import csv
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import warnings

try:
    import nibabel
    import numpy as np
except ImportError as missing:
    print(f"skipped: {missing} (Debian: python3-nibabel)")
    sys.exit(77)

nibabel.imageglobals.logger.setLevel("CRITICAL")
MM = {1: 1e3, 3: 1e-3}  # per metre and micron: nibabel leaves affines in the file's unit
outcomes = collections.Counter()
faults = []


def as_read_here(program, path):
    """The JSON line, and the arrays with x as first axis: as stored, in RAS order. None for what is refused."""
    out = subprocess.run([program, path], capture_output=True, check=True).stdout
    line, _, voxels = out.partition(b"\n")
    said = json.loads(line)
    if "refused" in said:
        return said, None, None
    values = np.frombuffer(voxels, dtype="<f4")
    cut = int(np.prod(said["as_stored"]["size"]))
    assert len(values) == 2 * cut, path
    stored, ras = values[:cut], values[cut:]
    return (said, stored.reshape(said["as_stored"]["size"], order="F"), ras.reshape(said["ras"]["size"], order="F"))


def as_nibabel_reads(path):
    """The image with one volume's three axes, or None where nibabel refuses it or it holds several."""
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            image = nibabel.load(path)
        if int(np.prod(image.shape[3:], dtype=float)) != 1:
            return "series"
        data = image.get_fdata()
        return nibabel.Nifti1Image(data.reshape(image.shape[:3]), image.affine), MM.get(int(image.header["xyzt_units"]) & 7, 1)
    except Exception:  # whatever damaged files make it throw
        return None


def axes_are_plain(affine):
    """Whether each axis runs most along another direction; elsewhere nibabel's choice depends on the axes' order."""
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    u, _, v = np.linalg.svd(directions)
    return len(set(np.abs(u @ v).argmax(axis=0))) == 3


def differences(said, found, image, mm):
    scale = np.diag([mm, mm, mm, 1])[:3, :3]
    expected_affine = np.column_stack([scale @ image.affine[:3, :3], scale @ image.affine[:3, 3]])
    if tuple(said["size"]) != image.shape:
        return f"size {said['size']}, nibabel {image.shape}"
    if not np.allclose(said["affine"], expected_affine, rtol=1e-9, atol=1e-9):
        return f"affine {said['affine']}, nibabel {expected_affine.tolist()}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = np.asarray(image.dataobj).astype(np.float32)
    if not np.array_equal(found, expected, equal_nan=True):
        return f"{np.sum(found != expected)} of {found.size} voxels differ"
    return None


def compare(program, path, name, expect):
    """`expect`: accept where a refusal is a fault, any where it is not."""
    said, stored, ras = as_read_here(program, path)
    theirs = as_nibabel_reads(path)
    if stored is None:
        sound = theirs is not None and theirs != "series"
        outcomes["refused here" if sound else "refused here, and by nibabel or as a series"] += 1
        if (sound and expect == "accept") or (theirs == "series") != ("a series of" in said["refused"]) and expect == "accept":
            faults.append(f"{name}: {said['refused']}")
        return
    if theirs is None or theirs == "series":
        outcomes["read here alone"] += 1
        if expect != "any":
            faults.append(f"{name}: read here, and not by nibabel")
        return
    outcomes["compared"] += 1
    image, mm = theirs
    fault = differences(said["as_stored"], stored, image, mm)
    if fault is None and axes_are_plain(image.affine):
        outcomes["compared in RAS order"] += 1
        fault = differences(said["ras"], ras, nibabel.as_closest_canonical(image), mm)
        fault = fault and "RAS: " + fault
    if fault:
        faults.append(f"{name}: {fault}")


def compare_folder(program, folder, expect_of):
    for parent, _, files in sorted(os.walk(folder)):
        for file in sorted(files):
            path = os.path.join(parent, file)
            name = os.path.relpath(path, folder)
            if file.endswith((".nii", ".nii.gz", ".hdr")):
                compare(program, path, name, expect_of(name))


def main():
    program = sys.argv[1]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([program, "make", folder], check=True)
        compare_folder(program, folder, lambda name: "accept")
    made = outcomes["compared"]
    if made < 200 or outcomes["compared in RAS order"] < 100:
        faults.append(f"only {dict(outcomes)} of the files made for this were compared")
    for archive, least in (("ixi_t1_2mm.tar", 300), ("corrupt_inputs.tar", 12)):
        path = os.path.join(os.environ.get("ERMOE_TEST_DATA", ""), archive)
        if not os.path.isfile(path):
            print(f"{archive} is not here: left out")
            continue
        before = outcomes["compared"]
        with tempfile.TemporaryDirectory() as folder:
            with tarfile.open(path) as tar:
                tar.extractall(folder, [m for m in tar if m.isfile() and m.name.endswith((".nii", ".nii.gz", ".hdr", ".tsv"))])
            expect = {}
            if archive.startswith("corrupt"):
                with open(os.path.join(folder, "manifest.tsv"), newline="") as table:
                    expect = {row["path"]: row["expect"] for row in csv.DictReader(table, delimiter="\t", quoting=csv.QUOTE_NONE)}
            compare_folder(program, folder, lambda name: expect.get(name, "accept"))
        print(f"{archive}: {outcomes['compared'] - before} files compared")
        if outcomes["compared"] - before < least:
            faults.append(f"{archive}: fewer than {least} files were compared")
    print(f"nibabel {nibabel.__version__}, {made} made files:", ", ".join(f"{count} {what}" for what, count in outcomes.items()))
    print("\n".join(faults) if faults else "all agree")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
