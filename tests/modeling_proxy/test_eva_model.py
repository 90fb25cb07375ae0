"""The EVA decoder by itself and under a ProxyByte model."""

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from proxybyte import EvaConfig, EvaModel, ProxyByteConfig, ProxyByteError, ProxyByteForCausalLM
from proxybyte.modeling_proxybyte import positions_from_mask

EXACT = {"rtol": 0, "atol": 1e-9}
WINDOW, CHUNK = 8, 2
SHAPES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "window_size": WINDOW,
    "chunk_size": CHUNK,
    "cache_rollback": 6,
}
# Of forty columns: an end within a chunk, a document inside a window, one as long as two windows, a last one.
LENGTHS = [7, 4, 13, 16]


@pytest.fixture
def model() -> ProxyByteForCausalLM:
    torch.manual_seed(0)
    config = ProxyByteConfig(backbone_config={"model_type": "proxybyte_eva", **SHAPES}, num_compressed_symbols=40)
    model = ProxyByteForCausalLM(config).double().eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.3)
    return model


@pytest.fixture
def symbols() -> torch.Tensor:
    return torch.randint(64, 360, (2, sum(LENGTHS)), generator=torch.Generator().manual_seed(3))


def positions(lengths: list[int]) -> torch.Tensor:
    return torch.cat([torch.arange(length) for length in lengths])[None]


def test_auto_classes_know_the_backbone(tmp_path):
    config = EvaConfig(**SHAPES)
    model = AutoModel.from_config(config)
    assert isinstance(model, EvaModel)
    model.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(loaded, EvaConfig)
    assert {**loaded.to_dict(), "_name_or_path": ""} == model.config.to_dict()
    again = AutoModel.from_pretrained(tmp_path)
    for (name, weight), (other, copy) in zip(model.named_parameters(), again.named_parameters(), strict=True):
        assert name == other
        assert torch.equal(weight, copy)


def test_a_saved_model_gives_the_same_logits(model, symbols, tmp_path):
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float64).eval()
    assert type(again.model) is EvaModel
    torch.testing.assert_close(again(symbols).logits, model(symbols).logits, **EXACT)


def test_fresh_weights_start_as_published():
    model = EvaModel(EvaConfig(hidden_size=256, intermediate_size=256, num_hidden_layers=1, num_attention_heads=4))
    model.requires_grad_(False)
    attention = model.layers[0].self_attn
    assert model.embed_tokens.weight[1:].std() == pytest.approx(1, abs=0.02)
    assert attention.q_proj.weight.std() == pytest.approx(0.02, abs=0.001)
    assert not model.norm.weight.any()
    assert not model.layers[0].input_layernorm.weight.any()
    for vector in (attention.adaptive_mu_k, attention.adaptive_phi):
        assert vector.shape == (1, 4, 1, 1, 64)
        assert vector.abs().max() == 64**-0.5
        assert vector.std() > 0.05
    assert model.rotary_emb.inv_freq[1] == pytest.approx(100_000 ** (-2 / 64))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"window_size": 10, "chunk_size": 4}, "multiple of chunk_size 4"),
        ({"chunk_size": 0}, "chunk_size is 0"),
        ({"hidden_size": 30, "num_attention_heads": 4}, "even multiple of num_attention_heads 4"),
        ({"num_attention_heads": 8, "num_key_value_heads": 2}, "leave it out"),
    ],
)
def test_sizes_that_do_not_divide_are_refused(settings, message):
    with pytest.raises(ProxyByteError, match=message):
        EvaConfig(**settings)


def test_a_packed_document_is_the_document_alone_behind_as_many_columns_of_its_window(model, symbols):
    """Windows are cut by the row's columns, so where in a window a document begins matters, and nothing else."""
    packed = model(symbols, position_ids=positions(LENGTHS).expand(2, -1)).logits
    start = 0
    for length in LENGTHS:
        before = start % WINDOW
        filler = torch.full((2, before), 65)
        row = torch.cat([filler, symbols[:, start : start + length]], dim=1)
        lengths = [before, length] if before else [length]
        alone = model(row, position_ids=positions(lengths).expand(2, -1)).logits[:, before:]
        torch.testing.assert_close(packed[:, start : start + length], alone, **EXACT)
        start += length
    assert (packed - model(symbols).logits).abs().max() > 1e-3, "too short for the test to see a leak"


def test_a_document_within_a_window_or_from_its_border_is_the_document_alone(model, symbols):
    lengths = [3, 5, 2 * WINDOW + 3, 2, 11]
    assert sum(lengths) == symbols.shape[1]
    packed = model(symbols, position_ids=positions(lengths).expand(2, -1)).logits
    for start, length in ((0, 3), (3, 5), (WINDOW, 2 * WINDOW + 3), (3 * WINDOW + 3, 2)):
        alone = model(symbols[:, start : start + length]).logits
        torch.testing.assert_close(packed[:, start : start + length], alone, **EXACT)


def test_no_gradient_reaches_another_document(model, symbols):
    embeddings = model.get_input_embeddings()(symbols).detach().requires_grad_()
    labels = symbols.clone()
    start = LENGTHS[0] + LENGTHS[1]
    end = start + LENGTHS[2]
    labels[:, : start + 1] = labels[:, end:] = -100
    model(inputs_embeds=embeddings, position_ids=positions(LENGTHS).expand(2, -1), labels=labels).loss.backward()
    assert not embeddings.grad[:, :start].any()
    assert not embeddings.grad[:, end:].any()
    assert embeddings.grad[:, start : end - 1].abs().sum(-1).gt(0).all()


