"""Retrieval measures of random runs by trec_eval (through pytrec_eval), as a fixture.

Makes trec_metrics.json: for each query its qrels, its run and the values.
Everything is seeded; no data and no model are needed.

What trec_eval does, and a reader of the fixture must do:
- a run is ordered by score descending, then by document id DESCENDING as bytes
  ("d9" before "d10"); runs are stored shuffled, and cut after this ordering;
- a document counts as relevant when its grade is at least 1, in measures_level_2
  when it is at least 2 (trec_eval -l 2); one that is not in the qrels has grade 0;
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
# how many queries, run length, pool of documents, judged, lowest and highest grade,
# share of the judged with grade 0, distinct score levels (few: many ties), step between scores
CASES = [
    (24, 20, 40, 12, 0, 1, 0.5, 4096, 1 / 64),  # binary
    (24, 20, 40, 12, 0, 1, 0.5, 6, 1 / 64),  # binary, ties
    (24, 30, 60, 20, 0, 3, 0.4, 4096, 1 / 64),  # graded
    (24, 30, 60, 20, 0, 3, 0.4, 5, 1 / 64),  # graded, ties
    (16, 25, 50, 18, -2, 3, 0.3, 64, 1 / 64),  # negative grades, which count as 0
    (20, 4, 30, 10, 0, 2, 0.4, 8, 1 / 64),  # fewer results than k
    (12, 1, 12, 6, 0, 1, 0.3, 8, 1 / 64),  # a single result
    (12, 15, 30, 8, 0, 0, 0.0, 8, 1 / 64),  # judged, nothing relevant
    (12, 12, 20, 12, 0, 2, 0.3, 1, 1 / 64),  # all scores equal
    (20, 30, 60, 20, 0, 3, 0.4, 40, 2**-22),  # scores that differ in the last bits of f32
    (6, 150, 200, 60, 0, 3, 0.3, 40, 1 / 64),  # longer than 100
    (2, 1050, 1100, 80, 0, 3, 0.2, 300, 1 / 64),  # longer than 1000
]
# ids whose order as bytes is not that of their numbers, nor that of an alphabet
ID_STYLES = ["d{}", "{:04}", "{}-ä", "Doc_{}", "é{}", "文{}"]


def make_query(rng, run_length, pool, judged, low_grade, top_grade, zeros, levels, step):
    style = rng.choice(ID_STYLES)
    docs = [style.format(n) for n in range(1, pool + 1)]
    qrels = {
        doc: 0 if top_grade == 0 or rng.random() < zeros else rng.choice([low_grade, *range(1, top_grade + 1)])
        for doc in rng.sample(docs, judged)
    }
    # Multiples of a power of two, some negative: exact in f32.
    offset = 0.5 if step < 1e-6 else -(levels // 3) * step
    run = [[doc, offset + rng.randrange(levels) * step] for doc in rng.sample(docs, run_length)]
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
    levels = {}
    for level in (1, 2):
        evaluator = lambda names: pytrec_eval.RelevanceEvaluator(qrels, names, relevance_level=level)
        levels[level] = evaluator(names).evaluate(runs), evaluator({"recip_rank"}).evaluate(top10)

    def measures(query, level):
        values, reciprocal = levels[level]
        own = {ours: values[query][theirs] for ours, theirs in MEASURES.items()}
        return {"mrr@10": reciprocal[query]["recip_rank"]} | own

    rows = []
    for n, (judged, run) in enumerate(queries):
        row = {"qrels": judged, "run": run, "measures": measures(str(n), 1), "measures_level_2": measures(str(n), 2)}
        rows.append(json.dumps(row, separators=(",", ":")))
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "trec_metrics.json").write_text('{"queries":[\n' + ",\n".join(rows) + "\n]}\n")
    print(f"{len(rows)} queries")


if __name__ == "__main__":
    main()
