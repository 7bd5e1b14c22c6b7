"""Paired tests and intervals by scipy, statsmodels and numpy, as a fixture.

Makes statistics.json: "paired" has [differences, p, low, high]: p by scipy's sign
permutation test (exact up to 12 differences that are not 0, else 100,000 patterns), low
and high the ends of its percentile bootstrap of the mean (100,000 samples), each as the
range in which 10,000 samples should put it; "mixed" has [differences, result]
with differences [seed][query] and the analysis of variance of two crossed random
factors, in numpy; "holm" has [p-values, adjusted ones], by statsmodels. Everything is
seeded; no data and no model are needed.

Install: pip install -r benches/peers/requirements.txt
Run:     python benches/peers/paired_tests.py crates/mendel/tests/fixtures
"""

import argparse
import json
from pathlib import Path

import numpy as np
from scipy import stats
from statsmodels.stats.multitest import multipletests

SEED = 20240301
RESAMPLES = 100_000


def paired_cases(rng):
    """Rows of differences: few and many, smooth, skewed, with ties and zeros."""
    for count in (2, 5, 9, 12):
        yield rng.normal(0.3, 1, count)
    yield np.array([0.1, 0.2, -0.3, 0.1, 0.1, -0.2, 0.4])
    yield np.array([0.1, 0.2, -0.3])
    yield np.full(8, 0.1)
    yield np.array([0.5, 0, 0, -0.25, 0.5, 0, 1, 0, 0, 0.5, 0, 0, 0.25, 0, 1, 0, 0])
    yield rng.normal(0.3, 1, 30)
    yield rng.normal(0.01, 0.1, 100)
    yield rng.exponential(1, 60) - 0.8
    ranks = 1 / rng.integers(1, 11, (2, 200))
    yield ranks[0] - ranks[1]


def paired(differences, rng):
    """The p-value, and where each end of the interval of the mean lies."""
    nonzero = differences[differences != 0]
    exact = len(nonzero) <= 12
    test = stats.permutation_test(
        (nonzero,),
        np.sum,
        permutation_type="samples",
        n_resamples=np.inf if exact else RESAMPLES,
        rng=rng,
    )
    means = stats.bootstrap(
        (differences,), np.mean, n_resamples=RESAMPLES, batch=1000, method="percentile", rng=rng
    ).bootstrap_distribution
    # Four standard errors of a fraction of 2.5%. Means of few round numbers are a lattice, so the
    # error of a percentile can be a whole step: only that of its fraction is known.
    slack = 4 * np.sqrt(0.025 * 0.975 * (1 / 10_000 + 1 / RESAMPLES))
    low, high = (
        dict(zip(("low", "high"), np.quantile(means, (end - slack, end + slack)).tolist())) for end in (0.025, 0.975)
    )
    return [differences.tolist(), float(test.pvalue), low, high]


def mixed_cases(rng):
    """Differences [seed][query] with effects of many sizes, some estimated negative."""
    for seeds, queries, of_seed, of_query, of_rest in (
        (3, 10, 0.5, 1, 1),
        (5, 20, 1, 0.5, 0.5),
        (5, 20, 0, 1, 1),
        (4, 12, 1, 0, 1),
        (3, 30, 0.3, 1, 0.1),
        (2, 2, 1, 1, 1),
    ):
        yield (
            0.3
            + of_seed * rng.normal(size=(seeds, 1))
            + of_query * rng.normal(size=(1, queries))
            + of_rest * rng.normal(size=(seeds, queries))
        )
    # Every mean over queries and over seeds is the same: only the rest varies.
    yield np.array([[2.0, 0.0], [0.0, 2.0]])
    # Queries that vary less than the rest, and seeds too.
    yield np.array([[1.0, 3.0, 2.0], [3.0, 1.0, 2.1], [2.0, 2.0, 2.0]])


def mixed(x):
    """Sums of squares by least squares: what a factor explains beyond the mean and the other factor."""
    seeds, queries = x.shape
    seed, query = (index.ravel() for index in np.indices(x.shape))
    y = x.ravel()

    def residual(*factors):
        design = np.hstack([np.ones((y.size, 1))] + [np.eye(f.max() + 1)[f] for f in factors])
        fitted = design @ np.linalg.lstsq(design, y, rcond=None)[0]
        return float(np.sum((y - fitted) ** 2))

    rest = residual(seed, query)
    df_query, df_seed = queries - 1, seeds - 1
    df_rest = df_query * df_seed
    ms_query = (residual(seed) - rest) / df_query
    ms_seed = (residual(query) - rest) / df_seed
    ms_rest = rest / df_rest

    # The components of variance, none below 0, add up to the variance of the mean.
    var_query = max(0.0, (ms_query - ms_rest) / seeds)
    var_seed = max(0.0, (ms_seed - ms_rest) / queries)
    error = np.sqrt(var_query / queries + var_seed / seeds + ms_rest / y.size)
    # Satterthwaite: the mean squares that the variance of the mean is made of, with their coefficients. Where an
    # effect's variance is taken to be 0, its mean square is that of the rest.
    terms = [
        (1, seeds * var_query + ms_rest, df_query),
        (1, queries * var_seed + ms_rest, df_seed),
        (-1, ms_rest, df_rest),
    ]
    df = sum(c * m for c, m, _ in terms) ** 2 / sum((c * m) ** 2 / d for c, m, d in terms)

    mean = y.mean()
    low, high = stats.t.interval(0.95, df, loc=mean, scale=error)
    result = {
        "mean": mean,
        "interval": {"low": low, "high": high},
        "p": 2 * stats.t.sf(abs(mean / error), df),
        "degrees_of_freedom": df,
        "seed_deviation": np.std(x.mean(axis=1), ddof=1),
    }
    return [x.tolist(), result]


def holm_cases(rng):
    """Rows of p-values, some with ties and some that come out above 1."""
    yield np.array([0.01])
    yield np.array([0.04, 0.01, 0.03, 0.005])
    yield np.array([0.02, 0.02, 0.9, 0.5, 0.02])
    yield np.round(rng.uniform(size=10) ** 3, 6)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    args = parser.parse_args()

    rng = np.random.default_rng(SEED)
    fixture = {
        "paired": [paired(np.round(x, 6), rng) for x in paired_cases(rng)],
        "mixed": [mixed(np.round(x, 6)) for x in mixed_cases(rng)],
        "holm": [[p.tolist(), multipletests(p, method="holm")[1].tolist()] for p in holm_cases(rng)],
    }
    path = args.out / "statistics.json"
    path.write_text(json.dumps(fixture, separators=(",", ":")) + "\n")
    print(f"{path}: {', '.join(f'{len(cases)} {name}' for name, cases in fixture.items())}")


if __name__ == "__main__":
    main()
