#!/usr/bin/env python3
# The 32 colours of experts, classes and runs in charts.js. The first seven are Okabe and Ito's, made for colour-blind eyes ("Color
# Universal Design", 2008). Each further one is, of a grid over sRGB, the one that is farthest from its nearest neighbour among those
# before, as the worst of four pairs of eyes sees it: ordinary ones, and those of protanopes, deuteranopes and tritanopes (matrices of
# Machado, Oliveira and Fernandes, IEEE TVCG 15, 2009, severity 1). Distances are Euclidean in OKLab. Colours too near to the page's
# white or its black are left out. Thirty-two colours cannot all be told apart by everyone: an expert's number always stands beside it.
import itertools

EYES = [
    ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
]
FIRST = ["#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#f0e442"]


def linear(v):
    return v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4


def times(m, v):
    return [sum(a * b for a, b in zip(row, v)) for row in m]


def oklab(rgb):
    lms = times(((0.4122214708, 0.5363325363, 0.0514459929), (0.2119034982, 0.6806995451, 0.1073969566),
                 (0.0883024619, 0.2817188376, 0.6299787005)), rgb)
    roots = [max(0.0, v) ** (1 / 3) for v in lms]
    return times(((0.2104542553, 0.7936177850, -0.0040720468), (1.9779984951, -2.4285922050, 0.4505937099),
                  (0.0259040371, 0.7827717662, -0.8086757660)), roots)


def seen(code):
    rgb = [linear(int(code[i:i + 2], 16) / 255) for i in (1, 3, 5)]
    return [oklab([min(1, max(0, v)) for v in times(eye, rgb)]) for eye in EYES]


def distance(a, b):
    return min(sum((x - y) ** 2 for x, y in zip(p, q)) ** 0.5 for p, q in zip(a, b))


chosen = [(code, seen(code)) for code in FIRST]
grid = ["#%02x%02x%02x" % c for c in itertools.product(range(0, 256, 17), repeat=3)]
candidates = [(code, views) for code in grid if 0.45 <= (views := seen(code))[0][0] <= 0.87]
near = [min(distance(views, c[1]) for c in chosen) for _, views in candidates]
while len(chosen) < 32:
    best = max(range(len(candidates)), key=near.__getitem__)
    chosen.append(candidates[best])
    near = [min(n, distance(views, candidates[best][1])) for n, (_, views) in zip(near, candidates)]
print(", ".join(f"'{code}'" for code, _ in chosen))
