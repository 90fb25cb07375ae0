"""Synthetic checkpoints in the published EvaByte layout, to our layout and back."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from transformers import AutoTokenizer

from proxybyte import EvaModel, ProxyByteConfig, ProxyByteError, ProxyByteForCausalLM
from proxybyte.cli import main
from proxybyte.hub_configs.evabyte import from_evabyte, to_evabyte

HEADS, ROWS, WIDTH, LAYERS, MLP = 8, 320, 32, 2, 48
WINDOW, CHUNK = 8, 4
# As in the config.json of the published 6.5B checkpoints, with other sizes.
PUBLISHED = {
    "architectures": ["EvaByteForCausalLM"],
    "model_type": "evabyte",
    "vocab_size": ROWS,
    "hidden_size": WIDTH,
    "intermediate_size": MLP,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "hidden_act": "silu",
    "window_size": WINDOW,
    "chunk_size": CHUNK,
    "num_chunks": None,
    "rms_norm_eps": 1e-5,
    "norm_add_unit_offset": True,
    "rope_theta": 100_000,
    "rope_scaling": None,
    "max_position_embeddings": 32_768,
    "num_pred_heads": HEADS,
    "initializer_range": 0.01275,
    "tie_word_embeddings": False,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "torch_dtype": "float32",
}


def published_weights() -> dict[str, torch.Tensor]:
    """Names and shapes as published, written out here by hand."""
    shapes = {"model.embed_tokens.weight": (ROWS, WIDTH), "model.norm.weight": (WIDTH,)}
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}"
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            shapes[f"{prefix}.self_attn.{name}.weight"] = (WIDTH, WIDTH)
        for name in ("adaptive_phi", "adaptive_mu_k"):
            shapes[f"{prefix}.self_attn.{name}"] = (1, 4, 1, 1, 8)
        for name in ("gate_proj", "up_proj"):
            shapes[f"{prefix}.mlp.{name}.weight"] = (MLP, WIDTH)
        shapes[f"{prefix}.mlp.down_proj.weight"] = (WIDTH, MLP)
        for name in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{prefix}.{name}.weight"] = (WIDTH,)
    shapes["lm_head.weight"] = (HEADS * ROWS, WIDTH)
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) * 0.3 for name, shape in shapes.items()}


def write(folder: Path, weights: dict[str, torch.Tensor], shards: int = 1, **settings) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({**PUBLISHED, **settings}))
    if shards == 1:
        save_file(weights, folder / "model.safetensors")
        return folder
    names = list(weights)
    files = {n: f"model-{i % shards + 1:05}-of-{shards:05}.safetensors" for i, n in enumerate(names)}
    for file in set(files.values()):
        save_file({n: weights[n] for n in names if files[n] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))
    return folder


def all_weights(folder: Path) -> dict[str, torch.Tensor]:
    return {name: weight for file in folder.glob("model*.safetensors") for name, weight in load_file(file).items()}


def published_logits(weights: dict[str, torch.Tensor], ids: torch.Tensor) -> torch.Tensor:
    """All heads' logits by the published definition: one row, shape ``(T, 8, 320)``, in float64."""
    w = {name: weight.double() for name, weight in weights.items()}
    length, size = len(ids), 8

    def norm(x, name):
        return (1 + w[name]) * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5)

    angles = torch.arange(length)[:, None] * 100_000.0 ** (-torch.arange(0, size, 2) / size)
    cos, sin = angles.double().cos().repeat(1, 2), angles.double().sin().repeat(1, 2)
    hidden = w["model.embed_tokens.weight"][ids]
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}"
        attn = f"{prefix}.self_attn"
        x = norm(hidden, f"{prefix}.input_layernorm.weight")
        q, k, v = ((x @ w[f"{attn}.{n}_proj.weight"].T).view(length, 4, 8).transpose(0, 1) for n in "qkv")
        q, k = (x * cos + torch.cat([-x[..., 4:], x[..., :4]], -1) * sin for x in (q, k))
        mu, phi = w[f"{attn}.adaptive_mu_k"].view(4, 1, 8), w[f"{attn}.adaptive_phi"].view(4, 1, 8)
        out = torch.zeros_like(q)
        for i in range(length):
            start = i // WINDOW * WINDOW
            keys, values = [k[:, start : i + 1]], [v[:, start : i + 1]]
            for c in range(0, start, CHUNK):
                kc, vc = k[:, c : c + CHUNK], v[:, c : c + CHUNK]
                keys.append(((mu * kc).sum(-1).softmax(-1).unsqueeze(-1) * kc).sum(1, keepdim=True))
                log_phi = 8**-0.5 * ((phi * kc).sum(-1) - kc.square().sum(-1) / 2)
                values.append((log_phi.softmax(-1).unsqueeze(-1) * vc).sum(1, keepdim=True))
            scores = (torch.cat(keys, 1) @ q[:, i, :, None]).squeeze(-1) * 8**-0.5
            out[:, i] = (scores.softmax(-1).unsqueeze(-1) * torch.cat(values, 1)).sum(1)
        hidden = hidden + out.transpose(0, 1).reshape(length, WIDTH) @ w[f"{attn}.o_proj.weight"].T
        x = norm(hidden, f"{prefix}.post_attention_layernorm.weight")
        gate, up = (x @ w[f"{prefix}.mlp.{n}.weight"].T for n in ("gate_proj", "up_proj"))
        hidden = hidden + (F.silu(gate) * up) @ w[f"{prefix}.mlp.down_proj.weight"].T
    return (norm(hidden, "model.norm.weight") @ w["lm_head.weight"].T).view(length, HEADS, ROWS)


