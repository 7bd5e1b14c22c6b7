"""Pearson's and Spearman's correlations by scipy, as a fixture.

Makes correlations.json: a list of {"x", "y", "pearson", "spearman"}: random numbers,
numbers with many ties, monotone and anti-monotone ones, two and three of them, small
noise on a large offset, and whole grades from 0 to 5 against similarities. Everything
is seeded; no data and no model are needed.

Install: pip install -r benches/peers/requirements.txt
Run:     python benches/peers/correlations.py crates/mendel/tests/fixtures
"""

import argparse
import json
from pathlib import Path

import numpy as np
from scipy import stats

SEED = 20240229


def cases(rng):
    """Pairs of rows of numbers, rounded so that few digits are needed."""
    for count in (3, 5, 10, 30, 60):
        x = rng.normal(size=count)
        yield x, x + rng.normal(size=count)
        yield x, np.exp(x)
        yield x, -(x**3)
        yield rng.integers(0, 3, count), rng.integers(0, 4, count)
        yield rng.integers(0, 6, count), rng.normal(size=count)
    yield np.array([1.0, 2.0]), np.array([0.5, 0.25])
    yield np.array([1.0, 1.0, 2.0]), np.array([3.0, 1.0, 2.0])
    offset = 1e6 + rng.normal(size=40)
    yield offset, offset + rng.normal(size=40)
    grades = rng.integers(0, 26, 60) / 5
    yield grades, np.clip(grades / 5 + 0.2 * rng.normal(size=60), -1, 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    args = parser.parse_args()

    fixture = []
    for x, y in cases(np.random.default_rng(SEED)):
        x, y = np.round(x, 6).astype(float), np.round(y, 6).astype(float)
        if len(set(x)) < 2 or len(set(y)) < 2:
            continue
        fixture.append(
            {
                "x": x.tolist(),
                "y": y.tolist(),
                "pearson": float(stats.pearsonr(x, y).statistic),
                "spearman": float(stats.spearmanr(x, y).statistic),
            }
        )
    path = args.out / "correlations.json"
    path.write_text(json.dumps(fixture, separators=(",", ":")) + "\n")
    print(f"{path}: {len(fixture)} cases")


if __name__ == "__main__":
    main()
