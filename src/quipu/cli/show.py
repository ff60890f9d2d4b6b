"""`/show`: the model and the session as they are."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType

from quipu.cli.session import Session
from quipu.errors import UsageError


def show(session: Session, rest: str) -> bool:
    """Do `/show REST`. Never asks to leave.

    Raises:
        UsageError: there is nothing of that name to show.
    """
    topic = rest or "info"
    if topic not in _TOPICS:
        raise UsageError(f"there is no {topic!r} to show; use one of {', '.join(_TOPICS)}")
    for line in _TOPICS[topic](session):
        session.screen.note(line)
    return False


def _info(session: Session) -> list[str]:
    facts = session.facts
    trained = f" (trained on {facts.context_length})" if facts.context_length else ""
    rows = [
        ("model", facts.name),
        ("file", facts.path),
        ("architecture", facts.architecture),
        ("parameters", facts.parameters),
        ("weights", f"{facts.tensor_type}, {facts.file_bytes / 1e6:.1f} MB"),
        ("context", f"{session.llm.ctx_size} tokens{trained}"),
        ("threads", f"{session.llm.threads}, for prompts {session.llm.threads_batch}"),
        ("turns so far", str(len(session.conversation.turns))),
    ]
    return [f"{name:<14}{value}" for name, value in rows]


def _parameters(session: Session) -> list[str]:
    return [
        f"{field.name:<18}{getattr(session.sampling, field.name)}" for field in dataclasses.fields(session.sampling)
    ]


def _system(session: Session) -> list[str]:
    return (session.conversation.system or "there is no system message").splitlines()


def _template(session: Session) -> list[str]:
    return (session.facts.template or "the file has no chat template").splitlines()


def _license(session: Session) -> list[str]:
    return (session.facts.license or "the file names no license").splitlines()


_TOPICS: Mapping[str, Callable[[Session], list[str]]] = MappingProxyType(
    {"info": _info, "parameters": _parameters, "system": _system, "template": _template, "license": _license}
)