@pytest.mark.parametrize("shards", [1, 3])
def test_a_published_checkpoint_comes_back_as_it_was(tmp_path, shards):
    weights = published_weights()
    source = write(tmp_path / "published", weights, shards)
    from_evabyte(source, tmp_path / "ours")
    to_evabyte(tmp_path / "ours", tmp_path / "back")
    back = all_weights(tmp_path / "back")
    assert back.keys() == weights.keys()
    assert all(torch.equal(back[name], weight) for name, weight in weights.items())
    settings = json.loads((tmp_path / "back" / "config.json").read_text())
    assert {name: settings[name] for name in PUBLISHED} == PUBLISHED
    ours = all_weights(tmp_path / "ours")
    assert torch.equal(ours["pred_heads.weight"], weights["lm_head.weight"][ROWS:])
    assert json.loads((tmp_path / "ours" / "config.json").read_text())["num_pred_heads"] == HEADS
    if shards > 1:
        index = json.loads((tmp_path / "back" / "model.safetensors.index.json").read_text())
        assert index["weight_map"].keys() == weights.keys()


def test_the_converted_model_gives_the_published_logits(tmp_path):
    weights = published_weights()
    from_evabyte(write(tmp_path / "published", weights), tmp_path / "ours")
    model = ProxyByteForCausalLM.from_pretrained(tmp_path / "ours", dtype=torch.float64).eval()
    assert type(model.model) is EvaModel
    assert model.config.bos_token_id == 1
    ids = torch.randint(64, 320, (3 * WINDOW + 5,), generator=torch.Generator().manual_seed(1))
    expected = published_logits(weights, ids)
    with torch.no_grad():
        output = model(ids[None], return_head_logits=True)
    torch.testing.assert_close(output.logits[0], expected[:, 0], rtol=0, atol=1e-5)
    torch.testing.assert_close(output.head_logits[0], expected[:, 1:], rtol=0, atol=1e-5)


def test_a_trained_model_goes_out_with_all_its_heads(tmp_path):
    from_evabyte(write(tmp_path / "published", published_weights()), tmp_path / "ours")
    model = ProxyByteForCausalLM.from_pretrained(tmp_path / "ours")
    torch.nn.init.normal_(model.model.norm.weight)
    torch.nn.init.normal_(model.pred_heads.weight)
    model.save_pretrained(tmp_path / "trained")
    to_evabyte(tmp_path / "trained", tmp_path / "back")
    assert json.loads((tmp_path / "back" / "config.json").read_text())["num_pred_heads"] == HEADS
    back = all_weights(tmp_path / "back")
    assert torch.equal(back["lm_head.weight"], torch.cat([model.lm_head.weight, model.pred_heads.weight]))
    assert torch.equal(back["model.norm.weight"], model.model.norm.weight)


def test_heads_in_a_file_of_their_own_go_out_with_the_first(tmp_path):
    ours = from_evabyte(write(tmp_path / "published", published_weights()), tmp_path / "ours")
    weights = load_file(ours / "model.safetensors")
    files = {name: f"model-{1 + (name == 'pred_heads.weight')}.safetensors" for name in weights}
    for file in set(files.values()):
        save_file({name: weight for name, weight in weights.items() if files[name] == file}, ours / file)
    (ours / "model.safetensors").unlink()
    (ours / "SHA256SUMS").unlink()  # the change is ours
    (ours / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))
    back = to_evabyte(ours, tmp_path / "back")
    assert [path.name for path in sorted(back.glob("*.safetensors"))] == ["model-1.safetensors"]
    assert torch.equal(all_weights(back)["lm_head.weight"], published_weights()["lm_head.weight"])


