"""Sentence embeddings of real texts by sentence-transformers, as a fixture.

Makes minilm_embeddings.safetensors (tensor "embeddings", [n, 384] f32) and
minilm_embeddings.json (for each row: where its text lies, its token ids).
Mean pooling, L2-normalised, at most 512 tokens with [CLS] and [SEP], f32, CPU.

Texts are named by file (relative to the data folder), 1-based line (the header
of a .tsv is line 1) and field; no text is stored.

Install: pip install -r benches/peers/requirements.txt
Run:     python benches/peers/sentence_embeddings.py DATA MODEL crates/mendel/tests/fixtures

DATA is the folder that holds stsb/, mix/ and pairs/. MODEL is the folder of
all-MiniLM-L6-v2 (README.md here says where to get it).
"""

import argparse
import gzip
import json
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from sentence_transformers import SentenceTransformer

MAX_TOKENS = 512

# file, field, how many evenly spaced texts, longest of those in characters
SOURCES = [
    ("stsb/test.tsv", "sentence1", 10, 10_000),
    ("mix/dev.jsonl.gz", "query", 8, 10_000),
    ("mix/dev.jsonl.gz", "positive", 11, 900),
    ("pairs/medquad.jsonl.gz", "positive", 11, 900),
]
UNUSUAL_PER_SOURCE = 4
UNUSUAL_MAX_CHARS = 1_200


def read_texts(path, field):
    """The (1-based line, text) of every row of a .tsv or .jsonl.gz file."""
    if path.suffix == ".tsv":
        with open(path, encoding="utf-8", newline="\n") as f:
            rows = [line.rstrip("\n").split("\t") for line in f]
        column = rows[0].index(field)
        return [(n, row[column]) for n, row in enumerate(rows[1:], start=2)]
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as f:
        return [(n, json.loads(line)[field]) for n, line in enumerate(f, start=1)]


def choose(texts, evenly, max_chars):
    """Shortest, longest, evenly spaced ones, and ones rich in non-ASCII characters."""
    chosen = [min(texts, key=lambda t: len(t[1])), max(texts, key=lambda t: len(t[1]))]

    medium = [t for t in texts if len(t[1]) <= max_chars]
    chosen += [medium[i * len(medium) // evenly] for i in range(evenly)]

    seen = set()
    for _ in range(UNUSUAL_PER_SOURCE):  # greedy: most characters not seen yet
        new = lambda t: {c for c in t[1] if ord(c) > 127} - seen
        best = max((t for t in texts if len(t[1]) <= UNUSUAL_MAX_CHARS), key=lambda t: len(new(t)))
        if not new(best):
            break
        seen |= new(best)
        chosen.append(best)
    return sorted(set(chosen))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)

    where, texts = [], []
    for file, field, evenly, max_chars in SOURCES:
        for line, text in choose(read_texts(args.data / file, field), evenly, max_chars):
            where.append({"file": file, "line": line, "field": field})
            texts.append(text)

    model = SentenceTransformer(str(args.model), device="cpu", local_files_only=True)
    model.max_seq_length = MAX_TOKENS  # the folder says 256
    embeddings = model.encode(texts, batch_size=8, normalize_embeddings=True, convert_to_numpy=True)
    assert embeddings.dtype == np.float32

    # tokenizer.json asks for truncation to 128 and padding to 128; both are overridden here.
    ids = model.tokenizer(texts, truncation=True, max_length=MAX_TOKENS, padding=False)["input_ids"]
    uncut = model.tokenizer(texts, truncation=False, padding=False, verbose=False)["input_ids"]
    for place, cut, full in zip(where, ids, uncut):
        place |= {"tokens": len(cut), "truncated": len(full) > len(cut), "ids": cut}

    args.out.mkdir(parents=True, exist_ok=True)
    save_file({"embeddings": embeddings}, args.out / "minilm_embeddings.safetensors")
    rows = ",\n".join(json.dumps(place, separators=(",", ":")) for place in where)
    (args.out / "minilm_embeddings.json").write_text(
        f'{{"max_tokens":{MAX_TOKENS},"pooling":"mean","normalized":true,"texts":[\n{rows}\n]}}\n'
    )
    lengths = sorted(len(i) for i in ids)
    print(f"{len(texts)} texts, tokens {lengths}")


if __name__ == "__main__":
    main()
