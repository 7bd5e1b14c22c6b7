"""Times `mendel embed` beside sentence-transformers on the same passages and model, in turn, and compares the vectors.

    python3 benches/peers/encode_passages.py --mendel target/release/mendel --model FOLDER --texts corpus.jsonl.gz

Both take the whole time from texts to vectors. mendel's is that of the command and holds the start of the program and
the loading of the model; sentence-transformers' is that of `encode` alone. Its batches are of 32, as by default. "f32" is
sentence-transformers' without autocast.
"""

import argparse
import gzip
import json
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mendel", required=True)
    parser.add_argument("--model", required=True, help="a folder of sentence-transformers")
    parser.add_argument("--texts", required=True, help="JSONL with `text`, plain or gzip")
    parser.add_argument("--count", type=int, default=512)
    parser.add_argument("--precision", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


def main():
    options = arguments()
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(options.threads)
    opener = gzip.open if options.texts.endswith(".gz") else open
    with opener(options.texts, "rt", encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line, _ in zip(lines, range(options.count))]
    model = SentenceTransformer(options.model, device="cpu")
    seconds = {"sentence-transformers": [], "mendel": []}
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder, "texts.jsonl"), Path(folder, "vectors.npy")
        source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
        command = [options.mendel, "embed", "--quiet", "--model", options.model, "--precision", options.precision]
        command += ["--device", "cpu", "--threads", str(options.threads), "--output", str(output), str(source)]
        for _ in range(options.rounds):
            started = time.perf_counter()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=options.precision == "bf16"):
                theirs = model.encode(texts, normalize_embeddings=True)
            seconds["sentence-transformers"].append(time.perf_counter() - started)
            started = time.perf_counter()
            subprocess.run(command, check=True)
            seconds["mendel"].append(time.perf_counter() - started)
        ours = np.load(output)
    exact = model.encode(texts, normalize_embeddings=True)
    medians = {name: statistics.median(all_seconds) for name, all_seconds in seconds.items()}
    for name, median in medians.items():
        print(f"{name:22} {median:7.2f} s {len(texts) / median:8.1f} passages/s")
    print(f"ratio {medians['sentence-transformers'] / medians['mendel']:.2f}, {options.precision}")
    theirs = theirs.astype(np.float32)
    pairs = [("the two in this precision", ours, theirs), ("mendel and f32", ours, exact), ("sentence-transformers and f32", theirs, exact)]
    for name, a, b in pairs:
        apart, cosine = np.abs(a - b), (a * b).sum(1)
        print(
            f"{name:30} components within {apart.max():.2e}, {(apart > 1e-3).sum()} of {apart.size} over 1e-3, "
            f"1 - cosine within {1 - cosine.min():.1e}"
        )


if __name__ == "__main__":
    main()
