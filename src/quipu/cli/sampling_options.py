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

from quipu.cli.texts import unescape
from quipu.errors import UsageError
from quipu.types import SamplingParams, parse_samplers

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
    "top_n_sigma",
    "xtc_probability",
    "xtc_threshold",
    "dynatemp_range",
    "dynatemp_exponent",
    "dry_multiplier",
    "dry_base",
    "dry_allowed_length",
    "dry_penalty_last_n",
    "mirostat",
    "mirostat_tau",
    "mirostat_eta",
    "adaptive_target",
    "adaptive_decay",
    "min_keep",
    "min_tokens",
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
    samplers: Annotated[
        str | None,
        _sampling("--samplers", metavar="NAMES", help="the steps in their order, separated by semicolons"),
    ] = None
    sampler_seq: Annotated[
        str | None,
        _sampling("--sampler-seq", "--sampling-seq", metavar="LETTERS", help="the same, abbreviated (edskypmxt)"),
    ] = None
    min_keep: Annotated[
        int | None,
        _sampling("--min-keep", metavar="N", help="top-p, min-p, typical and XTC keep at least N tokens (1)"),
    ] = None
    min_tokens: Annotated[
        int | None,
        _sampling("--min-tokens", metavar="N", help="do not end before N tokens (0)"),
    ] = None
    top_n_sigma: Annotated[
        float | None,
        _sampling(
            "--top-nsigma",
            "--top-n-sigma",
            metavar="N",
            help="keep tokens within N standard deviations of the best logit; -1 off (-1)",
        ),
    ] = None
    xtc_probability: Annotated[
        float | None,
        _sampling(
            "--xtc-probability", metavar="P", help="how often likely tokens but the last are taken out; 0 off (0)"
        ),
    ] = None
    xtc_threshold: Annotated[
        float | None,
        _sampling("--xtc-threshold", metavar="P", help="which tokens XTC calls likely; above 0.5 off (0.1)"),
    ] = None
    dynatemp_range: Annotated[
        float | None,
        _sampling("--dynatemp-range", metavar="X", help="the temperature moves by X with the entropy; 0 off (0)"),
    ] = None
    dynatemp_exponent: Annotated[
        float | None,
        _sampling("--dynatemp-exp", metavar="X", help="power of the entropy that moves the temperature (1)"),
    ] = None
    dry_multiplier: Annotated[
        float | None,
        _sampling(
            "--dry-multiplier", metavar="X", help="strength of the penalty on repeated sequences (DRY); 0 off (0)"
        ),
    ] = None
    dry_base: Annotated[
        float | None,
        _sampling("--dry-base", metavar="X", help="growth of that penalty with each repeated token (1.75)"),
    ] = None
    dry_allowed_length: Annotated[
        int | None,
        _sampling("--dry-allowed-length", metavar="N", help="repetitions up to N tokens are free (2)"),
    ] = None
    dry_penalty_last_n: Annotated[
        int | None,
        _sampling(
            "--dry-penalty-last-n", metavar="N", help="how many tokens are searched for repetitions; -1 all (64)"
        ),
    ] = None
    dry_sequence_breaker: Annotated[
        list[str] | None,
        _sampling(
            "--dry-sequence-breaker",
            metavar="TEXT",
            help="repetitions do not reach across TEXT; may be repeated, replaces the defaults; none: no such text",
        ),
    ] = None
    mirostat: Annotated[
        int | None,
        _sampling(
            "--mirostat",
            metavar="N",
            help="1 or 2: hold the surprise steady in place of all other steps but the temperature; 0 off (0)",
        ),
    ] = None
    mirostat_eta: Annotated[
        float | None,
        _sampling("--mirostat-lr", "--mirostat-eta", metavar="X", help="how fast Mirostat learns (0.1)"),
    ] = None
    mirostat_tau: Annotated[
        float | None,
        _sampling(
            "--mirostat-ent", "--mirostat-tau", metavar="X", help="the surprise that Mirostat aims at, in bits (5)"
        ),
    ] = None
    adaptive_target: Annotated[
        float | None,
        _sampling(
            "--adaptive-target", metavar="P", help="choose tokens near this probability on average; negative off (-1)"
        ),
    ] = None
    adaptive_decay: Annotated[
        float | None,
        _sampling("--adaptive-decay", metavar="X", help="how slowly that average forgets, up to 0.99 (0.9)"),
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
        if self.samplers is not None and self.sampler_seq is not None:
            raise UsageError("give the order of the steps with --samplers or with --sampler-seq, not both")
        order = self.samplers if self.sampler_seq is None else self.sampler_seq
        if order is not None:
            values["samplers"] = parse_samplers(order)
        if self.dry_sequence_breaker is not None:
            values["dry_sequence_breakers"] = parse_breakers(self.dry_sequence_breaker)
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


def parse_breakers(texts: list[str]) -> tuple[str, ...]:
    """What was given as sequence breakers. As in llama.cpp, `none` drops those before it."""
    last_none = max((place for place, text in enumerate(texts) if text == "none"), default=-1)
    return tuple(unescape(text) for text in texts[last_none + 1 :])


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
