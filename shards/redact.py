"""Text without secrets: keys, signatures, tokens and passwords become `***`, whatever quoted them.

Kept out: deciding what is said. Every error, every line a command prints and every file but a run's own
config.yaml passes through here, because a URL may carry its own key. In doubt too much is hidden.
"""

import os
import re
from typing import Any
from urllib.parse import unquote

HIDDEN = "***"

ENVIRONMENT = re.compile(
    r"(?:^|_)(?:KEY|KEY_ID|SECRET|TOKEN|PASSWORD|PASSWD|CONNECTION_STRING)$", re.IGNORECASE
)
"""Names of variables whose very values are taken out of every text."""

SHORTEST_SECRET = 8
"""A value shorter than this would hide ordinary words."""

SHORTEST_PASSWORD = 6
"""A shorter one is hidden inside its URL only."""

SHORTEST_VALUE = 4
"""A parameter of a URL with fewer characters is a number or a flag, unless its name tells otherwise."""

SHORTEST_BARE = 16
"""One without a name is taken for a key from this length on."""

_NAMES = (
    "sig|signature|token|secret|credential|passw(?:or)?d|pwd|pass|key|keyid|auth|authorization|code|jwt|sas|"
    "session"
)
_seen: set[str] = set()
"""Passwords of URLs that came by: libraries quote parts of a URL in messages of their own."""

_URL = re.compile(r"([a-z][a-z0-9+.-]{0,30}:/{1,3})(\S+)", re.I)
_CONTAINERS = ("abfs://", "abfss://", "wasb://", "wasbs://")
"""Kinds of URL that have their container before the @."""

PATTERNS = (
    # a password with a space in it; what follows the colon is no port
    (
        re.compile(r"([a-z][a-z0-9+.-]{0,30}:/{1,3})[^\s/@:]{1,200}:(?!\d{1,5}(?:\W|$))[^\n@]{0,300}@", re.I),
        rf"\1{HIDDEN}@",
    ),
    (re.compile(r"\b(SharedAccessSignature\s*=\s*)[^\s'\";]+", re.I), rf"\1{HIDDEN}"),
    # ?sig=... and &X-Amz-Signature=... of signed URLs, where the scheme is gone
    (
        re.compile(rf"([?&;#][\w.%-]{{0,60}}(?:{_NAMES})=)[^&#\s'\"]+?(?=[:;,.)]*(?:[&#\s'\"]|$))", re.I),
        rf"\1{HIDDEN}",
    ),
    # X-Amz-Credential: ..., aws_secret_access_key='...'
    (
        re.compile(
            r"\b(x-amz-[\w-]*|\w{0,40}(?:secret_?(?:access_?)?key|client_?secret|account_?key|api_?key|"
            r"(?:session|access|refresh|id|sas)_?token|password|passwd)|signature|credential)"
            r"(['\"]?\s*[:=]\s*['\"]?)(?!\*\*\*)[^\s'\"&,;]+",
            re.I,
        ),
        rf"\1\2{HIDDEN}",
    ),
    (re.compile(r"\b(authorization['\"]?\s*[:=]\s*).*", re.I), rf"\1{HIDDEN}"),
    (re.compile(r"\b(Bearer\s+)\S+"), rf"\1{HIDDEN}"),
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]+(?:\.[\w-]*)?"), HIDDEN),
    (re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{12,}\b"), HIDDEN),
)


def redact(text: str) -> str:
    """`text` without anything that opens a door."""
    for name, value in os.environ.items():
        if len(value) >= SHORTEST_SECRET and ENVIRONMENT.search(name):
            text = text.replace(value, HIDDEN)
    text = _URL.sub(_without_keys, text)
    for pattern, shown in PATTERNS:
        text = pattern.sub(shown, text)
    for secret in tuple(_seen):
        text = text.replace(secret, HIDDEN)
    return text


def is_secret(text: str) -> bool:
    """Whether something is hidden where `text` is told."""
    return redact(text) != text


def redacted(value: Any) -> Any:
    """The same lists and dicts of JSON, every text in them without secrets."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {redacted(key): redacted(inner) for key, inner in value.items()}
    return [redacted(inner) for inner in value] if isinstance(value, list | tuple) else value


def _without_keys(match: re.Match[str]) -> str:
    """A URL without user, password, and the values of its parameters."""
    scheme, rest = match[1], match[2]
    body = rest.rstrip(":;,.)]}>'\"")
    end = rest[len(body) :]
    authority = re.split(r"[/?#]", body, maxsplit=1)[0]
    user, _, password = authority.rpartition("@")[0].partition(":")
    if len(password) >= SHORTEST_PASSWORD and password != HIDDEN:
        _seen.update({f"{user}:{password}", password, unquote(password)})
    if ":" in authority and "@" in body:  # a password may hold any character: up to the last @
        body = f"{HIDDEN}@{body.rpartition('@')[2]}"
    elif "@" in authority and scheme.lower() not in _CONTAINERS:
        body = f"{HIDDEN}@{body[authority.rindex('@') + 1 :]}"
    path, *parameters = re.split(r"([?&;#])", body)
    if not parameters or not {"?", "#"} & set(parameters):
        return scheme + body + end
    return scheme + path + "".join(map(_without_value, parameters)) + end


def _without_value(parameter: str) -> str:
    name, equals, value = parameter.partition("=")
    if not equals:
        return HIDDEN if len(name) >= SHORTEST_BARE else name
    secret = len(value) >= SHORTEST_VALUE or re.search(rf"(?:{_NAMES})$", name, re.I)
    return f"{name}={HIDDEN if secret and value else value}"
