"""Options that say how the next token is chosen, with llama.cpp's names.

Every option defaults to "not given": the defaults are the model's recommendation, then those of `SamplingParams`.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import typer

from quipu.errors import UsageError
from quipu.types import SamplingParams

_sampling = partial(typer.Option, rich_help_panel="Sampling")

# Options that pass to the field of `SamplingParams` with the same name.
_SAME_NAME = (
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "typical_p",
    "repeat_penalty",
    "repeat_last_n",
    "presence_penalty",
    "frequency_penalty",
)


@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """How the next token is chosen and when to stop."""

    num_predict: Annotated[
        int | None,
        _sampling(
            "-n",
            "--n-predict",
            "--predict",
            metavar="N",
            help="most tokens to generate; -1: until the end, or the context is full",
        ),
    ] = None
    temperature: Annotated[
        float | None,
        _sampling("--temp", "--temperature", metavar="T", help="0 always takes the most likely token (0.8)"),
    ] = None
    top_k: Annotated[
        int | None,
        _sampling("--top-k", metavar="N", help="keep the N most likely tokens; 0 off (40)"),
    ] = None
    top_p: Annotated[
        float | None,
        _sampling("--top-p", metavar="P", help="keep the fewest tokens that together reach P; 1 off (0.95)"),
    ] = None
    min_p: Annotated[
        float | None,
        _sampling("--min-p", metavar="P", help="keep tokens at least P times as likely as the best; 0 off (0.05)"),
    ] = None
    typical_p: Annotated[
        float | None,
        _sampling("--typical", "--typical-p", metavar="P", help="locally typical sampling; 1 off (1)"),
    ] = None
    repeat_penalty: Annotated[
        float | None,
        _sampling("--repeat-penalty", metavar="X", help="above 1 makes recent tokens less likely; 1 off (1)"),
    ] = None
    repeat_last_n: Annotated[
        int | None,
        _sampling("--repeat-last-n", metavar="N", help="how many tokens count as recent; -1 all (64)"),
    ] = None
    presence_penalty: Annotated[
        float | None,
        _sampling("--presence-penalty", metavar="X", help="subtracted where a token occurred; 0 off (0)"),
    ] = None
    frequency_penalty: Annotated[
        float | None,
        _sampling("--frequency-penalty", metavar="X", help="subtracted per occurrence; 0 off (0)"),
    ] = None
    seed: Annotated[
        int | None,
        _sampling("-s", "--seed", metavar="N", help="the same number gives the same text; -1 random"),
    ] = None
    logit_bias: Annotated[
        list[str] | None,
        _sampling(
            "-l",
            "--logit-bias",
            metavar="ID±X",
            help="add X to a token's logit, such as 15043+1 or 15043-inf; may be repeated",
        ),
    ] = None
    stop: Annotated[
        list[str] | None,
        _sampling(
            "-r", "--reverse-prompt", "--stop", metavar="TEXT", help="end the answer before this text; may be repeated"
        ),
    ] = None
    ignore_eos: Annotated[bool, _sampling("--ignore-eos", help="go on after the end-of-text token")] = False

    def sampling_params(self, defaults: SamplingParams | None = None) -> SamplingParams:
        """The values given, over `defaults`.

        Args:
            defaults: what the model recommends; None: the defaults of `SamplingParams`.

        Raises:
            UsageError: a value is out of range or not readable.
        """
        values: dict[str, Any] = {name: getattr(self, name) for name in _SAME_NAME if getattr(self, name) is not None}
        if self.num_predict is not None:
            values["max_tokens"] = max_tokens(self.num_predict)
        if self.seed is not None and self.seed != -1:
            values["seed"] = self.seed
        values["logit_bias"] = dict(parse_logit_bias(text) for text in self.logit_bias or ())
        values |= {"stop": tuple(self.stop or ()), "ignore_eos": self.ignore_eos}
        return dataclasses.replace(defaults or SamplingParams(), **values)


def max_tokens(num_predict: int) -> int | None:
    """llama.cpp's `n_predict` as `SamplingParams.max_tokens`: -1 and -2 mean no limit but the context.

    Raises:
        UsageError: any other negative number.
    """
    if num_predict in (-1, -2):
        return None
    if num_predict < 0:
        raise UsageError(f"--n-predict must be 0 or more, or -1 for no limit, not {num_predict}")
    return num_predict


def parse_logit_bias(text: str) -> tuple[int, float]:
    """`15043+1`, `15043-2.5` or `15043-inf` as (token id, bias).

    Raises:
        UsageError: `text` has another form.
    """
    match = re.fullmatch(r"(\d+)([+-](?:inf|\d+(?:\.\d+)?))", text.strip())
    if match is None:
        raise UsageError(
            f"--logit-bias takes a token id, a sign and a number such as 15043+1 or 15043-inf, not {text!r}"
        )
    return int(match[1]), float(match[2])
