"""Tiny bases of every family, with real tokenizers trained on the spot."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from proxybyte.training.corpus import CorpusOptions, collect_corpus
from proxybyte.training.corpus.split import SplitRule
from proxybyte.training.prepare import PrepareOptions, prepare_corpus

TEXTS = [
    "def f(x, *args):\n    return {'a': [x ** 2, 0xFF]}  # two  spaces\n",
    "The quick brown fox jumps over the lazy dog, and the dog sleeps; it's 3.14 o'clock.",
    "import os\nimport sys\n\nfor name in sorted(os.listdir('.')):\n    print(name, file=sys.stderr)\n",
    "café naïve 東京 русский \U0001f642",
] * 8
SPECIALS = ["<s>", "</s>", "<pad>", "<|im_start|>", "<|im_end|>"]
WIDTH = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
FAMILIES: dict[str, dict] = {
    "llama": {**WIDTH, "num_key_value_heads": 2, "tie_word_embeddings": False},
    "llama-tied": {**WIDTH, "num_key_value_heads": 2, "tie_word_embeddings": True},
    "mistral": {**WIDTH, "num_key_value_heads": 2, "sliding_window": 8},
    "qwen2": {**WIDTH, "num_key_value_heads": 2, "tie_word_embeddings": True},
    "qwen3": {**WIDTH, "num_key_value_heads": 2, "head_dim": 8, "tie_word_embeddings": True},
    "smollm3": {**WIDTH, "num_key_value_heads": 2, "num_hidden_layers": 4},
    "gemma": {**WIDTH, "num_key_value_heads": 1, "head_dim": 8},
    "gemma2": {**WIDTH, "num_key_value_heads": 2, "head_dim": 8, "sliding_window": 8, "query_pre_attn_scalar": 8,
               "final_logit_softcapping": 0.5, "attn_logit_softcapping": 1.0},
    "gemma3_text": {**WIDTH, "num_key_value_heads": 2, "head_dim": 8, "sliding_window": 8, "query_pre_attn_scalar": 8,
                    "num_hidden_layers": 7},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4},
}  # fmt: skip
"""Settings by family; what stands after a dash only names the variant."""


def byte_level() -> Tokenizer:
    """GPT-2's layout."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=SPECIALS
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def sentencepiece(*, prepend: bool) -> Tokenizer:
    """Llama's layout (``prepend``: a low line goes before the text) or Gemma's, with byte fallback."""
    learner = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    learner.normalizer = normalizers.Replace(" ", "\u2581")
    ascii_only = [text for text in TEXTS if text.isascii()]
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=460, special_tokens=["<unk>", *SPECIALS, *bytes_])
    learner.train_from_iterator(ascii_only, trainer)
    steps = [normalizers.Prepend("\u2581")] if prepend else []
    # Read again without the trainer's special bytes, which are ordinary pieces.
    spec = json.loads(learner.to_str())
    spec["added_tokens"] = [entry for entry in spec["added_tokens"] if not entry["content"].startswith("<0x")]
    tokenizer = Tokenizer.from_str(json.dumps(spec))
    tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "\u2581")])
    strip = [decoders.Strip(" ", 1, 0)] if prepend else []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    return tokenizer


def lower_casing() -> Tokenizer:
    """BERT's habit: text comes back in small letters."""
    tokenizer = byte_level()
    tokenizer.normalizer = normalizers.Lowercase()
    return tokenizer


TOKENIZERS: dict[str, Callable[[], Tokenizer]] = {
    "byte-level": byte_level,
    "llama-pieces": lambda: sentencepiece(prepend=True),
    "gemma-pieces": lambda: sentencepiece(prepend=False),
    "lower-casing": lower_casing,
}


def wrap(backend: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", pad_token="<pad>")


@pytest.fixture(scope="session")
def make_base(tmp_path_factory) -> Callable[..., Path]:
    """A folder with a tiny random base; ``padding`` rows of the embedding lie beyond the tokenizer's ids."""

    def make(family: str, tokenizer: str = "byte-level", padding: int = 5, dtype=torch.float64, **changes) -> Path:
        folder = tmp_path_factory.mktemp(family)
        backend = TOKENIZERS[tokenizer]()
        wrapped = wrap(backend)
        settings = {**FAMILIES[family], **changes}
        ids = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
        config = AutoConfig.for_model(
            family.removesuffix("-tied"), vocab_size=backend.get_vocab_size() + padding, **ids, **settings
        )
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
        with torch.no_grad():
            # Small initial weights would hide what a cap or a scale does.
            for weight in model.parameters():
                if weight.ndim > 1:
                    weight.mul_(4)
        model.save_pretrained(folder)
        wrapped.save_pretrained(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def prepare_texts(tmp_path_factory) -> Callable[[Path], Path]:
    """Prepares the texts with the compressor that a byteified folder carries."""
    made: dict[Path, Path] = {}

    def prepare(model: Path) -> Path:
        if model not in made:
            folder = tmp_path_factory.mktemp("data")
            lines = [json.dumps({"text": f"{number}: {text}"}) for number, text in enumerate(TEXTS)]
            (folder / "texts.jsonl").write_text("\n".join(lines))
            split = SplitRule(validation_share=0.2)
            collect_corpus(CorpusOptions(folder / "corpus", paths=(folder / "texts.jsonl",), split=split))
            prepare_corpus(PrepareOptions(folder / "corpus", str(model), folder / "prepared", workers=1))
            made[model] = folder / "prepared"
        return made[model]

    return prepare
