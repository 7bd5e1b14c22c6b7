#!/usr/bin/env python3
"""Draws the MRR@10 and loss curves of a run as an SVG, from the run's artefacts folder.

    python3 docs/figures/demo_curves.py artefacts docs/figures/demo.svg

Reads history/<arm>-seed<k>.jsonl of every arm. Needs nothing but the standard library. The colours
are of middle brightness and the background is transparent, so that one file serves light and dark
pages.
"""

import json
import math
import sys
from html import escape
from pathlib import Path

GREY = "#7a828c"
# A wide pale line under a thin dark one: two arms that agree are both seen.
STYLES = [
    {"colour": "#4493f8", "width": 6, "opacity": 0.55, "marker": 0},
    {"colour": "#e5730b", "width": 2, "opacity": 1, "marker": 3.6},
    {"colour": "#2da44e", "width": 2, "opacity": 1, "marker": 3.6},
    {"colour": "#bf5fd0", "width": 2, "opacity": 1, "marker": 3.6},
]
WIDTH, HEIGHT = 880, 340
TOP, BOTTOM = 76, 292
PANELS = {"left": (44, 412), "right": (492, 860)}


def read_arms(folder):
    """Each arm's name with its points: (step, MRR@10) and (step, loss)."""
    arms = []
    for path in sorted(folder.glob("history/*.jsonl"), key=lambda path: (not path.name.startswith("standard"), path)):
        name = path.stem.rsplit("-seed", 1)[0]
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        mrr = [(row["step"], row["mrr@10"]) for row in rows if row["kind"] == "evaluation"]
        loss = [(row["step"], row["loss"]) for row in rows if row["kind"] == "step"]
        arms.append((name, mrr, loss))
    if not arms:
        sys.exit(f"no history/*.jsonl in {folder}")
    return arms


def text(x, y, content, size=13, anchor="middle", weight="400", fill=GREY):
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" '
        f'text-anchor="{anchor}" fill="{fill}">{escape(content)}</text>'
    )


def line(x1, y1, x2, y2, opacity):
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
        f'stroke="{GREY}" stroke-width="1" stroke-opacity="{opacity}"/>'
    )


def panel(side, title, curves, steps, ticks, scale, markers):
    """Axes and one curve per arm. `scale` takes a value to [0, 1]; `ticks` are (value, label)."""
    left, right = PANELS[side]
    across = lambda step: left + (right - left) * step / steps
    up = lambda value: BOTTOM - (BOTTOM - TOP) * scale(value)
    parts = [text(left, TOP - 16, title, 15, "start", "600")]
    for value, label in ticks:
        parts.append(line(left, up(value), right, up(value), 0.28))
        parts.append(text(left - 8, up(value) + 4.5, label, 12.5, "end"))
    for quarter in range(5):
        step = steps * quarter // 4
        parts.append(line(across(step), BOTTOM, across(step), BOTTOM + 5, 0.7))
        parts.append(text(across(step), BOTTOM + 20, str(step), 12.5))
    parts.append(line(left, BOTTOM, right, BOTTOM, 0.7))
    parts.append(text((left + right) / 2, BOTTOM + 40, "step", 12.5))
    for points, style in zip(curves, STYLES):
        path = " ".join(f"{across(step):.1f},{up(value):.1f}" for step, value in points)
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{style["colour"]}" stroke-width="{style["width"]}" '
            f'stroke-opacity="{style["opacity"]}" stroke-linejoin="round" stroke-linecap="round"/>'
        )
        if markers and style["marker"]:
            parts += [
                f'<circle cx="{across(step):.1f}" cy="{up(value):.1f}" r="{style["marker"]}" fill="{style["colour"]}"/>'
                for step, value in points
            ]
    return parts


def legend(arms):
    parts, x = [], PANELS["left"][0]
    for (name, mrr, _), style in zip(arms, STYLES):
        label = f"{name}  {mrr[-1][1]:.3f}" if mrr else name
        parts.append(
            f'<line x1="{x}" y1="18" x2="{x + 28}" y2="18" stroke="{style["colour"]}" '
            f'stroke-width="{style["width"]}" stroke-opacity="{style["opacity"]}" stroke-linecap="round"/>'
        )
        parts.append(text(x + 38, 22.5, label, 14, "start", "600"))
        x += 38 + 8.5 * len(label) + 34
    return parts


def draw(arms):
    steps = max(step for _, mrr, loss in arms for step, _ in mrr + loss)
    losses = [value for _, _, loss in arms for _, value in loss if value and value > 0]
    low, high = math.floor(math.log10(min(losses))), math.ceil(math.log10(max(losses)))
    logarithm = lambda value: (math.log10(max(value, 10.0**low)) - low) / (high - low)
    mrr_ticks = [(value / 5, f"{value / 5:.1f}") for value in range(6)]
    loss_ticks = [(10.0**power, f"{10.0 ** power:g}") for power in range(low, high + 1)]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="-apple-system, BlinkMacSystemFont, Segoe UI, Helvetica, Arial, sans-serif" role="img" '
        'aria-label="MRR@10 and training loss by step, one curve per arm">'
    ]
    parts += legend(arms)
    parts += panel(
        "left", "MRR@10, held-out queries", [mrr for _, mrr, _ in arms], steps, mrr_ticks, lambda value: value, True
    )
    parts += panel(
        "right", "Training loss, logarithmic", [loss for _, _, loss in arms], steps, loss_ticks, logarithm, False
    )
    return "\n".join(parts + ["</svg>", ""])


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    Path(sys.argv[2]).write_text(draw(read_arms(Path(sys.argv[1]))))
