#!/usr/bin/python3
"""Writes contrastive/case_NN.safetensors: features of images and texts, and what PyTorch in float64 makes of them.

make_contrastive_golden.py [--check]; with --check the files are made again in memory and compared. Needs Debian's
python3-torch. Tensors: `image`, `text` (B, P) of length 1, `log_scale`, `bias` (1); for each loss of `contrastive` and
`sigmoid` its value `<loss>` () and the gradients `<loss>.image`, `.text`, `.log_scale` and, of sigmoid, `.bias`.
"""
import sys

import torch
import torch.nn.functional as F

from make_golden import FOLDER, TOLERANCE, difference, read_safetensors, write_safetensors

# Number: pairs, width, e^log_scale.
CASES = {80: (1, 8, 14.3), 81: (5, 33, 14.3), 82: (16, 8, 100.0), 83: (16, 33, 3.0), 84: (5, 8, 1.0)}


def contrastive(image, text, log_scale, bias):
    logits = log_scale.exp() * image @ text.T
    own = torch.arange(len(image))
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def sigmoid(image, text, log_scale, bias):
    logits = log_scale.exp() * image @ text.T + bias
    signs = 2 * torch.eye(len(image), dtype=torch.float64) - 1
    return -F.logsigmoid(signs * logits).sum() / len(image)


def make(number):
    pairs, width, scale = CASES[number]
    rng = torch.Generator().manual_seed(number)
    normal = lambda *shape: torch.randn(*shape, generator=rng, dtype=torch.float64)
    image = normal(pairs, width)
    inputs = {"image": F.normalize(image, dim=1), "text": F.normalize(image + 2 * normal(pairs, width), dim=1),
              "log_scale": torch.tensor([scale], dtype=torch.float64).log(), "bias": -1 - normal(1).abs()}
    tensors = dict(inputs)
    for name, loss in (("contrastive", contrastive), ("sigmoid", sigmoid)):
        leaves = {n: t.clone().requires_grad_() for n, t in inputs.items()}
        value = loss(**leaves)
        value.backward()
        tensors[name] = value.detach()
        tensors.update({f"{name}.{n}": t.grad for n, t in leaves.items() if t.grad is not None})
    return tensors


def main():
    faults = 0
    for number in CASES:
        path, tensors = FOLDER / "contrastive" / f"case_{number}.safetensors", make(number)
        if "--check" not in sys.argv:
            path.parent.mkdir(exist_ok=True)
            write_safetensors(path, tensors, {"seed": str(number)})
            continue
        want, _ = read_safetensors(path)
        same = want.keys() == tensors.keys() and all(difference(tensors[n], want[n]) <= TOLERANCE for n in want)
        faults += not same
        print(f"{path.name} {'agrees' if same else 'differs'}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
