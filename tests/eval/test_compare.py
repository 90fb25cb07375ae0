"""``proxybyte compare``: against bits that are worked out one byte at a time in float64."""

import json
import math

import numpy as np
import pytest
import torch

from proxybyte import ProxyByteConfig, ProxyByteForCausalLM, build_tokenizer, save_tokenizer
from proxybyte.cli import main
from proxybyte.eval.comparing import ByteKind, Comparison, compare_models, kind_of

SHAPE = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
}
TEXTS = [b"def f(x):\n    return 42\n", "né\n".encode(), b"tab\t9 " * 20]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = []
    for seed, rope in ((0, 10_000.0), (1, 500.0)):
        torch.manual_seed(seed)
        backbone = {**SHAPE, "rope_parameters": {"rope_type": "default", "rope_theta": rope}}
        model = ProxyByteForCausalLM(ProxyByteConfig(backbone_config=backbone, num_compressed_symbols=8)).eval()
        folder = tmp_path_factory.mktemp("models") / f"m{seed}"
        model.save_pretrained(folder)
        save_tokenizer(build_tokenizer(), folder)
        made.append(folder)
    return made


def slow_bits(folder, text: bytes) -> list[float]:
    """Each byte's bits, from a forward pass of its own in float64: byte ``b`` is symbol ``64 + b`` after ``<raw>``."""
    model = ProxyByteForCausalLM.from_pretrained(folder).double().eval()
    bits = []
    with torch.no_grad():
        for end in range(len(text)):
            symbols = torch.tensor([[12, *(64 + byte for byte in text[:end])]])
            logits = model(input_ids=symbols).logits[0, -1, :320]
            bits.append(float(torch.logsumexp(logits, 0) - logits[64 + text[end]]) / math.log(2))
    return bits


@pytest.fixture(scope="module")
def slow(folders):
    heads = [text[:40] for text in TEXTS]
    return heads, [[slow_bits(folder, head) for folder in folders] for head in heads]


def test_bits_places_and_kinds_are_those_worked_out_one_by_one(folders, slow):
    heads, bits = slow
    models = [ProxyByteForCausalLM.from_pretrained(folder) for folder in folders]
    made = compare_models(*models, [*TEXTS, b""], 40)
    assert list(made.texts) == heads
    for mine, theirs in zip(made.bits, bits, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-4)
    every = [(d, o, a, b) for d, (x, y) in enumerate(bits) for o, (a, b) in enumerate(zip(x, y, strict=True))]
    total = len(every)
    wanted = (sum(a for _, _, a, _ in every) / total, sum(b for _, _, _, b in every) / total)
    assert made.bits_per_byte == pytest.approx(wanted, abs=1e-4)
    assert made.first_is_better == sum(sum(x) < sum(y) for x, y in bits)
    ranked = sorted(every, key=lambda entry: -abs(entry[2] - entry[3]))[:5]
    places = made.most_different(5)
    assert [(place.document, place.offset) for place in places] == [(d, o) for d, o, _, _ in ranked]
    for place in places:
        assert place.byte == heads[place.document][place.offset]
        assert heads[place.document][: place.offset].endswith(place.before)
    digits = [(a, b) for d, o, a, b in every if heads[d][o : o + 1].isdigit()]
    count, first, second = made.by_kind()[ByteKind.DIGIT]
    assert count == len(digits)
    assert (first, second) == pytest.approx(tuple(np.mean(digits, axis=0)), abs=1e-4)
    assert sum(count for count, _, _ in made.by_kind().values()) == total


def test_both_read_what_both_contexts_hold(folders):
    models = [ProxyByteForCausalLM.from_pretrained(folder) for folder in folders]
    assert [len(text) for text in compare_models(*models, [b"x" * 500]).texts] == [63]


def test_equal_differences_come_in_the_order_of_the_text():
    bits = [np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[5.0], [1.0]])]
    places = Comparison([b"ab", b"c"], bits).most_different(3)
    assert [(place.document, place.offset) for place in places] == [(1, 0), (0, 0), (0, 1)]


@pytest.mark.parametrize(
    ("byte", "kind"),
    [("a", "letters"), ("Z", "letters"), ("7", "digits"), (" ", "spaces"), ("\t", "spaces"), ("\n", "line feeds"),
     ("{", "other ASCII"), ("\0", "other ASCII")],
)  # fmt: skip
def test_kinds_of_bytes(byte, kind):
    assert kind_of(ord(byte)) == kind
    assert kind_of(0xC3) == "beyond ASCII"


def test_the_command_lists_differences_of_configuration_and_of_bytes(folders, slow, tmp_path, capsys):
    (tmp_path / "data.jsonl").write_text(json.dumps({"text": TEXTS[0].decode()}) + "\n")
    words = ["compare", *map(str, folders), "--data", str(tmp_path / "data.jsonl"), "--max-bytes", "40"]
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    changed = {name: both for name, both in told["differences"].items() if "rope_theta" in name}
    assert list(changed.values()) == [[10_000.0, 500.0]]
    assert len(told["differences"]) == 1
    bits = slow[1][0]
    assert told["text"]["bits_per_byte"] == pytest.approx([np.mean(bits[0]), np.mean(bits[1])], abs=1e-4)
    assert len(told["text"]["places"]) == 10
    assert main(words) == 0
    table = capsys.readouterr().out
    assert "rope_theta" in table
    assert f"{np.mean(bits[0]):.3f}" in table


def test_a_model_is_the_same_as_itself(folders, capsys):
    assert main(["compare", str(folders[0]), str(folders[0])]) == 0
    assert "configuration and origin are the same" in capsys.readouterr().out
