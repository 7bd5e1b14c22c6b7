"""What all-MiniLM-L6-v2 scores with sentence-transformers, as a fixture.

Makes minilm_scores.json:
- "sts": Spearman and Pearson (scipy) of the cosine of both sentences with the gold
  score, over all pairs of a file;
- "beir": the measures of a collection's split as BEIR runs it. A document is
  (title + " " + text).strip(); the queries are those of the split's judgements; search
  is exact, by cosine, over the whole corpus, the best 1000; a result whose id is the
  query's is dropped. Measured by trec_eval through ir_measures, some values checked
  against pytrec_eval; mrr@10 is trec_eval's recip_rank of a run cut to its first 10,
  which has to be done by hand: trec_eval has no cut for it.

The model as its folder says: mean pooling, at most 256 tokens, unit length; f32, CPU.

Install: pip install -r benches/peers/requirements.txt
Run:     python benches/peers/retrieval_scores.py DATA MODEL crates/mendel/tests/fixtures

DATA is the folder that holds stsb/ and beir/, MODEL that of all-MiniLM-L6-v2
(README.md here says where to get it). The time of encoding each corpus goes to stderr.
"""

import argparse
import csv
import gzip
import json
import sys
import time
from pathlib import Path

import ir_measures
import numpy as np
import pytrec_eval
import torch
from ir_measures import AP, RR, P, R, Success, nDCG
from scipy import stats
from sentence_transformers import SentenceTransformer

DEPTH = 1000
MEASURES = {
    "ndcg@10": nDCG @ 10,
    "map@100": AP @ 100,
    "recall@1": R @ 1,
    "recall@5": R @ 5,
    "recall@10": R @ 10,
    "recall@100": R @ 100,
    "recall@1000": R @ 1000,
    "precision@1": P @ 1,
    "precision@5": P @ 5,
    "hit_rate@5": Success @ 5,
}
PEER_NAMES = {"ndcg@10": "ndcg_cut_10", "map@100": "map_cut_100", "recall@100": "recall_100"}


def encode(model, texts):
    return model.encode(texts, batch_size=32, normalize_embeddings=True, show_progress_bar=False)


def sts(model, path):
    with open(path, encoding="utf-8", newline="\n") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    first, second = (encode(model, [row[name] for row in rows]) for name in ("sentence1", "sentence2"))
    cosine = (first.astype(np.float64) * second).sum(axis=1)
    gold = [float(row["score"]) for row in rows]
    return {
        "spearman": float(stats.spearmanr(cosine, gold).statistic),
        "pearson": float(stats.pearsonr(cosine, gold).statistic),
        "pairs": len(rows),
    }


def read_collection(folder, split):
    with gzip.open(folder / "corpus.jsonl.gz", "rt", encoding="utf-8") as file:
        documents = [json.loads(line) for line in file]
    corpus = {row["_id"]: (row["title"] + " " + row["text"]).strip() for row in documents}
    with open(folder / "queries.jsonl", encoding="utf-8") as file:
        queries = {row["_id"]: row["text"] for row in map(json.loads, file)}
    qrels = {}
    with open(folder / "qrels" / f"{split}.tsv", encoding="utf-8", newline="\n") as file:
        for query, document, score in csv.reader(list(file)[1:], delimiter="\t", quoting=csv.QUOTE_NONE):
            qrels.setdefault(query, {})[document] = int(score)
    return corpus, {query: queries[query] for query in qrels}, qrels


def beir(model, folder, split):
    corpus, queries, qrels = read_collection(folder, split)
    ids, query_ids = list(corpus), list(queries)
    started = time.time()
    documents = encode(model, list(corpus.values()))
    print(f"{folder.name}: {len(ids)} documents in {time.time() - started:.1f} s", file=sys.stderr)
    scores = encode(model, list(queries.values())) @ documents.T
    run = {}
    for query, row in zip(query_ids, scores):
        best = np.argsort(-row, kind="stable")[: DEPTH + 1]
        results = [(ids[place], float(row[place])) for place in best if ids[place] != query]
        run[query] = dict(results[:DEPTH])
    provider = ir_measures.pytrec_eval
    values = provider.calc_aggregate(list(MEASURES.values()), qrels, run)
    found = {name: float(values[measure]) for name, measure in MEASURES.items()}
    order = lambda item: (np.float32(item[1]), item[0].encode())
    first = {query: dict(sorted(results.items(), key=order, reverse=True)[:10]) for query, results in run.items()}
    found["mrr@10"] = float(provider.calc_aggregate([RR], qrels, first)[RR])
    peer = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut.10", "map_cut.100", "recall.100"}).evaluate(run)
    for name, theirs in PEER_NAMES.items():
        assert abs(found[name] - np.mean([row[theirs] for row in peer.values()])) < 1e-9, name
    return found | {"queries": len(query_ids), "documents": len(ids)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()

    torch.set_num_threads(2)
    model = SentenceTransformer(str(args.model), device="cpu")
    fixture = {
        "sts": {"stsb/test.tsv": sts(model, args.data / "stsb/test.tsv")},
        "beir": {
            f"{name}/test": beir(model, args.data / "beir" / name, "test") for name in ("cranfield", "scifact")
        },
        "max_tokens": model.max_seq_length,
    }
    path = args.out / "minilm_scores.json"
    path.write_text(json.dumps(fixture, indent=2) + "\n")
    print(path.read_text())


if __name__ == "__main__":
    main()
