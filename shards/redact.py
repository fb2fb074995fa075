"""Messages without secrets: keys, signatures, tokens and passwords become `***`, whatever quoted them.

Kept out: deciding what is said. Every ShardsError passes through here, because a URL may carry its own key.
"""

import os
import re

HIDDEN = "***"

ENVIRONMENT = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AZURE_STORAGE_CONNECTION_STRING",
    "AZURE_STORAGE_KEY",
    "AZURE_STORAGE_SAS_TOKEN",
    "FSSPEC_S3_KEY",
    "FSSPEC_S3_SECRET",
    "FSSPEC_S3_TOKEN",
)
"""Variables whose very values are taken out of every message."""

SHORTEST_SECRET = 8
"""A value shorter than this would hide ordinary words."""

_NAME = r"[\w.%-]*(?:sig|signature|token|secret|credential|passw(?:or)?d|key|keyid|auth|authorization)"
PATTERNS = (
    # user:password@host, where abfs:// has its container
    (re.compile(r"\b(?!abfss?:|wasbs?:)([a-z][a-z0-9+.-]*://)[^/?#\s@]+@", re.I), rf"\1{HIDDEN}@"),
    # ?sig=... and &X-Amz-Signature=... of signed URLs
    (re.compile(rf"([?&;]{_NAME}=)[^&#\s'\"]+?(?=[:;,.)]*(?:[&#\s'\"]|$))", re.I), rf"\1{HIDDEN}"),
    # X-Amz-Credential: ..., aws_secret_access_key='...', Authorization headers
    (
        re.compile(
            r"\b(x-amz-[\w-]*|\w*secret_?(?:access_?)?key|session_?token|password|signature|credential)"
            r"(['\"]?\s*[:=]\s*['\"]?)[^\s'\"&,;]+",
            re.I,
        ),
        rf"\1\2{HIDDEN}",
    ),
    (re.compile(r"\b(authorization['\"]?\s*[:=]\s*).*", re.I), rf"\1{HIDDEN}"),
    (re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{12,}\b"), HIDDEN),
)


def redact(text: str) -> str:
    """`text` without anything that opens a door."""
    for name in ENVIRONMENT:
        value = os.environ.get(name, "")
        if len(value) >= SHORTEST_SECRET:
            text = text.replace(value, HIDDEN)
    for pattern, shown in PATTERNS:
        text = pattern.sub(shown, text)
    return text
