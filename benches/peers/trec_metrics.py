"""Retrieval measures of random runs by trec_eval (through pytrec_eval), as a fixture.

Makes trec_metrics.json: for each query its qrels, its run and the values.
Everything is seeded; no data and no model are needed.

What trec_eval does, and a reader of the fixture must do:
- a run is ordered by score descending, then by document id DESCENDING as bytes
  ("d9" before "d10"); runs are stored shuffled, and cut after this ordering;
- a document counts as relevant when its grade is at least 1; a document that is
  not in the qrels counts as grade 0;
- nDCG takes the grade itself as gain, discount log2(rank + 1), and the ideal
  ranking of all judged documents;
- map@100 divides by the number of all relevant documents, precision@k by k even
  if the run is shorter; a query without relevant documents has 0 everywhere.
mrr@10 is trec_eval's recip_rank of the run cut to its first 10 documents;
hit_rate@5 is its success_5.

Install: pip install -r benches/peers/requirements.txt
Run:     python benches/peers/trec_metrics.py crates/mendel/tests/fixtures
"""

import argparse
import json
import random
from pathlib import Path

import pytrec_eval

SEED = 20240229
# our name, trec_eval's name of the value
MEASURES = {
    "ndcg@10": "ndcg_cut_10",
    "map@100": "map_cut_100",
    "recall@1": "recall_1",
    "recall@5": "recall_5",
    "recall@10": "recall_10",
    "recall@100": "recall_100",
    "recall@1000": "recall_1000",
    "precision@1": "P_1",
    "precision@5": "P_5",
    "hit_rate@5": "success_5",
}
# how many queries, run length, pool of documents, judged, highest grade,
# share of the judged with grade 0, distinct score levels (few: many ties)
CASES = [
    (8, 20, 40, 12, 1, 0.5, 4096),  # binary
    (6, 20, 40, 12, 1, 0.5, 6),  # binary, ties
    (8, 30, 60, 20, 3, 0.4, 4096),  # graded
    (6, 30, 60, 20, 3, 0.4, 5),  # graded, ties
    (4, 4, 30, 10, 2, 0.4, 8),  # fewer results than k
    (2, 1, 12, 6, 1, 0.3, 8),  # a single result
    (2, 15, 30, 8, 0, 0.0, 8),  # judged, nothing relevant
    (2, 12, 20, 12, 2, 0.3, 1),  # all scores equal
    (2, 150, 200, 60, 3, 0.3, 40),  # longer than 100
    (1, 1050, 1100, 80, 3, 0.2, 300),  # longer than 1000
]


def make_query(rng, run_length, pool, judged, top_grade, zeros, levels):
    docs = [f"d{n}" for n in range(1, pool + 1)]
    qrels = {
        doc: 0 if top_grade == 0 or rng.random() < zeros else rng.randint(1, top_grade)
        for doc in rng.sample(docs, judged)
    }
    # Multiples of 1/64, some negative: exact in f32.
    run = [[doc, (rng.randrange(levels) - levels // 3) / 64] for doc in rng.sample(docs, run_length)]
    return qrels, run


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    args = parser.parse_args()

    rng = random.Random(SEED)
    queries = [make_query(rng, *case) for count, *case in CASES for _ in range(count)]

    qrels = {str(n): judged for n, (judged, _) in enumerate(queries)}
    runs = {str(n): dict(run) for n, (_, run) in enumerate(queries)}
    order = lambda item: (item[1], item[0].encode())
    top10 = {q: dict(sorted(run.items(), key=order, reverse=True)[:10]) for q, run in runs.items()}

    names = {"ndcg_cut.10", "map_cut.100", "recall.1,5,10,100,1000", "P.1,5", "success.5"}
    values = pytrec_eval.RelevanceEvaluator(qrels, names).evaluate(runs)
    reciprocal = pytrec_eval.RelevanceEvaluator(qrels, {"recip_rank"}).evaluate(top10)

    rows = []
    for n, (judged, run) in enumerate(queries):
        measures = {"mrr@10": reciprocal[str(n)]["recip_rank"]}
        measures |= {ours: values[str(n)][theirs] for ours, theirs in MEASURES.items()}
        row = {"qrels": judged, "run": run, "measures": measures}
        rows.append(json.dumps(row, separators=(",", ":")))
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "trec_metrics.json").write_text('{"queries":[\n' + ",\n".join(rows) + "\n]}\n")
    print(f"{len(rows)} queries")


if __name__ == "__main__":
    main()
