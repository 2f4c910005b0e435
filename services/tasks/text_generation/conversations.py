"""Conversations as data files hold them: who says what, and what can be wrong with it.

Knows roles and messages; knows nothing about templates or tokens.
"""

from collections.abc import Sequence
from typing import Any

from services.tasks.reading import is_unicode
from services.tasks.text_generation.chat_template import ROLES, Message


def read_messages(value: Any) -> list[dict[str, str]]:
    """Returns a conversation that ends with the assistant's answer. Raises ValueError."""
    if not isinstance(value, list) or len(value) < 2:
        raise ValueError("messages is not a list of two messages or more")
    messages = [_message(i, message) for i, message in enumerate(value, start=1)]
    if messages[-1]["role"] != "assistant":
        raise ValueError("messages ends without the assistant's answer")
    if any(message["role"] == "system" for message in messages[1:]):
        raise ValueError("messages has a system message after the first one")
    if all(message["role"] != "user" for message in messages):
        raise ValueError("messages has no message of the user")
    return messages


def readable(messages: Sequence[Message]) -> str:
    """Returns a conversation as people write it down: a line a message."""
    return "\n".join(f"{message['role']}: {message['content']}" for message in messages)


def _message(number: int, value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise ValueError(f"message {number} is no object with role and content")
    role, content = value.get("role"), value.get("content")
    if role not in ROLES:
        raise ValueError(f"message {number} has role {role!r}, not one of {', '.join(ROLES)}")
    if not isinstance(content, str) or not content.strip():
        raise ValueError(f"message {number} has no content")
    if not is_unicode(content):
        raise ValueError(f"message {number} is not valid UTF-8")
    return {"role": role, "content": content}
