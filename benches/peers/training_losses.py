"""Losses of a short training of a dual encoder in PyTorch, as a fixture.

Makes training_losses.json: per step the loss, the gradient norm before clipping
and the learning rate; after the last step the L2 norm (in f64) of some
parameters and of their change.

One shared BERT encoder, all dropout off, f32, CPU. Mean pooling over the valid
tokens, L2-normalised (norm at least 1e-12), scores q.p / temperature, loss = mean
cross entropy over the passages of the batch. Texts are cut to 128 tokens with [CLS]
and [SEP], no prefix, padded to the longest of their batch.

Equal texts are never each other's negatives: for query i, passage j != i gets the
score -inf if its text equals positive i, or if it is the positive of a query whose
text equals query i.

AdamW (betas 0.9/0.999, eps 1e-8, weight decay 0.01, but 0 on biases and LayerNorm),
global gradient norm clipped to 1, learning rate 2e-5 times (k+1)/w for step k < w,
then (n-k)/(n-w), for n steps of which w warm up. The pooler is not used.

Rows are named by their 1-based lines in mix/train.jsonl.gz, in batches of 8:
- in_batch: the first 160 rows, temperature 0.05 as in the others (the model knows
  these texts well: the losses are tiny, and rounding is a large part of them);
- in_batch_soft: the same at temperature 0.5, where the losses are of order 1;
- hard_negatives: the first 64 rows with "negatives"; the passages are the 8
  positives and then the first negative of each row;
- equal_texts: rows that share a query or a positive within their batch, so that
  the mask matters (the others have nothing to mask).

Install: pip install -r benches/peers/requirements.txt
Run:     python benches/peers/training_losses.py DATA MODEL crates/mendel/tests/fixtures

With --double everything is computed in f64 and only printed: how far rounding
alone moves the numbers.
"""

import argparse
import gzip
import json
from pathlib import Path

import torch
import torch.nn.functional as F
from transformers import AutoTokenizer, BertModel, logging

FILE = "mix/train.jsonl.gz"
BATCH, MAX_TOKENS = 8, 128
PEAK_RATE, WEIGHT_DECAY, MAX_NORM = 2e-5, 0.01, 1.0
CHECKED = [
    "embeddings.word_embeddings.weight",
    "embeddings.LayerNorm.weight",
    "encoder.layer.0.attention.self.query.weight",
    "encoder.layer.2.attention.output.dense.weight",
    "encoder.layer.3.intermediate.dense.bias",
    "encoder.layer.5.output.dense.weight",
    "encoder.layer.5.output.LayerNorm.bias",
]


