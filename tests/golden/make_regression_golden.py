#!/usr/bin/python3
"""Writes ../models/regression_golden.h: predicted ages of made-up subjects and what NumPy and SciPy say of them.

Needs Debian's python3-numpy and python3-scipy. `--check` compares with the file instead of writing it.
"""
import pathlib
import sys

import numpy as np
from scipy import stats

OUT = pathlib.Path(__file__).resolve().parent.parent / "models" / "regression_golden.h"


def subjects(rng, count, slope, noise):
    age = np.round(rng.uniform(19, 87, count), 2)
    return age, np.round(50 + slope * (age - 50) + rng.normal(0, noise, count), 2)


def array(name, values):
    return f"inline const std::vector<double> {name} = {{{', '.join(repr(float(v)) for v in values)}}};"


def number(name, value):
    return f"inline constexpr double {name} = {float(value)!r};"


def metrics(prefix, age, predicted, rng):
    gap = predicted - age
    size = np.abs(gap)
    means = rng.choice(size, (200_000, len(size))).mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return [
        number(f"{prefix}_mae", size.mean()),
        number(f"{prefix}_mae_error", stats.sem(size)),
        number(f"{prefix}_low", low),  # of another generator's draws: right to a hundredth or so
        number(f"{prefix}_high", high),
        number(f"{prefix}_rmse", np.sqrt(np.mean(np.square(gap)))),
        number(f"{prefix}_r", stats.pearsonr(predicted, age)[0]),
        number(f"{prefix}_r2", 1 - np.sum(np.square(gap)) / (len(age) * np.var(age))),
        number(f"{prefix}_gap", gap.mean()),
        number(f"{prefix}_gap_age_r", np.corrcoef(gap, age)[0, 1]),
    ]


def text():
    rng = np.random.default_rng(5)
    train_age, train_predicted = subjects(rng, 40, 0.7, 4)
    age, predicted = subjects(rng, 30, 0.65, 6)
    other = np.round(predicted + rng.normal(1, 5, len(age)), 2)
    line = stats.linregress(train_age, train_predicted)
    corrected = (predicted - line.intercept) / line.slope
    difference = np.abs(predicted - age) - np.abs(other - age)
    lines = ["// Made by tests/golden/make_regression_golden.py: made-up subjects and what NumPy and SciPy say of them.", "#pragma once", "",
             "#include <vector>", "", "namespace ermoe::golden {", "",
             "// clang-format off",
             array("train_age", train_age), array("train_predicted", train_predicted), array("age", age), array("predicted", predicted),
             array("other", other), number("intercept", line.intercept), number("slope", line.slope), array("corrected", corrected),
             *metrics("plain", age, predicted, rng), *metrics("corrected", age, corrected, rng)]
    lines += [array("decade_starts", sorted(set(age // 10 * 10))),
              array("decade_maes", [np.abs(predicted - age)[age // 10 == d].mean() for d in sorted(set(age // 10))]),
              array("decade_gaps", [(predicted - age)[age // 10 == d].mean() for d in sorted(set(age // 10))]),
              number("mean_predictor_mae", np.abs(age - train_age.mean()).mean()),
              number("difference", difference.mean()), number("difference_error", stats.sem(difference)),
              number("better_share", (difference < 0).mean()),
              "// clang-format on", "", "}  // namespace ermoe::golden", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    if "--check" in sys.argv[1:]:
        sys.exit(None if OUT.read_text() == text() else f"{OUT} holds something else")
    OUT.write_text(text())
