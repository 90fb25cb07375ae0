import copy
import json
from collections.abc import Callable, Sequence
from weakref import WeakKeyDictionary

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from proxybyte import ProxyByteConfig, ProxyByteForCausalLM, encode_bytes

TAUGHT = [
    "Q: zwei\nA: deux\n\nQ: drei\nA: trois\n\n",
    "ein Café für zwei: trois",
    "print('<eos>') # a\n",
]
"""What the taught model knows by heart; the second holds two-byte characters, the third spells a sentinel."""


def llama_config(vocab_size: int, **settings) -> LlamaConfig:
    """Small, and with opinions: weights far from their quiet start."""
    shape = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 96,
        "initializer_range": 0.2,
    }
    symbols = {"pad_token_id": 0, "bos_token_id": 12, "eos_token_id": [2, 13]}
    return LlamaConfig(vocab_size=vocab_size, **symbols, **{**shape, **settings})


@pytest.fixture(scope="session")
def byte_llama() -> LlamaForCausalLM:
    """A plain Llama over 320 symbols, as a native export is."""
    torch.manual_seed(0)
    return LlamaForCausalLM(llama_config(320)).eval()


@pytest.fixture(scope="session")
def proxy_llama() -> ProxyByteForCausalLM:
    """Our own class, with 50 compressed symbols."""
    torch.manual_seed(0)
    backbone = llama_config(370)
    return ProxyByteForCausalLM(ProxyByteConfig(backbone_config=backbone, num_compressed_symbols=50)).eval()


@pytest.fixture(scope="session")
def taught_llama() -> LlamaForCausalLM:
    """A native model trained until it knows ``TAUGHT`` by heart, each document closed by ``</raw><eos>``."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(llama_config(320, initializer_range=0.05, hidden_size=64, max_position_embeddings=1024))
    rows = [torch.tensor([12, *encode_bytes(text.encode()), 13, 2]) for text in TAUGHT]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=0)
    labels = ids.masked_fill(ids == 0, -100)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(120):
        loss = model(input_ids=ids, labels=labels, use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss < 0.1
    return model.eval()


@pytest.fixture(scope="session")
def drafting_llama() -> ProxyByteForCausalLM:
    """Our own class with four raw heads, trained on ``TAUGHT`` until both they and the head are mostly right."""
    torch.manual_seed(0)
    backbone = llama_config(370, initializer_range=0.05, hidden_size=64, max_position_embeddings=1024)
    model = ProxyByteForCausalLM(
        ProxyByteConfig(backbone_config=backbone, num_compressed_symbols=50, num_raw_pred_heads=4)
    )
    rows = [torch.tensor([12, *encode_bytes(text.encode()), 13, 2]) for text in TAUGHT]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(120):
        model(input_ids=ids, labels=ids.masked_fill(ids == 0, -100)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


@pytest.fixture(scope="session")
def token_llama() -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """A tokenizer model and its byte-level BPE of a handful of merges."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: number for number, token in enumerate([*letters, "sp", "spam", "am", "<|end|>"])}
    backend = Tokenizer(models.BPE(vocab=vocab, merges=[("s", "p"), ("a", "m"), ("sp", "am")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<|end|>", eos_token="<|end|>")
    torch.manual_seed(0)
    return LlamaForCausalLM(llama_config(len(tokenizer))).eval(), tokenizer


PROBLEMS = [
    {
        "task_id": f"Tiny/{number}",
        "prompt": f'def {name}(x):\n    """{text}"""\n',
        "entry_point": name,
        "canonical_solution": f"    return {value}\n",
        "test": f"def check(candidate):\n    for x in (0, 3, 10):\n        assert candidate(x) == {value}\n",
    }
    for number, (name, text, value) in enumerate(
        [("add_one", "Add one to x.", "x + 1"), ("twice", "Twice x.", "2 * x"), ("square", "x times x.", "x ** 2")]
    )
]
"""Three problems in HumanEval's form."""
WRITTEN = ["    return x + 1\n\nprint(1 / 0)\n", "    return 2 * x\n#", "    return x * 3\n"]
"""What the solver answers: right but for a stop string and what follows it; right; wrong."""


@pytest.fixture(scope="session")
def problems_file(tmp_path_factory):
    file = tmp_path_factory.mktemp("problems") / "tiny.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in PROBLEMS))
    return file


@pytest.fixture(scope="session")
def solver(tmp_path_factory):
    """Folder of a native model that has learned by heart to answer ``PROBLEMS`` with ``WRITTEN``."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(llama_config(320, initializer_range=0.05, hidden_size=64, max_position_embeddings=256))
    texts = [row["prompt"] + answer for row, answer in zip(PROBLEMS, WRITTEN, strict=True)]
    rows = [torch.tensor([12, *encode_bytes(text.encode()), 13, 2]) for text in texts]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=0)
    labels = ids.masked_fill(ids == 0, -100)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(150):
        loss = model(input_ids=ids, labels=labels, use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss < 0.1
    folder = tmp_path_factory.mktemp("solver")
    model.eval().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def reference() -> Callable[..., list[float]]:
    """Nats of each of ``symbols`` after ``prefix``, by full logits in float64: the definition, spelled out.

    Where all symbols are raw the softmax is over the raw symbols alone.
    """
    exact: WeakKeyDictionary = WeakKeyDictionary()

    def nats(model, prefix: Sequence[int], symbols: Sequence[int]) -> list[float]:
        if model not in exact:
            exact[model] = copy.deepcopy(model).double()
        with torch.no_grad():
            logits = exact[model](input_ids=torch.tensor([[*prefix, *symbols]]), use_cache=False).logits[0]
        raw = all(symbol < 320 for symbol in symbols) and 12 in prefix[:2]
        log_p = torch.log_softmax(logits[:, : 320 if raw else None], dim=-1)
        return [-float(log_p[len(prefix) + number - 1, symbol]) for number, symbol in enumerate(symbols)]

    return nats
