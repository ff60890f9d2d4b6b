"""`quipu run`: open a model, then complete, answer or converse."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from quipu.api import LLM
from quipu.cli.builtin import resolve_model
from quipu.cli.command import parse, takes
from quipu.cli.conversation import ChatConversation, Conversation, TextConversation
from quipu.cli.describe import ModelFacts, describe_model
from quipu.cli.loading import set_priority
from quipu.cli.one_shot import print_json, show_answer
from quipu.cli.paging import page_in
from quipu.cli.reader import Lines, StreamLines, history_file
from quipu.cli.repl import command_names, converse, welcome
from quipu.cli.run_options import Mode, RunOptions
from quipu.cli.screen import Screen
from quipu.cli.session import Session
from quipu.cli.texts import standard_input
from quipu.cli.verbs import TERMINAL
from quipu.errors import UsageError
from quipu.gguf import GGUFReader


@takes(RunOptions)
def run(options: RunOptions) -> int:
    """Talk to a model, or have it complete a prompt. With a prompt (-p, -f, words, or text on standard input) it
    answers once and leaves; without one it converses."""
    name, words = options.model_and_words()
    if options.meta:
        return int(parse("inspect", [name]).run() or 0)
    screen = Screen(sys.stdout, sys.stderr, colour=options.color, show_reasoning=not options.hide_thinking)
    # Everything that can be wrong with the command line is found before the model is loaded.
    options.sampling_params()
    options.tool_definitions()
    arguments, template, constraint = options.llm_arguments(), options.template(), options.constraint()
    path = resolve_model(name)
    with GGUFReader(path) as reader:
        facts, shards = describe_model(reader), reader.shards
    prompt = options.prompt_text(words, _piped_text(options))
    has_template = bool(template or facts.template)
    mode = options.mode(has_prompt=prompt is not None, has_template=has_template)
    if options.json and mode is Mode.CONVERSE:
        raise UsageError("--json prints one answer; give a prompt with -p, and none of -cnv, -i, -if, -mli")
    raw = options.is_raw(mode, has_template=has_template)
    if raw and options.tools is not None:
        raise UsageError("raw text has no tools: leave out --tools, or converse through a chat template")
    _announce(options, screen, prompt, raw=raw)
    set_priority(options.priority, screen)
    page_in(shards)

    started = time.perf_counter()
    with LLM(path, chat_template=template, **arguments) as llm:
        load_s = time.perf_counter() - started
        for line in llm.warnings if not options.json else ():
            screen.warn(line)
        conversation: Conversation = TextConversation(llm) if raw else ChatConversation(llm)
        conversation.constraint = constraint
        system = options.system_text()
        if system is not None:
            conversation.set_system(system)
        state_file = None if options.prompt_cache is None else Path(options.prompt_cache).expanduser()
        if state_file is not None and state_file.exists():
            llm.restore_state(state_file)
        if prompt is None or mode is Mode.CONVERSE:
            code = _converse(options, conversation, facts, screen, prompt, load_s)
        else:
            code = _once(options, conversation, screen, prompt, load_s)
        if state_file is not None and not options.prompt_cache_ro and llm.can_save_state:
            llm.save_state(state_file)
        return code


def _piped_text(options: RunOptions) -> str:
    """Text on standard input, unless it is a terminal or holds the turns of a conversation."""
    if sys.stdin is None or sys.stdin.isatty() or options.wants_conversation():
        return ""
    try:
        return standard_input().read()
    except UnicodeDecodeError:
        raise UsageError("the text on standard input is not UTF-8; convert it first") from None


def _announce(options: RunOptions, screen: Screen, prompt: str | None, *, raw: bool) -> None:
    """Say what the options do not do, and what they may not do as expected."""
    for line in options.warnings():
        screen.warn(line)
    if prompt is not None and "\\n" in prompt and options.escape is None:
        screen.note("(the prompt has \\n in it as two characters; -e reads them as a line break)")
    if options.conversation and options.prompt is not None and options.system is None and options.system_file is None:
        screen.note("(-p is your first message here; --system TEXT sets the system message)")
    if raw and options.conversation is None:
        screen.note(
            "(no chat template in this file: the text is continued as it is; --chat-template NAME gives it one)"
        )


def _variables(options: RunOptions) -> dict[str, Any]:
    """Further arguments of `LLM.chat`."""
    tools = options.tool_definitions()
    return {
        **({} if options.think is None else {"enable_thinking": options.think}),
        **({} if tools is None else {"tools": tools}),
    }


def _once(options: RunOptions, conversation: Conversation, screen: Screen, prompt: str, load_s: float) -> int:
    sampling, variables = options.sampling_params(conversation.llm.default_sampling), _variables(options)
    if options.json:
        return print_json(conversation, prompt, sampling, variables, load_s=load_s)
    if isinstance(conversation, TextConversation) and options.display_prompt:
        screen.prompt(prompt)
    return show_answer(conversation, prompt, sampling, variables, screen, load_s=load_s, verbose=options.verbose)


def _converse(
    options: RunOptions,
    conversation: Conversation,
    facts: ModelFacts,
    screen: Screen,
    prompt: str | None,
    load_s: float,
) -> int:
    at_terminal = sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()
    lines: Lines = StreamLines(standard_input())
    if at_terminal:
        lines = TERMINAL.load()(history_file(), command_names(), colour=screen.colour)
    session = Session(
        conversation.llm,
        facts,
        conversation,
        options.sampling_params(conversation.llm.default_sampling),
        lines,
        screen,
        load_s=load_s,
        multiline=options.multiline_input,
        verbose=options.verbose,
        variables=_variables(options),
    )
    if at_terminal:
        welcome(session)
    first, ahead = (None, prompt) if options.interactive_first else (prompt, None)
    return converse(session, first=first, ahead=ahead, single_turn=options.single_turn)