def rows_with_equal_texts(rows, pairs):
    """Lines of pairs of rows: in turn one pair sharing its query, one its positive."""
    found = {"query": [], "positive": []}
    for field, other in (("query", "positive"), ("positive", "query")):
        first = {}
        for line, row in rows.items():
            earlier = first.setdefault(row[field], line)
            if earlier is not None and row[other] != rows[earlier][other]:
                found[field].append((earlier, line))
                first[row[field]] = None  # one pair of each text
    both = zip(found["query"][: pairs // 2], found["positive"])
    return [line for two in both for pair in two for line in pair]


def embed(model, tokenizer, texts):
    # tokenizer.json asks for truncation to 128 and padding to 128; both are overridden here.
    inputs = tokenizer(
        texts, truncation=True, max_length=MAX_TOKENS, padding="longest", return_tensors="pt"
    )
    hidden = model(**inputs).last_hidden_state
    valid = inputs["attention_mask"].unsqueeze(-1).to(hidden.dtype)
    return F.normalize((hidden * valid).sum(1) / valid.sum(1), dim=1, eps=1e-12)


def masked(queries, positives, passages):
    n = len(queries)
    equal = lambda i, j: passages[j] == positives[i] or (j < n and queries[j] == queries[i])
    return torch.tensor([[i != j and equal(i, j) for j in range(len(passages))] for i in range(n)])


def train(model_folder, rows, lines, warmup, temperature, hard_negatives, dtype):
    tokenizer = AutoTokenizer.from_pretrained(model_folder, local_files_only=True)
    model = BertModel.from_pretrained(
        model_folder,
        local_files_only=True,
        add_pooling_layer=False,
        attn_implementation="eager",
        dtype=dtype,
    ).eval()  # eval: no dropout; gradients are computed all the same
    params = dict(model.named_parameters())
    before = {name: params[name].detach().double().clone() for name in CHECKED}

    plain = [p for name, p in params.items() if name.endswith(".bias") or "LayerNorm" in name]
    decayed = [p for name, p in params.items() if not (name.endswith(".bias") or "LayerNorm" in name)]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": plain, "weight_decay": 0.0}],
        lr=PEAK_RATE,
        betas=(0.9, 0.999),
        eps=1e-8,
    )
    total = len(lines) // BATCH
    steps = []
    for k in range(total):
        batch = [rows[line] for line in lines[k * BATCH : (k + 1) * BATCH]]
        queries = [row["query"] for row in batch]
        positives = [row["positive"] for row in batch]
        passages = positives + ([row["negatives"][0] for row in batch] if hard_negatives else [])
        mask = masked(queries, positives, passages)

        scores = embed(model, tokenizer, queries) @ embed(model, tokenizer, passages).T / temperature
        loss = F.cross_entropy(scores.masked_fill(mask, float("-inf")), torch.arange(BATCH))

        factor = (k + 1) / warmup if k < warmup else (total - k) / (total - warmup)
        for group in optimizer.param_groups:
            group["lr"] = PEAK_RATE * factor
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(params.values(), MAX_NORM)
        optimizer.step()
        steps.append(
            {
                "loss": loss.item(),
                "grad_norm": norm.item(),
                "learning_rate": PEAK_RATE * factor,
                "masked": int(mask.sum()),
            }
        )
        print(f"{k:3} loss {loss.item():.9f} norm {norm.item():.6f} masked {int(mask.sum())}", flush=True)

    after = {
        name: {
            "norm": params[name].detach().double().norm().item(),
            "change_norm": (params[name].detach().double() - before[name]).norm().item(),
        }
        for name in CHECKED
    }
    for name, value in after.items():
        print(f"    {name} {value['norm']:.9f} {value['change_norm']:.9f}")
    return {
        "hard_negatives": hard_negatives,
        "temperature": temperature,
        "warmup_steps": warmup,
        "lines": lines,
        "steps": steps,
        "parameters": after,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--double", action="store_true", help="compute in f64, write nothing")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    logging.set_verbosity_error()
    logging.disable_progress_bar()

    with gzip.open(args.data / FILE, "rt", encoding="utf-8", newline="\n") as f:
        rows = {line: json.loads(text) for line, text in enumerate(f, start=1)}
    configurations = {
        # lines, warm-up steps, temperature, hard negatives
        "in_batch": (list(range(1, 161)), 5, 0.05, False),
        "in_batch_soft": (list(range(1, 161)), 5, 0.5, False),
        "hard_negatives": ([n for n, row in rows.items() if row.get("negatives")][:64], 2, 0.05, True),
        "equal_texts": (rows_with_equal_texts(rows, pairs=16), 1, 0.05, False),
    }
    result = {
        "file": FILE,
        "batch": BATCH,
        "max_tokens": MAX_TOKENS,
        "peak_learning_rate": PEAK_RATE,
        "betas": [0.9, 0.999],
        "eps": 1e-8,
        "weight_decay": WEIGHT_DECAY,
        "max_grad_norm": MAX_NORM,
        "configurations": {},
    }
    dtype = torch.float64 if args.double else torch.float32
    for name, (lines, *settings) in configurations.items():
        print(name)
        result["configurations"][name] = train(args.model, rows, lines, *settings, dtype)
    if not args.double:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "training_losses.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
