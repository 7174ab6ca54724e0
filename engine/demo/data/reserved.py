"""Questions kept out of training: only digests are stored, so that the questions themselves live with the tests."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

DIGESTS = frozenset(Path(__file__).with_name("reserved.txt").read_text().split())


def normalised(question: str) -> str:
    """The question in lower case without punctuation."""
    return " ".join(re.sub(r"[^\w\s]", " ", question.lower()).split())


def digest(question: str) -> str:
    """A short fingerprint of the normalised question."""
    return hashlib.sha256(normalised(question).encode()).hexdigest()[:16]


def is_reserved(question: str) -> bool:
    """Tells whether the question may not be trained on."""
    return digest(question) in DIGESTS
