"""Times `mendel embed` beside sentence-transformers on the same passages and model, in turn, and compares the vectors.

    python3 benches/peers/encode_passages.py --mendel target/release/mendel --model FOLDER --texts corpus.jsonl.gz

Both take the whole time from texts to vectors. mendel's is that of the command and holds the start of the program and
the loading of the model, which are also timed by themselves, with one text; sentence-transformers' is that of `encode`
alone, in batches of 32, as by default. In bf16 it runs under autocast, as mendel does, which is what is compared, and
besides with the whole model in bf16, which rounds the sums between layers too and so is further from f32. With
--text-by-text autocast is also compared with itself by batches of one text, untimed.
"""

import argparse
import copy
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
    parser.add_argument("--text-by-text", action="store_true", help="of bf16: compare autocast with itself")
    options = parser.parse_args()
    if options.text_by_text and options.precision != "bf16":
        parser.error("--text-by-text compares autocast, which is of --precision bf16")
    return options


def peers(torch, model, options):
    """What encodes texts in the precision asked for, by name."""

    def encode(texts, **batches):
        return model.encode(texts, normalize_embeddings=True, **batches)

    def autocast(texts, **batches):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return encode(texts, **batches)

    if options.precision == "f32":
        return {"sentence-transformers": encode}
    rounded = copy.deepcopy(model).bfloat16()

    def whole(texts):
        return rounded.encode(texts, normalize_embeddings=True, convert_to_tensor=True).float().numpy()

    return {"sentence-transformers, autocast": autocast, "sentence-transformers, bf16": whole}


def main():
    options = arguments()
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(options.threads)
    opener = gzip.open if options.texts.endswith(".gz") else open
    with opener(options.texts, "rt", encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line, _ in zip(lines, range(options.count))]
    model = SentenceTransformer(options.model, device="cpu")
    encoders = peers(torch, model, options)
    seconds = {}

    def timed(name, work):
        started = time.perf_counter()
        result = work()
        seconds.setdefault(name, []).append(time.perf_counter() - started)
        return result

    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "vectors.npy")
        command = [options.mendel, "embed", "--quiet", "--model", options.model, "--precision", options.precision]
        command += ["--device", "cpu", "--threads", str(options.threads), "--output", str(output)]

        def source(name, texts):
            path = Path(folder, name)
            path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
            return [*command, str(path)]

        one, all_texts = source("one.jsonl", texts[:1]), source("texts.jsonl", texts)
        for _ in range(options.rounds):
            encoded = {name: timed(name, lambda: encode(texts)) for name, encode in encoders.items()}
            timed("mendel, one text", lambda: subprocess.run(one, check=True))
            timed("mendel", lambda: subprocess.run(all_texts, check=True))
        ours = np.load(output)
    exact = model.encode(texts, normalize_embeddings=True)
    medians = {name: statistics.median(all_seconds) for name, all_seconds in seconds.items()}
    start = medians.pop("mendel, one text")
    for name, median in medians.items():
        print(f"{name:32} {median:7.2f} s {len(texts) / median:8.1f} passages/s")
    for peer in encoders:
        print(
            f"{medians[peer] / medians['mendel']:.2f} times {peer}, {options.precision}; "
            f"{medians[peer] / (medians['mendel'] - start):.2f} without the start of {start:.2f} s"
        )
    first = next(iter(encoders))
    pairs = [(f"mendel and {first}", ours, encoded[first]), ("mendel and f32", ours, exact)]
    if options.text_by_text:
        pairs.append((f"{first}, and text by text", encoded[first], encoders[first](texts, batch_size=1)))
    pairs += [(f"{name} and f32", vectors, exact) for name, vectors in encoded.items()]
    for name, a, b in pairs:
        apart, cosine = np.abs(a - b), (a * b).sum(1)
        print(
            f"{name:49} components within {apart.max():.2e}, {(apart > 1e-3).sum()} of {apart.size} over 1e-3, "
            f"1 - cosine within {1 - cosine.min():.1e}"
        )


if __name__ == "__main__":
    main()
