"""Formats, as patterns of texts that every validator takes for them and that come to an end.

They allow less than the standards do: no leap seconds, no quoted mailboxes, nothing beyond ASCII. A format
that is not here constrains nothing, as the specification has it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from gateway.chat.schemas.document import Document
from gateway.chat.schemas.schema import Schema

_LEAP_DAY: Final = "(?:[1-9][0-9](?:0[48]|[2468][048]|[13579][26])|(?:[2468][048]|[13579][26])00)-02-29"
_DATE: Final = (
    "(?:[1-9][0-9]{3}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|"
    f"(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))|{_LEAP_DAY})"
)
_CLOCK: Final = "(?:[01][0-9]|2[0-3]):[0-5][0-9]"
_TIME: Final = rf"{_CLOCK}:[0-5][0-9](?:\.[0-9]{{1,6}})?(?:Z|[+-]{_CLOCK})"
_MANY: Final = "[0-9]{1,4}"
_SECONDS: Final = f"{_MANY}S"
_MINUTES: Final = f"{_MANY}M(?:{_SECONDS})?"
_HOURS: Final = f"T(?:{_MANY}H(?:{_MINUTES})?|{_MINUTES}|{_SECONDS})"
_DAYS: Final = f"{_MANY}D"
_MONTHS: Final = f"{_MANY}M(?:{_DAYS})?"
_YEARS: Final = f"(?:{_MANY}Y(?:{_MONTHS})?|{_MONTHS}|{_DAYS})"
_DURATION: Final = f"P(?:{_YEARS}(?:{_HOURS})?|{_HOURS}|{_MANY}W)"

_WORDS: Final = "(?:-[A-Za-z0-9]{1,20}){0,2}"
_LABEL: Final = f"[A-Za-z0-9]{{1,20}}{_WORDS}"
_TOP: Final = f"[A-Za-z][A-Za-z0-9]{{0,19}}{_WORDS}"
_HOST: Final = rf"(?:{_LABEL}\.){{0,3}}{_TOP}"
_ATOM: Final = "[A-Za-z0-9_'+-]{1,20}"
_EMAIL: Final = rf"{_ATOM}(?:\.{_ATOM}){{0,2}}@(?:{_LABEL}\.){{1,2}}[A-Za-z]{{2,20}}"
_OCTET: Final = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4: Final = rf"(?:{_OCTET}\.){{3}}{_OCTET}"
_GROUP: Final = "[0-9A-Fa-f]{1,4}"
_SHORTENED: Final = "|".join(
    f"(?:{_GROUP}:){{1,{before}}}(?::{_GROUP}){{1,{7 - before}}}" for before in range(1, 7)
)
_IPV6: Final = f"(?:(?:{_GROUP}:){{7}}{_GROUP}|(?:{_GROUP}:){{1,7}}:|:(?::{_GROUP}){{1,7}}|::|{_SHORTENED})"
_UUID: Final = "[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"

_CHAR: Final = "(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})"
_PATH: Final = f"(?:/{_CHAR}{{0,64}}){{0,16}}"
_TAIL: Final = rf"(?:\?(?:{_CHAR}|[/?]){{0,512}})?(?:#(?:{_CHAR}|[/?]){{0,64}})?"
_SCHEME: Final = "[A-Za-z][A-Za-z0-9+.-]{0,15}"
_AUTHORITY: Final = f"(?:{_HOST}|{_IPV4})(?::[0-9]{{1,4}})?"
_URI: Final = f"{_SCHEME}:(?://{_AUTHORITY}|{_CHAR}{{1,64}}){_PATH}{_TAIL}"
_URI_REFERENCE: Final = f"(?:{_URI}|(?:/{_CHAR}{{1,64}}){{1,16}}{_TAIL})"
_TEMPLATE: Final = rf"{_SCHEME}://{_AUTHORITY}(?:/(?:{_CHAR}{{0,64}}|\{{[A-Za-z_]{{1,16}}\}})){{0,16}}"
_POINTER: Final = "(?:/(?:[A-Za-z0-9_.-]|~[01]){0,32}){0,8}"
_RELATIVE_POINTER: Final = f"[0-9](?:#|{_POINTER})"
_REGEX: Final = (
    r"\^?(?:(?:[A-Za-z0-9_ -]|\\[dwsDWS.]|\[[A-Za-z0-9_]{1,16}\]|\.)(?:[*+?]|\{[0-9]\})?){1,64}\$?"
)

_PATTERNS: Final[Mapping[str, str]] = {
    "date": _DATE,
    "time": _TIME,
    "date-time": f"{_DATE}T{_TIME}",
    "duration": _DURATION,
    "email": _EMAIL,
    "idn-email": _EMAIL,
    "hostname": _HOST,
    "idn-hostname": _HOST,
    "ipv4": _IPV4,
    "ipv6": _IPV6,
    "uuid": _UUID,
    "uri": _URI,
    "iri": _URI,
    "uri-reference": _URI_REFERENCE,
    "iri-reference": _URI_REFERENCE,
    "uri-template": _TEMPLATE,
    "json-pointer": _POINTER,
    "relative-json-pointer": _RELATIVE_POINTER,
    "regex": _REGEX,
}


def as_pattern(name: str) -> list[str]:
    """None, where there are no such texts to keep to."""
    return [f"^(?:{_PATTERNS[name]})$"] if name in _PATTERNS else []


def formatted(name: str, schema: Mapping[str, Any], document: Document, place: str) -> Iterator[Schema]:
    """Of ``format``."""
    for pattern in as_pattern(name):
        yield {"pattern": pattern}
