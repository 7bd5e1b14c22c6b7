"""Times a training step of `mendel bench` beside the same work in PyTorch, in turn, and prints the ratio.

    python3 benches/peers/torch_step.py --mendel target/release/mendel --shape minilm --pairs 32 --precision bf16

The peer is Transformers' BertModel (sdpa) as its users run it: queries and passages padded to the longest of the
batch, `torch.autocast` for bf16, in-batch InfoNCE on mean-pooled unit vectors, clipping at 1, fused AdamW; eager and
compiled, of which the better counts. Every measurement is a process of its own, so that its peak memory is its own.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time

QUERY_LENGTHS = [6, 7, 8, 8, 9, 9, 10, 11, 12, 15]
PASSAGE_LENGTHS = [35, 50, 60, 68, 75, 82, 92, 105, 125, 170]
SHAPES = {"minilm": (6, 384, 12, 1536), "bert-base": (12, 768, 12, 3072)}
VOCABULARY, CLS, SEP, WORDS = 30522, 101, 102, (1000, 30000)
TEMPERATURE, LEARNING_RATE, WEIGHT_DECAY = 0.05, 2e-5, 0.01


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="minilm")
    parser.add_argument("--pairs", type=int, default=32)
    parser.add_argument("--precision", choices=["f32", "bf16"], default="bf16")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10, help="measured steps of each process")
    parser.add_argument("--rounds", type=int, default=1, help="how often all take their turn")
    parser.add_argument("--modes", default="eager,compile", help="of the peer")
    parser.add_argument("--mendel", help="the binary to compare with; without it the peer alone is timed")
    parser.add_argument("--arms", default="standard", help="of mendel: more than one shares the process")
    parser.add_argument("--one", choices=["eager", "compile"], help=argparse.SUPPRESS)
    return parser.parse_args()


def padded_batch(torch, lengths, pairs, device):
    """Random words between [CLS] and [SEP], padded with 0 to the longest."""
    counts = [lengths[pair % 10] for pair in range(pairs)]
    ids = torch.zeros(pairs, max(counts), dtype=torch.long)
    for row, count in enumerate(counts):
        ids[row, :count] = torch.randint(*WORDS, (count,))
        ids[row, 0], ids[row, count - 1] = CLS, SEP
    return {"input_ids": ids.to(device), "attention_mask": (ids > 0).long().to(device)}


def time_torch(options, compiled):
    """Seconds of each step, and the process's (or the device's) largest memory in 10⁹ bytes."""
    import torch
    from torch.nn.functional import cross_entropy, normalize
    from transformers import BertConfig, BertModel

    torch.manual_seed(1)
    torch.set_num_threads(options.threads)
    layers, hidden, heads, intermediate = SHAPES[options.shape]
    config = BertConfig(
        vocab_size=VOCABULARY,
        num_hidden_layers=layers,
        hidden_size=hidden,
        num_attention_heads=heads,
        intermediate_size=intermediate,
    )
    config._attn_implementation = "sdpa"
    model = BertModel(config, add_pooling_layer=False).to(options.device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True)
    sides = [padded_batch(torch, lengths, options.pairs, options.device) for lengths in (QUERY_LENGTHS, PASSAGE_LENGTHS)]
    targets = torch.arange(options.pairs, device=options.device)

    def embed(texts):
        tokens = model(**texts).last_hidden_state
        mask = texts["attention_mask"].unsqueeze(-1).to(tokens.dtype)
        return normalize((tokens * mask).sum(1) / mask.sum(1), dim=-1)

    def loss_of():
        with torch.autocast(options.device, dtype=torch.bfloat16, enabled=options.precision == "bf16"):
            queries, passages = map(embed, sides)
            return cross_entropy(queries @ passages.T / TEMPERATURE, targets)

    forward = torch.compile(loss_of) if compiled else loss_of

    def step():
        optimizer.zero_grad(set_to_none=True)
        forward().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if options.device == "cuda":
            torch.cuda.synchronize()

    seconds = []
    for _ in range(options.warmup + options.steps):
        started = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - started)
    if options.device == "cuda":
        peak = torch.cuda.max_memory_allocated()
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"seconds": seconds[options.warmup :], "peak_memory_gb": peak / 1e9, "version": torch.__version__}


def run_torch(options, mode):
    """The peer in a process of its own; `None` where it cannot run in this mode."""
    passed = ["shape", "pairs", "precision", "device", "threads", "warmup", "steps"]
    command = [sys.executable, __file__, "--one", mode]
    for name in passed:
        command += [f"--{name}", str(getattr(options, name))]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        print(f"torch {mode} failed: {(done.stderr.strip().splitlines() or ['?'])[-1]}", file=sys.stderr)
        return None
    return json.loads(done.stdout.splitlines()[-1])


def run_mendel(options):
    """The arms of one `mendel bench`, by name."""
    command = [options.mendel, "bench", "--json"]
    for name in ["shape", "pairs", "precision", "device", "threads", "steps", "arms"]:
        command += [f"--{name}", str(getattr(options, name))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    measured = json.loads(done.stdout)
    return {
        arm["arm"]: {
            "seconds": arm["step_seconds"]["all"],
            "peak_memory_gb": arm["peak_memory_gb"],
            "time_ratio": arm["time_ratio"],
        }
        for arm in measured["arms"]
    }


def turn(options):
    """Each measurement once, by name."""
    for mode in options.modes.split(","):
        yield f"torch {mode}", run_torch(options, mode)
    if options.mendel:
        for arm, result in run_mendel(options).items():
            yield f"mendel {arm}", result


def main():
    options = arguments()
    if options.one:
        print(json.dumps(time_torch(options, options.one == "compile")))
        return
    measured = {}
    for _ in range(options.rounds):
        for name, result in turn(options):
            if result:
                measured.setdefault(name, []).append(result)
                print(f"  {name}: {1000 * statistics.median(result['seconds']):.1f} ms", file=sys.stderr, flush=True)
    print(f"{options.shape}, {options.pairs} pairs, {options.precision}, {options.device}, {options.threads} threads")
    medians, memory = {}, {}
    for name, results in measured.items():
        medians[name] = statistics.median(second for result in results for second in result["seconds"])
        memory[name] = max(result["peak_memory_gb"] for result in results)
        pairs = options.pairs / medians[name]
        print(f"{name:18} {1000 * medians[name]:9.1f} ms/step {pairs:9.1f} pairs/s {memory[name]:7.2f} GB")
    peer = min((name for name in medians if name.startswith("torch")), key=medians.get, default=None)
    for name in medians:
        if peer and name.startswith("mendel"):
            speed, share = medians[peer] / medians[name], memory[name] / memory[peer]
            print(f"{name} over {peer}: {speed:.2f} times the pairs per second, {share:.2f} of the memory")
    for arm in options.arms.split(",")[1:] if options.mendel else []:
        ratio = statistics.median(result["time_ratio"] for result in measured[f"mendel {arm}"])
        print(f"mendel {arm} over {options.arms.split(',')[0]}: {ratio:.3f} times the time of a step")


if __name__ == "__main__":
    main()
