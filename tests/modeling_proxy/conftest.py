"""Small models of the two architectures that the suite runs."""

from collections.abc import Callable

import pytest
import torch

SHAPES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "head_dim": 8,
    "max_position_embeddings": 256,
}


@pytest.fixture
def tiny_config() -> Callable:
    """Makes a configuration; the keywords are those of ``ProxyByteConfig``."""
    from proxybyte import ProxyByteConfig

    def make(kind: str = "llama", num_compressed_symbols: int = 40, **settings):
        # Keys and values of EVA are not shared between heads.
        shared = {} if kind == "proxybyte_eva" else {"num_key_value_heads": 2}
        return ProxyByteConfig(
            backbone_config={"model_type": kind, **SHAPES, **shared},
            num_compressed_symbols=num_compressed_symbols,
            **settings,
        )

    return make


@pytest.fixture
def tiny_model(tiny_config) -> Callable:
    """Makes a model in float64, in evaluation mode, with weights large enough that every symbol matters."""
    from proxybyte import ProxyByteForCausalLM

    def make(kind: str = "llama", **settings) -> ProxyByteForCausalLM:
        torch.manual_seed(0)
        model = ProxyByteForCausalLM(tiny_config(kind, **settings)).double().eval()
        with torch.no_grad():
            for weight in model.parameters():
                if weight.ndim > 1:
                    weight.normal_(std=0.3)
        return model

    return make


class Foretold:
    """Drafts given texts, each symbol wrong with probability ``error``; ``texts`` has shape ``(B, C)``."""

    def __init__(self, texts: torch.Tensor, most: int = 6, error: float = 0.3):
        self.texts, self.most, self.error = texts, most, error
        self.forwards = 0
        self.generator = torch.Generator().manual_seed(0)

    def see(self, output, at):
        pass

    def keep(self, places):
        pass

    def propose(self, texts, most: int) -> list:
        from proxybyte.drafting import Draft

        starts = torch.tensor(texts.active_lengths)[:, None]
        columns = (starts + torch.arange(most)).clamp(max=self.texts.shape[1] - 1)
        draft = self.texts[texts.active].gather(1, columns)
        wrong = torch.rand(draft.shape, generator=self.generator) < self.error
        return [Draft(row, [1.0] * most) for row in torch.where(wrong, (draft + 1) % 320, draft).tolist()]


@pytest.fixture
def foretold() -> Callable:
    """Makes a ``custom_generate`` that drafts given texts with errors, however well the model's own heads draft."""
    from proxybyte.verification import Generation, decode_with_drafts

    def make(texts: torch.Tensor, **settings) -> Callable:
        drafter = Foretold(texts, **settings)

        def decode(model, input_ids, logits_processor, stopping_criteria, generation_config, **model_kwargs):
            for name in ("synced_gpus", "tokenizer"):
                model_kwargs.pop(name, None)
            streamer = model_kwargs.pop("streamer", None)
            given = Generation(
                input_ids, logits_processor, stopping_criteria, generation_config, streamer, model_kwargs
            )
            return decode_with_drafts(model, drafter, given)

        return decode

    return make


@pytest.fixture(scope="session")
def padded() -> Callable:
    """Makes random prompts, padded on the left, and their mask."""

    def make(lengths: tuple[int, ...] = (12, 9, 5, 11, 12)) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(1)
        ids = torch.randint(64, 320, (len(lengths), max(lengths)), generator=generator)
        mask = torch.ones_like(ids)
        for row, length in enumerate(lengths):
            first = max(lengths) - length
            ids[row, :first], mask[row, :first] = 0, 0
            ids[row, first] = 12
        return {"input_ids": ids, "attention_mask": mask}

    return make
