"""The options of `quipu run`, and what follows from them: the model, the mode, the texts.

Everything here is a function of the options and of what the file offers, so that it is tested without a model.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from quipu.chat import check_tools, read_tools
from quipu.cli.constraint_options import ConstraintOptions
from quipu.cli.load_options import LoadOptions
from quipu.cli.sampling_options import SamplingOptions
from quipu.cli.texts import checked_text, read_text, unescape
from quipu.errors import UsageError

_model = partial(typer.Option, rich_help_panel="Model")
_prompt = partial(typer.Option, rich_help_panel="Prompt")
_conversation = partial(typer.Option, rich_help_panel="Conversation")
_context = partial(typer.Option, rich_help_panel="Context")
_output = partial(typer.Option, rich_help_panel="Output")


class Mode(Enum):
    """What `quipu run` does with the texts it was given."""

    COMPLETE = "complete"  # continue the raw text and leave
    ANSWER = "answer"  # one turn through the chat template and leave
    CONVERSE = "converse"  # read turn after turn


@dataclass(frozen=True, kw_only=True)
class RunOptions(ConstraintOptions, SamplingOptions, LoadOptions):
    """Everything that can follow `quipu run`."""

    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL] [PROMPT...]",
            help="GGUF file (unless -m names it) and the words of a prompt",
            show_default=False,
        ),
    ] = None
    model_url: Annotated[
        str | None,
        _model("-mu", "--model-url", metavar="URL", help="not supported yet: download the file first"),
    ] = None
    prompt: Annotated[
        str | None,
        _prompt(
            "-p", "--prompt", metavar="TEXT", help="what to answer or to complete; text on standard input is appended"
        ),
    ] = None
    file: Annotated[
        str | None,
        _prompt("-f", "--file", metavar="FILE", help="read the prompt from a file"),
    ] = None
    system: Annotated[
        str | None,
        _prompt("-sys", "--system", "--system-prompt", metavar="TEXT", help="the system message"),
    ] = None
    system_file: Annotated[
        str | None,
        _prompt(
            "-sysf", "--system-file", "--system-prompt-file", metavar="FILE", help="read the system message from a file"
        ),
    ] = None
    escape: Annotated[
        bool | None,
        _prompt(
            "-e", "--escape/--no-escape", help=r"read \n, \t, \\, \' and \" in prompts as the characters they stand for"
        ),
    ] = None
    chat_template: Annotated[
        str | None,
        _prompt(
            "--chat-template",
            metavar="NAME",
            help="a built-in chat template such as chatml, or a file, in place of the model's own",
        ),
    ] = None
    chat_template_file: Annotated[
        str | None,
        _prompt("--chat-template-file", metavar="FILE", help="a chat template in a file"),
    ] = None

    context_shift: Annotated[
        bool,
        _context(
            "--context-shift/--no-context-shift",
            help="when the context is full, drop the oldest half of it and go on; not given: the text ends there",
        ),
    ] = False
    keep: Annotated[
        int | None,
        _context("--keep", metavar="N", help="tokens of the prompt that --context-shift never drops; -1: all"),
    ] = None
    prompt_cache: Annotated[
        str | None,
        _context(
            "--prompt-cache",
            metavar="FILE",
            help="start from the keys and values in FILE, if it exists, and write those of the last answer to it",
        ),
    ] = None
    prompt_cache_ro: Annotated[
        bool,
        _context("--prompt-cache-ro", help="only read the file of --prompt-cache"),
    ] = False
    prompt_cache_all: Annotated[
        bool,
        _context("--prompt-cache-all", help="accepted; answers are always saved with the prompt"),
    ] = False

    conversation: Annotated[
        bool | None,
        _conversation(
            "-cnv/-no-cnv",
            "--conversation/--no-conversation",
            help="converse, or complete raw text; not given: converse where there is no prompt",
        ),
    ] = None
    interactive: Annotated[
        bool,
        _conversation("-i", "--interactive", help="go on reading turns after the prompt"),
    ] = False
    interactive_first: Annotated[
        bool,
        _conversation(
            "-if", "--interactive-first", help="wait for your words first and put the prompt in front of them"
        ),
    ] = False
    multiline_input: Annotated[
        bool,
        _conversation("-mli", "--multiline-input", help="Enter starts a new line; a line that ends in \\ sends"),
    ] = False
    single_turn: Annotated[bool, _conversation("-st", "--single-turn", help="leave after one turn")] = False
    think: Annotated[
        bool | None,
        _conversation("--think/--no-think", help="ask the chat template for reasoning, or for none"),
    ] = None
    tools: Annotated[
        str | None,
        _conversation(
            "--tools",
            metavar="FILE",
            help="functions that the model may call: a JSON list, as OpenAI's clients send it",
        ),
    ] = None
    hide_thinking: Annotated[
        bool,
        _conversation("--hide-thinking", "--hidethinking", help="do not show reasoning"),
    ] = False

    color: Annotated[
        bool | None,
        _output("-co", "--color/--no-color", help="colours, also where the output is not a terminal"),
    ] = None
    display_prompt: Annotated[
        bool,
        _output("--display-prompt/--no-display-prompt", help="when completing raw text, show the prompt before it"),
    ] = True
    verbose: Annotated[bool, _output("-v", "--verbose", help="timings after each answer")] = False
    json: Annotated[
        bool,
        _output("--json", help="one JSON object with text, usage and timings (one answer only)"),
    ] = False
    meta: Annotated[
        bool,
        _output("--meta", help="show the file's metadata and leave, as `quipu inspect` does"),
    ] = False

    def llm_arguments(self) -> dict[str, Any]:
        """Keyword arguments for `LLM`, only those that were given.

        Raises:
            UsageError: as `LoadOptions.llm_arguments`, or an option lacks the one that it goes with.
        """
        if self.keep is not None and self.keep < -1:
            raise UsageError(f"--keep must be -1 (the whole prompt), 0 or more, not {self.keep}")
        if self.keep is not None and not self.context_shift:
            raise UsageError("--keep says what --context-shift keeps; give both")
        if self.prompt_cache_ro and self.prompt_cache is None:
            raise UsageError("--prompt-cache-ro needs the file: --prompt-cache FILE")
        arguments = super().llm_arguments()
        if self.context_shift:
            arguments |= {"context_shift": True, "keep": self.keep or 0}
        if self.prompt_cache is not None and (arguments.get("prefix_cache") is False or self.cache_ram == 0):
            raise UsageError("--prompt-cache needs the prefix cache; leave out --no-cache-prompt and --cache-ram 0")
        return arguments

    def wants_conversation(self) -> bool:
        """Whether a flag asks for turn after turn, so that standard input holds turns, not a prompt."""
        asked = self.conversation or self.interactive or self.interactive_first or self.multiline_input
        return bool(asked) and not self.single_turn

    def mode(self, *, has_prompt: bool, has_template: bool) -> Mode:
        """What to do.

        Args:
            has_prompt: there is a text to answer or to complete.
            has_template: the model has a chat template, or one was chosen.
        """
        if self.single_turn and has_prompt:
            return Mode.COMPLETE if self.conversation is False else Mode.ANSWER
        if self.wants_conversation() or not has_prompt:
            return Mode.CONVERSE
        if self.conversation is False or not (has_template or self.system_text() is not None):
            return Mode.COMPLETE
        return Mode.ANSWER

    def is_raw(self, mode: Mode, *, has_template: bool) -> bool:
        """Whether texts go to the model as they are, without a chat template."""
        if mode is Mode.CONVERSE and self.conversation is None:
            return not has_template
        return mode is Mode.COMPLETE or self.conversation is False

    def model_and_words(self) -> tuple[str, list[str]]:
        """The model's name and the words of the prompt among the positional arguments.

        Raises:
            UsageError: no model is named, or it is a web address.
        """
        if self.model_url is not None:
            raise UsageError(f"quipu cannot download models yet: fetch {self.model_url} and give the file with -m")
        words = list(self.words or ())
        if self.model is not None:
            return self.model, words
        if not words:
            raise UsageError(
                "name a model, as in `quipu run model.gguf`, or try the built-in one with `quipu run tiny`"
            )
        return words[0], words[1:]

    def system_text(self) -> str | None:
        """The system message, or None.

        Raises:
            UsageError: both ways to give one are used, or the file cannot be read.
        """
        if self.system is not None and self.system_file is not None:
            raise UsageError("give the system message with --system or with --system-file, not both")
        if self.system_file is not None:
            return read_text(self.system_file)
        if self.system is None:
            return None
        return unescape(checked_text(self.system)) if self.escape else checked_text(self.system)

    def prompt_text(self, words: list[str], piped: str) -> str | None:
        """-p, the file, the words and what was piped in, in this order, one per line; None if all are missing.

        Args:
            words: the positional words after the model.
            piped: text from standard input, empty if there is none.

        Raises:
            UsageError: the file cannot be read, or a text is not UTF-8.
        """
        parts = [self.prompt] if self.prompt is not None else []
        parts += [" ".join(words)] if words else []
        parts = [checked_text(part) for part in parts]
        if self.escape:
            parts = [unescape(part) for part in parts]
        if self.file is not None:
            parts.insert(1 if self.prompt is not None else 0, read_text(self.file).removesuffix("\n"))
        if piped:
            parts.append(piped.removesuffix("\n"))
        return "\n".join(parts) if parts else None

    def tool_definitions(self) -> list[Any] | None:
        """The tools in the file of --tools, or None.

        Raises:
            UsageError: the file cannot be read, or is not a JSON list.
            InvalidRequestError: one of the tools is malformed.
        """
        if self.tools is None:
            return None
        try:
            tools = json.loads(read_text(self.tools))
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{self.tools} is not JSON: {error}") from None
        if not isinstance(tools, list):
            raise UsageError(f"{self.tools} must hold a JSON list of tools; put the tool in brackets")
        read_tools(check_tools(tools))
        return tools

    def template(self) -> str | None:
        """The name of a built-in chat template or the text of one in a file; None for the model's own.

        Raises:
            UsageError: both ways to give one are used, or the file cannot be read.
        """
        if self.chat_template is not None and self.chat_template_file is not None:
            raise UsageError("give the chat template with --chat-template or with --chat-template-file, not both")
        if self.chat_template_file is not None:
            return read_text(self.chat_template_file)
        if self.chat_template is not None and "{" not in self.chat_template and Path(self.chat_template).is_file():
            return read_text(self.chat_template)
        return self.chat_template
