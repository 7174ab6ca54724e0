"""A decoder's tensors among those of its files, which may be named otherwise or hold more than the decoder.

No torch in here: an estimate needs none.
"""

from __future__ import annotations

import re
from dataclasses import replace

from engine.checkpoint import Shard

_BODY = re.compile(
    r"(?:model\.language_model\.|language_model\.model\.|model\.)?((?:embed_tokens|layers|norm)\..*)"
)
_HEAD = re.compile(r"(?:language_model\.)?(lm_head\..*)")


def decoder_tensors(shard: Shard, *, tied: bool) -> Shard:
    """Those of the decoder only, named as in a causal language model: ``model.`` before the body's, though
    the file be one without head or a model that sees. ``tied``: a head in the file is not read."""
    found = {}
    for name, tensor in shard.tensors.items():
        if body := _BODY.fullmatch(name):
            found[f"model.{body[1]}"] = tensor
        elif (head := _HEAD.fullmatch(name)) and not tied:
            found[head[1]] = tensor
    return replace(shard, tensors=found)
