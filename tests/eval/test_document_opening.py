"""A model trained on documents that open with ``<bos>`` alone is scored and prompted so, whoever asks."""

import math
import re

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers import AutoTokenizer

from proxybyte import ProxyByteConfig, ProxyByteForCausalLM, build_tokenizer, encode_bytes, save_tokenizer
from proxybyte.cli import main
from proxybyte.errors import ProxyByteError
from proxybyte.eval import bits_per_byte
from proxybyte.eval.code.completers import ByteCompleter, Decoding
from proxybyte.symbols import View, document_opening

TEXT = b"def f(x):\n    return x\n"
SHAPE = {
    "model_type": "llama",
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
}


def symbols(text: bytes) -> list[int]:
    return [64 + byte for byte in text]


def nats(model, opening: list[int], text: bytes) -> float:
    """-ln p(text | opening), from the logits of one plain pass."""
    ids = torch.tensor([[*opening, *symbols(text)]])
    with torch.no_grad():
        logits = model(input_ids=ids).logits[0, len(opening) - 1 : -1, :320]
    return float(F.cross_entropy(logits.double(), torch.tensor(symbols(text)), reduction="sum"))


@pytest.fixture(scope="module")
def taught():
    """Knows TEXT by heart behind <bos>; its documents have no sentinel."""
    torch.manual_seed(0)
    model = ProxyByteForCausalLM(ProxyByteConfig(backbone_config=SHAPE, document_opening="<bos>"))
    ids = torch.tensor([[1, *symbols(TEXT), 2]])
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(60):
        model(input_ids=ids, labels=ids, position_ids=torch.arange(ids.shape[1])[None]).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


def test_bits_per_byte_are_those_behind_bos(taught):
    right, wrong = (nats(taught, opening, TEXT) / math.log(2) / len(TEXT) for opening in ([1], [12]))
    assert wrong > right + 0.05
    assert bits_per_byte(taught, [TEXT]).bits_per_byte == pytest.approx(right, abs=1e-4)


def test_lm_eval_asks_behind_bos(taught):
    pytest.importorskip("lm_eval")
    from lm_eval.api.instance import Instance

    from proxybyte.eval.lm_eval_model import ProxyByteLM

    lm = ProxyByteLM(taught)
    (rolling,) = lm.loglikelihood_rolling([Instance("loglikelihood_rolling", {}, (TEXT.decode(),), 0)], True)
    assert rolling == pytest.approx(-nats(taught, [1], TEXT), abs=1e-3)
    pair = (TEXT[:4].decode(), TEXT[4:].decode())
    ((found, greedy),) = lm.loglikelihood([Instance("loglikelihood", {}, pair, 0)], True)
    assert found == pytest.approx(-nats(taught, [1, *symbols(TEXT[:4])], TEXT[4:]), abs=1e-3)
    assert greedy
    assert lm.tokenizer("a")["input_ids"] == [1, 161]


def test_code_is_completed_behind_bos(taught):
    completer = ByteCompleter(taught, Decoding(temperature=0.0), max_new=40, room=80)
    assert completer.complete([TEXT[:3].decode()], [], 0) == [TEXT[3:].decode()]
    seen = []
    handle = taught.model.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs["input_ids"]), with_kwargs=True
    )
    completer.complete(["def"], [], 0)
    handle.remove()
    assert seen[0].tolist() == [[1, *symbols(b"def")]]


def test_the_commands_ask_the_configuration(taught, tmp_path, capsys):
    taught.save_pretrained(tmp_path / "model")
    save_tokenizer(build_tokenizer(opening="<bos>"), tmp_path / "model")
    (tmp_path / "held.txt").write_bytes(TEXT)
    data = str(tmp_path / "held.txt")
    assert main(["eval", "bpb", str(tmp_path / "model"), "--data", data, "--no-baselines", "--json"]) == 0
    found = re.search(r'"bits_per_byte": ([0-9.e-]+)', capsys.readouterr().out)
    assert float(found[1]) == pytest.approx(nats(taught, [1], TEXT) / math.log(2) / len(TEXT), abs=1e-4)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert (tokenizer("a")["input_ids"], tokenizer.bos_token) == ([1, 161], "<bos>")


@pytest.mark.parametrize(
    ("settings", "raw", "compressed"),
    [
        ({}, (12,), (14,)),
        ({"document_opening": "<bos><raw>"}, (1, 12), (1, 14)),
        ({"document_opening": "<bos>"}, (1,), (14,)),
        ({"document_prefix": True}, (1, 12), (1, 14)),
        ({"document_prefix": False}, (12,), (14,)),
        ({"document_prefix": False, "bos_token_id": 1}, (1,), (14,)),
    ],
)
def test_the_opening_survives_saving_and_folders_of_earlier_versions_are_understood(
    settings, raw, compressed, tmp_path
):
    ProxyByteConfig(backbone_config=SHAPE, **settings).save_pretrained(tmp_path)
    config = ProxyByteConfig.from_pretrained(tmp_path)
    assert (document_opening(config), document_opening(config, View.COMPRESSED)) == (raw, compressed)
    chat = build_tokenizer(chat=True, opening=config.document_opening)
    ids = chat.apply_chat_template([{"role": "user", "content": "<bos>"}], return_dict=False)
    assert ids[: len(raw) + 1] == [*raw, 9]
    assert np.array_equal(ids[-6:-1], encode_bytes(b"<bos>"))


def test_an_opening_that_is_none_is_refused():
    with pytest.raises(ProxyByteError, match=r"document_opening is '<comp>': give one of <raw>, <bos><raw>, <bos>"):
        ProxyByteConfig(backbone_config=SHAPE, document_opening="<comp>")
