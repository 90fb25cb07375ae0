import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, LlamaForCausalLM, Qwen3ForCausalLM

from proxybyte import ProxyByteError, ProxyByteForCausalLM
from proxybyte.symbols import IGNORE_INDEX

OWN_CLASS = {"llama": LlamaForCausalLM, "qwen3": Qwen3ForCausalLM}
KINDS = pytest.mark.parametrize("kind", sorted(OWN_CLASS))
TYING = pytest.mark.parametrize("tied", [False, True])


def some_symbols(rows: int, length: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(64, 360, (rows, length), generator=torch.Generator().manual_seed(seed))


def gradients(model: ProxyByteForCausalLM) -> dict[str, torch.Tensor]:
    return {name: weight.grad.clone() for name, weight in model.named_parameters()}


@KINDS
@TYING
def test_weights_and_logits_are_those_of_the_backbones_own_causal_model(tiny_config, kind, tied):
    config = tiny_config(kind, tie_word_embeddings=tied)
    torch.manual_seed(5)
    model = ProxyByteForCausalLM(config).eval()
    torch.manual_seed(5)
    own = OWN_CLASS[kind](config.backbone_config).eval()
    assert list(model.state_dict()) == list(own.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), own.state_dict().values(), strict=True))
    symbols = some_symbols(2, 12)
    assert torch.equal(model(symbols).logits, own(symbols).logits)
    torch.testing.assert_close(model(symbols, labels=symbols).loss, own(symbols, labels=symbols).loss)
    assert (model.lm_head.weight is model.model.embed_tokens.weight) is tied


@KINDS
@TYING
def test_saving_and_loading_changes_no_logit(tiny_model, tmp_path, kind, tied):
    model = tiny_model(kind, tie_word_embeddings=tied)
    model.save_pretrained(tmp_path)
    symbols = some_symbols(1, 9)
    for loaded in (
        ProxyByteForCausalLM.from_pretrained(tmp_path, dtype=torch.float64),
        AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float64),
    ):
        assert type(loaded) is ProxyByteForCausalLM
        assert all(torch.equal(weight, loaded.state_dict()[name]) for name, weight in model.state_dict().items())
        torch.testing.assert_close(loaded(symbols).logits, model(symbols).logits, rtol=0, atol=1e-12)
        assert (loaded.lm_head.weight is loaded.model.embed_tokens.weight) is tied
        assert loaded.generation_config.eos_token_id == [2, 13]


def test_code_travels_with_a_saved_model(tiny_model, tmp_path):
    tiny_model().save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, trust_remote_code=True, dtype=torch.float64)
    symbols = some_symbols(1, 9)
    assert torch.equal(loaded(symbols).logits, tiny_model()(symbols).logits)
    assert (tmp_path / "modeling_proxybyte.py").is_file()
    assert loaded.config.auto_map == {
        "AutoConfig": "configuration_proxybyte.ProxyByteConfig",
        "AutoModelForCausalLM": "modeling_proxybyte.ProxyByteForCausalLM",
    }


def test_target_nll_belongs_to_the_next_symbol(tiny_model):
    model = tiny_model()
    symbols = some_symbols(2, 10)
    labels = symbols.clone()
    labels[0, 4:7] = IGNORE_INDEX
    output = model(symbols, labels=labels)
    nats = -F.log_softmax(model(symbols).logits[:, :-1], -1).gather(2, symbols[:, 1:, None]).squeeze(2)
    nats[labels[:, 1:] == IGNORE_INDEX] = 0
    torch.testing.assert_close(output.target_nll, nats.detach(), rtol=0, atol=1e-10)
    torch.testing.assert_close(output.loss, nats.sum() / 15, rtol=0, atol=1e-10)
    assert output.logits is None and output.past_key_values is None


