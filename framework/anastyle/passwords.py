"""Passwords have no place in what is written down: addresses of servers lose theirs on the way."""

import re
from typing import Any

USER = re.compile(r"(?<=://)[^/@\s]*@")
QUERY = re.compile(r"([?&](?:\w*password|\w*token|\w*secret)=)[^&\s]*", re.IGNORECASE)


def without_password(text: str) -> str:
    """Return a text whose URLs name no user and no password."""
    return QUERY.sub(r"\1***", USER.sub("", text))


def without_passwords(value: Any) -> Any:
    """Return plain values, nested or not, none of whose texts holds a password in a URL."""
    if isinstance(value, dict):
        return {name: without_passwords(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [without_passwords(inner) for inner in value]
    return without_password(value) if isinstance(value, str) else value