def test_a_model_of_one_head_goes_out_as_one(tmp_path):
    weights = {**published_weights(), "lm_head.weight": torch.randn(ROWS, WIDTH)}
    ours = from_evabyte(write(tmp_path / "published", weights, num_pred_heads=1), tmp_path / "ours")
    assert "pred_heads.weight" not in all_weights(ours)
    back = to_evabyte(ours, tmp_path / "back")
    assert json.loads((back / "config.json").read_text())["num_pred_heads"] == 1
    assert torch.equal(all_weights(back)["lm_head.weight"], weights["lm_head.weight"])


def test_raw_heads_have_no_place_in_that_layout(tmp_path):
    ours = from_evabyte(write(tmp_path / "published", published_weights()), tmp_path / "ours")
    settings = json.loads((ours / "config.json").read_text())
    (ours / "config.json").write_text(json.dumps({**settings, "num_raw_pred_heads": 2}))
    with pytest.raises(ProxyByteError, match="has 2 raw heads: this layout holds full ones alone"):
        to_evabyte(ours, tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_a_vocabulary_with_compressed_symbols_is_kept(tmp_path):
    weights = published_weights()
    weights["model.embed_tokens.weight"] = torch.randn(400, WIDTH)
    weights["lm_head.weight"] = torch.randn(400 * 2, WIDTH)
    source = write(tmp_path / "published", weights, vocab_size=400, num_pred_heads=2)
    model = ProxyByteForCausalLM.from_pretrained(from_evabyte(source, tmp_path / "ours"))
    assert model.config.num_compressed_symbols == 80
    to_evabyte(tmp_path / "ours", tmp_path / "back")
    assert torch.equal(all_weights(tmp_path / "back")["lm_head.weight"], weights["lm_head.weight"])


@pytest.mark.parametrize(
    ("settings", "change", "message"),
    [
        ({"norm_add_unit_offset": False}, {}, "norm_add_unit_offset to False"),
        ({"rope_scaling": {"type": "linear"}}, {}, "sets rope_scaling"),
        ({"model_type": "llama"}, {}, "this takes 'evabyte'"),
        ({"vocab_size": 100}, {}, "it takes 320"),
        ({"num_pred_heads": 2}, {}, r"lm_head.weight has shape \(2560, 32\), not \(640, 32\)"),
        ({}, {"model.norm.weight": None}, "lacks the weight model.norm.weight"),
        ({}, {"model.norm.bias": torch.zeros(3)}, "does not know"),
        ({}, {"model.norm.weight": torch.zeros(3)}, r"has shape \(3,\), not \(32,\)"),
    ],
)
def test_what_is_not_of_the_layout_is_refused_and_leaves_nothing(tmp_path, settings, change, message):
    weights = {name: weight for name, weight in {**published_weights(), **change}.items() if weight is not None}
    source = write(tmp_path / "published", weights, **settings)
    with pytest.raises(ProxyByteError, match=message):
        from_evabyte(source, tmp_path / "ours")
    assert [path.name for path in tmp_path.iterdir()] == ["published"]


def test_the_command_converts_both_ways_and_never_over_a_folder(tmp_path, capsys):
    source = write(tmp_path / "published", published_weights())
    ours, back = tmp_path / "ours", tmp_path / "back"
    assert main(["convert", "evabyte", str(source), "--out", str(ours)]) == 0
    assert main(["convert", "evabyte", str(ours), "--out", str(back), "--back"]) == 0
    assert all_weights(back).keys() == published_weights().keys()
    assert AutoTokenizer.from_pretrained(ours)("a")["input_ids"] == [1, 161]
    assert ProxyByteConfig.from_pretrained(ours).document_opening == "<bos>"
    sentinels = tmp_path / "sentinels"
    assert main(["convert", "evabyte", str(source), "--out", str(sentinels), "--opening", "<bos><raw>"]) == 0
    assert AutoTokenizer.from_pretrained(sentinels)("a")["input_ids"] == [1, 12, 161]
    assert ProxyByteConfig.from_pretrained(sentinels).document_opening == "<bos><raw>"
    assert main(["convert", "evabyte", str(source), "--out", str(back)]) == 2
    assert "exists" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main(["convert", "evabyte", str(tmp_path / "empty"), "--out", str(tmp_path / "new")]) == 2
    assert "config.json cannot be read" in capsys.readouterr().err