@pytest.mark.parametrize("items", [5, torch.tensor(5)])
def test_the_loss_is_divided_by_the_items_of_the_whole_batch(tiny_model, items):
    model, symbols = tiny_model(), some_symbols(2, 10)
    output = model(symbols, labels=symbols, num_items_in_batch=items)
    torch.testing.assert_close(output.loss, output.target_nll.sum() / 5)


def test_logits_come_with_the_loss_when_asked_for(tiny_model):
    model, symbols = tiny_model(), some_symbols(2, 10)
    output = model(symbols, labels=symbols, return_logits=True)
    assert torch.equal(output.logits, model(symbols).logits)
    assert model(symbols, return_logits=False).logits is None


def test_logits_to_keep(tiny_model):
    model, symbols = tiny_model(), some_symbols(2, 10)
    every = model(symbols).logits
    torch.testing.assert_close(model(symbols, logits_to_keep=3).logits, every[:, -3:])
    torch.testing.assert_close(model(symbols, logits_to_keep=torch.tensor([1, 4])).logits, every[:, [1, 4]])


def test_raw_symbols_only_changes_no_raw_logit(tiny_model):
    model, symbols = tiny_model(), some_symbols(2, 10)
    raw = model(symbols, raw_symbols_only=True).logits
    every = model(symbols).logits
    assert raw.shape == every.shape
    torch.testing.assert_close(raw[..., :320], every[..., :320], rtol=0, atol=1e-12)
    assert (raw[..., 320:] == -torch.inf).all()


def test_embeddings_and_outputs_pass_through(tiny_model):
    model, symbols = tiny_model(), some_symbols(2, 10)
    embeddings = model.get_input_embeddings()(symbols)
    output = model(inputs_embeds=embeddings, output_hidden_states=True)
    torch.testing.assert_close(output.logits, model(symbols).logits)
    assert len(output.hidden_states) == 3
    assert isinstance(model(symbols, return_dict=False), tuple)


@KINDS
@TYING
def test_activation_checkpointing_changes_no_gradient(tiny_model, kind, tied):
    model = tiny_model(kind, tie_word_embeddings=tied).train()
    symbols = some_symbols(2, 10)
    model(symbols, labels=symbols).loss.backward()
    expected = gradients(model)
    model.zero_grad()
    model.activation_checkpointing_enable()
    assert model.is_gradient_checkpointing
    model(symbols, labels=symbols).loss.backward()
    torch.testing.assert_close(gradients(model), expected, rtol=0, atol=1e-12)


@KINDS
@TYING
def test_gradients_of_the_loss_are_those_of_the_logits(tiny_model, kind, tied):
    model = tiny_model(kind, tie_word_embeddings=tied, loss_chunk_size=3)
    symbols = some_symbols(2, 10)
    model(symbols, labels=symbols).loss.backward()
    ours = gradients(model)
    model.zero_grad()
    F.cross_entropy(model(symbols).logits[:, :-1].flatten(0, 1), symbols[:, 1:].flatten()).backward()
    torch.testing.assert_close(ours, gradients(model), rtol=0, atol=1e-11)


def test_the_vocabulary_cannot_be_resized(tiny_model):
    model = tiny_model()
    assert model.resize_token_embeddings(360) is model.get_input_embeddings()
    for ask in (
        lambda: model.resize_token_embeddings(400),
        lambda: model.resize_token_embeddings(pad_to_multiple_of=64),
    ):
        with pytest.raises(ProxyByteError, match="fixed by the symbol layout to 360 rows"):
            ask()


def test_a_backbone_with_its_embedding_elsewhere_is_refused(tiny_config):
    from proxybyte import ProxyByteConfig

    shapes = {"hidden_size": 16, "word_embed_proj_dim": 16, "ffn_dim": 16, "num_hidden_layers": 1}
    config = ProxyByteConfig(backbone_config={"model_type": "opt", "num_attention_heads": 2, **shapes})
    with pytest.raises(ProxyByteError, match="'opt' does not keep its embedding under 'embed_tokens'"):
        ProxyByteForCausalLM(config)
