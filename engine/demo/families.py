"""The two model families of the demo: their special tokens, chat templates and shapes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

CONTEXT = 2048


@dataclass(frozen=True)
class Family:
    """Everything in which one demo model differs from the other."""

    directory: str
    config_class: Callable[..., PreTrainedConfig]
    model_class: type[PreTrainedModel]
    intermediate_size: int
    layers: int
    special_tokens: tuple[str, ...]
    pad: str
    bos: str
    end_of_turn: str
    opening: str
    header: str
    footer: str
    seed: int

    @property
    def chat_template(self) -> str:
        """The Jinja template that renders `opening`, then `header`, content and `footer` of each message."""
        turn_header = self.header.replace("{role}", "' + message['role'] + '")
        answer_header = self.header.replace("{role}", "assistant")
        return (
            f"{{{{ '{self.opening}' }}}}"
            "{% for message in messages %}"
            f"{{{{ '{turn_header}' + message['content'] | trim + '{self.footer}' }}}}"
            "{% endfor %}"
            f"{{% if add_generation_prompt %}}{{{{ '{answer_header}' }}}}{{% endif %}}"
        ).replace("\n", "\\n")

    def new_model(self, token_ids: dict[str, int]) -> PreTrainedModel:
        """An untrained model for a vocabulary in which the special tokens have the given ids."""
        config = self.config_class(
            vocab_size=len(token_ids),
            hidden_size=192,
            intermediate_size=self.intermediate_size,
            num_hidden_layers=self.layers,
            num_attention_heads=6,
            num_key_value_heads=2,
            head_dim=32,
            tie_word_embeddings=True,
            max_position_embeddings=CONTEXT,
            bos_token_id=token_ids[self.bos],
            eos_token_id=token_ids[self.end_of_turn],
            pad_token_id=token_ids[self.pad],
        )
        return self.model_class(config)


FAMILIES = (
    Family(
        directory="demo-a",
        config_class=LlamaConfig,
        model_class=LlamaForCausalLM,
        intermediate_size=448,
        layers=5,
        special_tokens=("<|pad|>", "<|begin|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"),
        pad="<|pad|>",
        bos="<|begin|>",
        end_of_turn="<|end|>",
        opening="<|begin|>",
        header="<|{role}|>",
        footer="<|end|>",
        seed=11,
    ),
    Family(
        directory="demo-b",
        config_class=Qwen3Config,
        model_class=Qwen3ForCausalLM,
        intermediate_size=368,
        layers=6,
        special_tokens=("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
        pad="<|endoftext|>",
        bos="<|endoftext|>",
        end_of_turn="<|im_end|>",
        opening="",
        header="<|im_start|>{role}\n",
        footer="<|im_end|>\n",
        seed=23,
    ),
)
