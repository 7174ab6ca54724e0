"""Embeddings of a real checkpoint through the real server and the real SDK."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from openai import BadRequestError
from torch.nn.functional import normalize

import engine
from tests.e2e.server import running
from tests.engine.encoders import minilm, reference_hidden

TEXTS = ["A dormouse sleeps.", "tea " * 100, "In the winter a small animal hibernates.", "Stock prices fell."]


def test_the_sdk_gets_transformers_vectors(tmp_path: Path, checkpoints: dict[str, Path]) -> None:
    tokenizer = engine.open(str(minilm()))
    inputs = [tokenizer.encode(text) for text in TEXTS]
    expected = torch.stack([normalize(reference_hidden(minilm(), ids).mean(0), dim=0) for ids in inputs])
    config = f'[models.minilm]\npath = "{minilm()}"\n[models.talker]\npath = "{checkpoints["tiny-a"]}"\n'
    with running(tmp_path, config) as server:
        client = server.openai()
        for level in (None, 1, 2):
            if level:
                assert server.http.post(f"/sleep?model=minilm&level={level}").json()["level"] == level
            answer = client.embeddings.create(model="minilm", input=TEXTS)
            got = torch.tensor([item.embedding for item in answer.data])
            assert (got - expected).abs().max() < 1e-5
            assert answer.usage.prompt_tokens == sum(map(len, inputs))
        floats = client.embeddings.create(model="minilm", input=inputs[0], encoding_format="float")
        assert (torch.tensor(floats.data[0].embedding) - expected[0]).abs().max() < 1e-5
        assert got[0] @ got[2] > got[0] @ got[3], "alike in meaning, alike in vectors"

        server.http.post("/sleep?model=minilm&level=2")
        with pytest.raises(BadRequestError, match="maximum context length is 256"):
            client.embeddings.create(model="minilm", input="tea " * 300)
        with pytest.raises(BadRequestError, match="makes embeddings"):
            client.chat.completions.create(model="minilm", messages=[{"role": "user", "content": "Hi"}])
        with pytest.raises(BadRequestError, match="generates text"):
            client.embeddings.create(model="talker", input="Hi")
        assert server.status("minilm")["state"] == "asleep"
        assert server.status("talker")["state"] == "cold"