@pytest.mark.parametrize("length", [1, WINDOW, 3 * WINDOW + 1])
def test_every_parameter_has_a_gradient_in_rows_of_any_length(model, symbols, length):
    """Data-parallel training waits for each."""
    model(symbols[:, :length]).logits.sum().backward()
    missing = {name for name, weight in model.named_parameters() if weight.grad is None}
    assert not missing


def test_checkpointed_layers_have_the_same_gradients(model, symbols):
    batch = {"input_ids": symbols, "labels": symbols, "position_ids": positions(LENGTHS).expand(2, -1)}
    model.train()
    model(**batch).loss.backward()
    plain = {name: weight.grad for name, weight in model.named_parameters()}
    model.zero_grad()
    model.gradient_checkpointing_enable()
    model(**batch).loss.backward()
    for name, weight in model.named_parameters():
        torch.testing.assert_close(weight.grad, plain[name], **EXACT)


def test_hidden_states_of_padded_rows_keep_their_columns(model, symbols):
    mask = torch.ones_like(symbols)
    mask[1, :9] = 0
    padded = model(symbols, attention_mask=mask, output_hidden_states=True)
    alone = model(symbols[1:, 9:], output_hidden_states=True)
    assert len(padded.hidden_states) == 3
    for states, expected in zip(padded.hidden_states, alone.hidden_states, strict=True):
        torch.testing.assert_close(states[1, 9:], expected[0], **EXACT)
    explicit = model(symbols, attention_mask=mask, position_ids=positions_from_mask(mask))
    torch.testing.assert_close(explicit.logits[1, 9:], alone.logits[0], **EXACT)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_attention_gives_the_same_logits_packed_and_cached(model, symbols):
    """Forward only: on a CPU FlexAttention has no backward."""
    model.requires_grad_(False)
    packed = {"input_ids": symbols, "position_ids": positions(LENGTHS).expand(2, -1)}
    blockwise, prompt = model(**packed).logits, model(symbols).logits
    model.set_attn_implementation("flex_attention")
    assert model.model.config._attn_implementation == "flex_attention"
    torch.testing.assert_close(model(**packed).logits, blockwise, **EXACT)
    first = model(symbols[:, :21], use_cache=True)
    rest = model(symbols[:, 21:], past_key_values=first.past_key_values).logits
    torch.testing.assert_close(torch.cat([first.logits, rest], dim=1), prompt, **EXACT)


def test_bfloat16_and_autocast_train(model, symbols):
    expected = model(symbols, labels=symbols).loss.item()
    model.float()
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(symbols, labels=symbols).loss
    loss.backward()
    assert loss.item() == pytest.approx(expected, rel=0.05)
    assert model(symbols.clone(), labels=symbols).loss.item() == pytest.approx(expected, rel=1e-4)
    half = model.bfloat16()(symbols, labels=symbols).loss
    half.backward()
    assert half.item() == pytest.approx(expected, rel=0.05)


class TestGenerate:
    """Across five windows, so that the cache goes through all it does."""

    NEW = 4 * WINDOW + 3

    @pytest.fixture
    def prompts(self, symbols) -> dict[str, torch.Tensor]:
        """Two rows of raw bytes, the second padded on the left."""
        ids = symbols[:, :11].clamp(max=319)
        mask = torch.ones_like(ids)
        mask[1, :6] = 0
        return {"input_ids": ids.masked_fill(mask == 0, 0), "attention_mask": mask}

    def run(self, model, batch, **settings) -> torch.Tensor:
        """New symbols only; generation goes on to the end."""
        settings = {"max_new_tokens": self.NEW, "min_new_tokens": self.NEW, **settings}
        return model.generate(**batch, **settings)[:, batch["input_ids"].shape[1] :]

    def test_a_padded_batch_is_each_prompt_alone_cached_or_not(self, model, prompts):
        batch = self.run(model, prompts)
        assert batch.shape == (2, self.NEW)
        assert torch.equal(batch, self.run(model, prompts, use_cache=False))
        for row, pad in ((0, 0), (1, 6)):
            alone = {"input_ids": prompts["input_ids"][row : row + 1, pad:]}
            assert torch.equal(batch[row : row + 1], self.run(model, alone))

    def test_beams_are_the_same_cached_or_not(self, model, prompts):
        settings = {"num_beams": 3, "num_return_sequences": 2}
        cached = self.run(model, prompts, **settings)
        assert torch.equal(cached, self.run(model, prompts, **settings, use_cache=False))

    def test_samples_are_the_same_cached_or_not(self, model, prompts):
        settings = {"do_sample": True, "temperature": 2.0, "num_return_sequences": 2}
        torch.manual_seed(1)
        cached = self.run(model, prompts, **settings)
        torch.manual_seed(1)
        assert torch.equal(cached, self.run(model, prompts, **settings, use_cache=False))

    @pytest.mark.parametrize(
        "settings",
        [{"prompt_lookup_num_tokens": 3}, {"cache_implementation": "static"}, {"prefill_chunk_size": 3}],
        ids=["prompt lookup", "static cache", "prefill in chunks"],
    )
    def test_other_ways_to_decode_are_greedy_too(self, model, prompts, settings):
        single = {"input_ids": prompts["input_ids"][:1]}
        assert torch.equal(self.run(model, single, **settings), self.run(model, single))

    def test_an_assistant_drafts_and_leaves_no_trace(self, model, prompts):
        torch.manual_seed(5)
        assistant = ProxyByteForCausalLM(model.config).double().eval()
        single = {"input_ids": prompts["input_ids"][:1]}
        drafted = self.run(model, single, assistant_model=assistant)
        assert torch.equal(drafted, self.run(model, single))

    def test_a_padded_batch_may_be_prefilled_in_chunks(self, model, prompts):
        assert torch.equal(self.run(model, prompts, prefill_chunk_size=4), self.run(model, prompts))
