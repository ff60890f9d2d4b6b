"""Training: `python -m tiny.train FOLDER` makes the vocabulary and both models, and resumes where it was stopped.

FOLDER holds checkpoints, a log of every 20 steps (NAME.jsonl), and in the end the GGUF files. Everything is seeded.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F

from quipu.tokenizer import Tokenizer
from tiny.batches import Batch, batches
from tiny.checkpoint import load_checkpoint, save_checkpoint
from tiny.export import export
from tiny.model import TinyModel
from tiny.optimizer import make_optimizers
from tiny.recipes import RECIPES, SEED, Recipe
from tiny.vocabulary import open_vocabulary, write_vocabulary

CHECKPOINT_S = 300
LOG_STEPS = 20


def train(
    recipe: Recipe,
    tokenizer: Tokenizer,
    folder: Path,
    device: torch.device,
    *,
    num_steps: int | None = None,
    compiled: bool = False,
) -> TinyModel:
    """Train a model from its last checkpoint on, or from the beginning.

    Args:
        folder: of the checkpoint and the log.
        num_steps: stop after so many steps; None: after those of the recipe.
        compiled: have PyTorch compile the model, which takes a minute and saves an eighth of the time after it.
    """
    last = recipe.num_steps if num_steps is None else num_steps
    torch.manual_seed(SEED)
    model: TinyModel = TinyModel(recipe.config).to(device)
    forward = torch.compile(model, dynamic=True) if compiled else model
    optimizers = make_optimizers(model, recipe.matrix_lr, recipe.other_lr)
    checkpoint = folder / f"{recipe.name}.safetensors"
    start = load_checkpoint(checkpoint, model, optimizers) if checkpoint.exists() else 0
    print(f"{recipe.name}: {sum(p.numel() for p in model.parameters()):,} parameters, from step {start}", flush=True)
    source = batches(
        tokenizer, SEED, start, batch_tokens=recipe.batch_tokens, context_length=recipe.config.context_length
    )
    progress = Progress(recipe, folder / f"{recipe.name}.jsonl", start)
    saved_s = time.monotonic()
    for step in range(start, last):
        for optimizer, peak in zip(optimizers, (recipe.matrix_lr, recipe.other_lr), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = peak * recipe.lr_factor(step)
        batch = next(source)
        loss = compute_loss(model, forward, batch, device)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        progress.add(step, loss.item(), batch.ids.size)
        if time.monotonic() - saved_s > CHECKPOINT_S or step + 1 == last:
            save_checkpoint(checkpoint, model, optimizers, step + 1)
            saved_s = time.monotonic()
    return model


def compute_loss(
    model: TinyModel, forward: Callable[[torch.Tensor], torch.Tensor], batch: Batch, device: torch.device
) -> torch.Tensor:
    """Weighted mean of the cross-entropy over the tokens that are to be learned.

    Args:
        forward: the model, or its compiled form.
    """
    ids = torch.from_numpy(batch.ids).to(device)
    weights = torch.from_numpy(batch.weights).to(device)[:, 1:]
    learned = weights > 0
    hidden = forward(ids[:, :-1])[learned]  # [learned tokens, hidden]
    losses = F.cross_entropy(model.logits(hidden), ids[:, 1:][learned], reduction="none")
    return (losses * weights[learned]).sum() / weights.sum()


class Progress:
    """Prints and logs how the training goes."""

    def __init__(self, recipe: Recipe, log: Path, start: int) -> None:
        self._recipe, self._log = recipe, log
        self._losses: list[float] = []
        self._num_tokens = 0
        self._since_s = self._begin_s = time.monotonic()
        self._start = start

    def add(self, step: int, loss: float, num_tokens: int) -> None:
        self._losses.append(loss)
        self._num_tokens += num_tokens
        if (step + 1) % LOG_STEPS and step + 1 != self._recipe.num_steps:
            return
        now_s = time.monotonic()
        mean = sum(self._losses) / len(self._losses)
        speed = self._num_tokens / (now_s - self._since_s)
        done = step + 1 - self._start
        left_s = (now_s - self._begin_s) / done * (self._recipe.num_steps - step - 1)
        print(
            f"{self._recipe.name} step {step + 1}/{self._recipe.num_steps}  loss {mean:.4f}  {speed:,.0f} tokens/s  "
            f"{left_s / 60:.1f} min left",
            flush=True,
        )
        entry = {
            "step": step + 1,
            "loss": round(mean, 5),
            "tokens_per_second": round(speed),
            "elapsed_s": round(now_s - self._begin_s, 1),
        }
        with self._log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        self._losses, self._num_tokens, self._since_s = [], 0, now_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where checkpoints and results go; keep it outside the tree")
    parser.add_argument("--only", choices=RECIPES, help="train one of the models")
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = folder / "vocabulary.gguf"
    if not vocabulary.exists():
        print("learning the vocabulary", flush=True)
        write_vocabulary(vocabulary, SEED)
    tokenizer = open_vocabulary(vocabulary)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for recipe in RECIPES.values():
        if arguments.only in (None, recipe.name):
            model = train(recipe, tokenizer, folder, device, compiled=True)
            weights = {name: parameter.detach().cpu().numpy() for name, parameter in model.named_parameters()}
            for path in export(recipe, weights, vocabulary, folder):
                print(f"wrote {path} ({path.stat().st_size:,} bytes)")


if __name__ == "__main__":
    main()
