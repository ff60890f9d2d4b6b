"""The loss over a training as a picture: `python -m tiny.plot FOLDER OUT.svg`, from the logs of the training."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

WIDTH, HEIGHT = 640, 320
LEFT, RIGHT, TOP, BOTTOM = 56, 150, 20, 40
COLOURS = ("#1f6feb", "#d1495b")
TICKS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)

Curve = list[tuple[int, float]]  # (step, loss)


def read_log(path: Path) -> Curve:
    entries = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return sorted({entry["step"]: entry["loss"] for entry in entries}.items())  # a resumed training repeats some


def draw(curves: dict[str, Curve]) -> str:
    """An SVG with one line per model, the loss on a logarithmic scale."""
    steps = max(step for curve in curves.values() for step, _ in curve)
    losses = [loss for curve in curves.values() for _, loss in curve]
    low, high = math.log(min(losses) * 0.8), math.log(max(losses) * 1.2)

    def x(step: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * step / steps

    def y(loss: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - math.log(loss)) / (high - low)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
    ]
    for loss in (tick for tick in TICKS if low < math.log(tick) < high):
        parts.append(f'<path d="M{LEFT} {y(loss):.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y(loss) + 4:.1f}" text-anchor="end">{loss:g}</text>')
    for step in range(0, steps + 1, 10 ** int(math.log10(steps)) // 2 or 1):
        parts.append(f'<text x="{x(step):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{step}</text>')
    parts.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 6}" text-anchor="middle">step</text>')
    parts.append(f'<text x="14" y="{HEIGHT / 2}" transform="rotate(-90 14 {HEIGHT / 2})">loss</text>')
    for colour, (name, curve) in zip(COLOURS, curves.items(), strict=False):
        points = " ".join(f"{x(step):.1f},{y(loss):.1f}" for step, loss in curve)
        last_step, last_loss = curve[-1]
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        parts.append(
            f'<text x="{x(last_step) + 6:.1f}" y="{y(last_loss) + 4:.1f}" fill="{colour}">{name} {last_loss:.3f}</text>'
        )
    return "\n".join([*parts, "</svg>"]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="the folder of the training")
    parser.add_argument("out", type=Path, help="the picture to write")
    arguments = parser.parse_args()
    logs = sorted(arguments.folder.glob("*.jsonl"))
    if not logs:
        raise SystemExit(f"there is no log (*.jsonl) in {arguments.folder}; give the folder of a training")
    arguments.out.write_text(draw({log.stem: read_log(log) for log in logs}), encoding="utf-8")


if __name__ == "__main__":
    main()
