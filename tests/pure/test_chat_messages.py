"""Checks of requests: what is refused, and by which name."""

from __future__ import annotations

from typing import Any

import pytest
from chat_samples import TOOLS, assistant, call, tool_history, user

from quipu.chat import check_messages, check_tools
from quipu.chat.messages import map_arguments, text_of
from quipu.errors import InvalidRequestError

ROLES = "must be one of system, developer, user, assistant, tool"
CALL = "messages[0].tool_calls[0]"
NO_CONTENT = "is missing: give a text or a list of parts"
IMAGE = {"type": "image_url", "image_url": {}}


@pytest.mark.parametrize(
    ("messages", "field", "problem"),
    [
        ([], "messages", "must hold at least one message"),
        (None, "messages", "must be a list of messages, not null"),
        ([{"role": ["user"], "content": "x"}], "messages[0].role", f"{ROLES}, not ['user']"),
        ("Hi", "messages", "must be a list of messages, not a text"),
        ({"role": "user"}, "messages", "must be a list of messages, not an object"),
        (["Hi"], "messages[0]", "must be an object with role and content, not a text"),
        ([{"content": "x"}], "messages[0].role", ROLES),
        ([user("x"), {"role": "usr", "content": "x"}], "messages[1].role", f"{ROLES}, not 'usr'"),
        ([{"role": "user"}], "messages[0].content", NO_CONTENT),
        ([{"role": "user", "content": None}], "messages[0].content", NO_CONTENT),
        ([assistant(None)], "messages[0].content", NO_CONTENT),
        ([user(3)], "messages[0].content", "must be a text or a list of parts, not a number"),
        ([user([3])], "messages[0].content[0]", "must be an object, not a number"),
        ([user([IMAGE])], "messages[0].content[0].type", "must be 'text', not 'image_url': this model reads text only"),
        ([user([{"type": "text"}])], "messages[0].content[0].text", "must be a text, not null"),
        ([assistant("", tool_calls={})], "messages[0].tool_calls", "must be a list, not an object"),
        ([assistant("", tool_calls=[3])], CALL, "must be an object, not a number"),
        ([assistant("", tool_calls=[{"function": 1}])], f"{CALL}.function", "must be an object, not a number"),
        (
            [assistant("", tool_calls=[call({}, name="")])],
            f"{CALL}.function.name",
            "must be a text that is not empty, not an empty text",
        ),
        (
            [assistant("", tool_calls=[call([1])])],
            f"{CALL}.function.arguments",
            "must be JSON text or an object, not a list",
        ),
    ],
)
def test_malformed_messages(messages: Any, field: str, problem: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        check_messages(messages)
    assert str(caught.value) == f"{field} {problem}"
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("tools", "field", "problem"),
    [
        ("x", "tools", "must be a list of tools, not a text"),
        ([1], "tools[0]", "must be an object, not a number"),
        ([{"type": "function", "function": True}], "tools[0].function", "must be an object, not a truth value"),
        (
            [{"type": "function", "function": {}}],
            "tools[0].function.name",
            "must be a text that is not empty, not null",
        ),
    ],
)
def test_malformed_tools(tools: Any, field: str, problem: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        check_tools(tools)
    assert str(caught.value) == f"{field} {problem}"
    assert caught.value.field == field


def test_good_tools_pass() -> None:
    assert check_tools(None) is None
    assert check_tools(TOOLS) == TOOLS
    assert check_tools([{"name": "bare"}, {"type": "code_interpreter"}]) == [
        {"name": "bare"},
        {"type": "code_interpreter"},
    ]


def test_none_is_dropped_but_for_content() -> None:
    message = assistant(None, tool_calls=[call({})], name=None, audio=None)
    assert check_messages([message]) == [assistant(None, tool_calls=[call({})])]
    assert check_messages([user("x") | {"name": None}]) == [user("x")]


def test_unknown_keys_and_extra_roles_pass() -> None:
    messages = [{"role": "document 1", "content": "x", "title": "t"}]
    assert check_messages(messages, lambda role: role == "document 1") == messages


def test_messages_are_new() -> None:
    messages = tool_history("")
    checked = check_messages(messages)
    checked[1]["tool_calls"][0]["id"] = "changed"
    checked[0]["content"] = "changed"
    assert messages == tool_history("")


def test_parts() -> None:
    checked = check_messages([user(["a", {"text": "b"}, {"type": "text", "text": "c", "cache_control": {}}])])
    assert [part["type"] for part in checked[0]["content"]] == ["text"] * 3
    assert text_of(checked[0]["content"]) == "a\nb\nc"
    assert text_of(None) == ""


def test_arguments_change_their_form() -> None:
    as_text, as_object = tool_history("", text_arguments=True), tool_history("")
    assert map_arguments(as_text, to_object=True) == as_object
    back = map_arguments(as_object, to_object=False)[1]["tool_calls"][0]["function"]["arguments"]
    assert back == '{"city": "Zürich", "days": 2}'
    assert (
        map_arguments([assistant("", tool_calls=[call("")])], to_object=True)[0]["tool_calls"][0]["function"][
            "arguments"
        ]
        == {}
    )


def test_arguments_that_are_not_json() -> None:
    with pytest.raises(InvalidRequestError, match=r"^messages\[1\].tool_calls\[0\].function.arguments must be JSON$"):
        map_arguments([user("x"), assistant("", tool_calls=[call("{broken")])], to_object=True)
