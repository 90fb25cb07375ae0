"""What cannot be turned is refused before a weight is written, with the reason and what to do."""

import json

import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizer,
    CohereConfig,
    MambaConfig,
    PhiConfig,
    PreTrainedTokenizerFast,
    T5Config,
)

from proxybyte.errors import ProxyByteError
from proxybyte.training.byteify import byteify
from proxybyte.training.commands.byteify import COMMAND


def refused(base, tmp_path, words: str) -> None:
    with pytest.raises(ProxyByteError, match=words) as error:
        byteify(str(base), tmp_path / "out")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob("out*"))


def rewrite_config(base, **changes) -> None:
    path = base / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (BertConfig(), "'bert' is no text decoder"),
        (T5Config(), "'t5' is no text decoder"),
        (MambaConfig(), "'mamba' carries a state"),
        (CohereConfig(), "'cohere' changes its logits by 'logit_scale'"),
    ],
)
def test_what_is_no_plain_decoder_is_named(tmp_path, config, words):
    config.save_pretrained(tmp_path / "base")
    refused(tmp_path / "base", tmp_path, words)


def test_an_encoder_with_its_tokenizer_is_refused(tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    BertTokenizer(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path / "base")
    small = BertConfig(vocab_size=6, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    BertModel(small).save_pretrained(tmp_path / "base")
    refused(tmp_path / "base", tmp_path, "no text decoder")


def test_a_model_that_reads_bytes_already_is_refused(make_base, tmp_path):
    byteify(str(make_base("llama")), tmp_path / "first")
    refused(tmp_path / "first", tmp_path, r"reads bytes already: train it with model\.checkpoint=")


def test_a_bias_in_the_head_has_no_place(make_base, tmp_path):
    base = make_base("llama")
    small = PhiConfig(
        vocab_size=405, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4,
        bos_token_id=0, eos_token_id=1, pad_token_id=2,
    )  # fmt: skip
    small.save_pretrained(base)
    refused(base, tmp_path, r"a 'phi' model keeps lm_head\.bias")


def test_a_tokenizer_that_makes_letters_small_is_refused(make_base, tmp_path):
    refused(
        make_base("llama", "lower-casing"),
        tmp_path,
        "its tokenizer loses text.*its normaliser would change the text.*byte-level",
    )


def test_a_tokenizer_that_does_not_know_a_character_is_refused(make_base, tmp_path):
    base = make_base("llama")
    backend = Tokenizer(models.WordLevel({"<unk>": 0, "The": 1}, unk_token="<unk>"))
    PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>").save_pretrained(base)
    refused(base, tmp_path, "its tokenizer loses text")


def test_a_slow_tokenizer_is_refused(make_base, tmp_path):
    base = make_base("llama")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (base / name).unlink(missing_ok=True)
    (base / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "ByT5Tokenizer"}))
    refused(base, tmp_path, r"its tokenizer \(ByT5Tokenizer\) is slow.*tokenizer\.json")


def test_a_folder_without_a_tokenizer_is_told_what_it_lacks(make_base, tmp_path):
    base = make_base("llama")
    for path in base.glob("token*"):
        path.unlink()
    refused(base, tmp_path, r"holds no tokenizer: copy in the tokenizer\.json")


def test_more_tokens_than_rows_is_refused(make_base, tmp_path):
    base = make_base("llama")
    rewrite_config(base, vocab_size=100)
    refused(base, tmp_path, "ids up to 399 but its embedding has 100 rows")


def test_rows_that_the_weights_do_not_have_are_noticed(make_base, tmp_path):
    base = make_base("llama")
    rewrite_config(base, vocab_size=500)
    refused(base, tmp_path, "do not fit|cannot be opened")


def test_quantised_weights_are_refused(make_base, tmp_path):
    base = make_base("llama")
    rewrite_config(base, quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True})
    refused(base, tmp_path, "its weights are quantised: save it in float32 or bfloat16")


def test_too_little_memory_is_refused_before_weights_are_read(make_base, tmp_path):
    base = make_base("llama")
    (base / "model.safetensors").write_bytes(b"never read")
    rewrite_config(base, hidden_size=4_000_000, intermediate_size=10_000_000)
    refused(base, tmp_path, r"takes \d{6,}\.\d GB of memory and \d+\.\d GB are free: pass --dtype bfloat16")


def test_a_damaged_weight_file_is_one_sentence(make_base, tmp_path):
    base = make_base("llama")
    (base / "model.safetensors").write_bytes(b"cut short")
    refused(base, tmp_path, "cannot be opened as a model of Transformers")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("./absent", "no such file or folder"),
        ("absent.gguf", "no such file or folder"),
        ("empty", "holds neither config.json nor a GGUF file"),
        ("x.bin", "no .gguf"),
    ],
)
def test_paths_that_hold_no_model_are_named(tmp_path, monkeypatch, given, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "x.bin").write_bytes(b"")
    refused(given, tmp_path, words)


def test_a_folder_that_holds_something_else_is_not_replaced(make_base, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    with pytest.raises(ProxyByteError, match="will not be replaced"):
        byteify(str(make_base("llama")), tmp_path / "out")
    assert (tmp_path / "out" / "thesis.txt").read_text() == "years of work"


def test_an_earlier_output_stays_whole_until_the_new_one_is(make_base, tmp_path):
    first, broken = make_base("llama", dtype=torch.float32), make_base("qwen3")
    byteify(str(first), tmp_path / "out")
    before = (tmp_path / "out" / "model.safetensors").read_bytes()
    (broken / "model.safetensors").write_bytes(b"cut short")
    with pytest.raises(ProxyByteError):
        byteify(str(broken), tmp_path / "out")
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == before
    byteify(str(make_base("qwen3")), tmp_path / "out")
    assert json.loads((tmp_path / "out" / "byteify.json").read_text())["family"] == "qwen3"


def test_the_command_has_examples():
    assert "--out" in COMMAND.examples
