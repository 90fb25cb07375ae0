"""The next byte of an unmodified tokenizer model against sums over all tokens, and over all codings."""

import itertools
import math

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import proxybyte
from proxybyte.errors import ProxyByteError
from proxybyte.training.byteify.embedding_rows import token_spellings
from proxybyte.training.byteify.next_bytes import END, ByteView
from proxybyte.training.compressors import encode_one
from proxybyte.training.compressors.bpe import BpeCompressor

TEXTS = [b"", b"d", b"def f(x", b"The quick bro", b"it's 3.1", "caf\u00e9 \u6771".encode()[:-1]]


@pytest.fixture(scope="module")
def base(make_base):
    folder = make_base("llama", padding=0)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    return model.eval(), AutoTokenizer.from_pretrained(folder)


class ByHand:
    """One pass of the model for every coding, one look at every token."""

    def __init__(self, model, tokenizer):
        self.model, self.tokenizer = model, tokenizer
        self.coder = BpeCompressor(tokenizer.backend_tokenizer.to_str(), "here")
        self.spellings = token_spellings(self.coder)

    def next_tokens(self, codes) -> torch.Tensor:
        with torch.no_grad():
            ids = torch.tensor([[self.tokenizer.bos_token_id, *codes]])
            return self.model(input_ids=ids, use_cache=False).logits[0].softmax(dim=-1)

    def next_byte(self, text: bytes) -> torch.Tensor:
        said = torch.zeros(257, dtype=torch.float64)
        for place in range(len(text) + 1):
            codes = encode_one(self.coder, text[:place]).tolist()
            chances = self.next_tokens(codes)
            before = math.prod(float(chances[step, code]) for step, code in enumerate(codes))
            rest = text[place:]
            for code, spelled in enumerate(self.spellings):
                if spelled and len(spelled) > len(rest) and spelled.startswith(rest):
                    said[spelled[len(rest)]] += before * float(chances[-1, code])
            if not rest:
                said[END] += before * float(chances[-1, self.tokenizer.eos_token_id])
        return said / said.sum()


def test_the_next_byte_is_that_of_all_tokens_across_the_end(base):
    view, by_hand = ByteView(*base), ByHand(*base)
    got = view.next_byte(TEXTS)
    assert got.shape == (len(TEXTS), 257)
    for text, said in zip(TEXTS, got, strict=True):
        torch.testing.assert_close(said, by_hand.next_byte(text), rtol=0, atol=1e-9)
        torch.testing.assert_close(view.next_byte([text])[0], said, rtol=0, atol=1e-9)


def test_bits_are_those_of_the_bytes_one_after_another(base):
    view = ByteView(*base)
    texts = [b"def f(x):\n", b"quick"]
    expected = [
        -sum(math.log2(view.next_byte([text[:place]])[0, byte]) for place, byte in enumerate(text)) for text in texts
    ]
    assert view.bits(texts) == pytest.approx(expected, rel=1e-9)


def test_greedy_generation_takes_the_likeliest_byte_each_time(base):
    view = ByteView(*base)
    prompts = [b"def f(", b"The"]
    got = view.generate(prompts, 8)
    for prompt, new in zip(prompts, got, strict=True):
        text = prompt
        for byte in new:
            assert int(view.next_byte([text])[0].argmax()) == byte
            text += bytes([byte])
        assert len(new) == 8 or int(view.next_byte([text])[0].argmax()) == END


def test_draws_follow_the_seed(base):
    view = ByteView(*base)
    one, again, other = (view.generate([b"ab", b"c"], 6, do_sample=True, seed=seed) for seed in (1, 1, 2))
    assert one == again
    assert one != other


def tiny() -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """Three bytes and two merges, so that all codings of a short text can be listed."""
    vocab = {"<s>": 0, "</s>": 1, "a": 2, "b": 3, "ab": 4, "aba": 5}
    backend = Tokenizer(models.BPE(vocab, [("a", "b"), ("ab", "a")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=6, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, initializer_range=0.3,
    )  # fmt: skip
    return LlamaForCausalLM(config).double().eval(), tokenizer


def over_all_codings(by_hand: ByHand, text: bytes) -> torch.Tensor:
    """The exact marginal: every sequence of tokens whose last one is the first to reach over the end of the text."""
    said = torch.zeros(257, dtype=torch.float64)
    spelled = [(code, word) for code, word in enumerate(by_hand.spellings) if word]
    for count in range(len(text) + 1):
        for codes in itertools.product(spelled, repeat=count):
            before = b"".join(word for _, word in codes)
            if not text.startswith(before):
                continue
            chances = by_hand.next_tokens([code for code, _ in codes])
            weight = math.prod(float(chances[step, code]) for step, (code, _) in enumerate(codes))
            rest = text[len(before) :]
            for code, word in spelled:
                if len(word) > len(rest) and word.startswith(rest):
                    said[word[len(rest)]] += weight * float(chances[-1, code])
            if not rest:
                said[END] += weight * float(chances[-1, by_hand.tokenizer.eos_token_id])
    return said / said.sum()


def test_other_codings_of_the_text_before_are_what_is_left_out():
    model, tokenizer = tiny()
    view, by_hand = ByteView(model, tokenizer), ByHand(model, tokenizer)
    for text in (b"", b"a", b"b"):
        # Texts of one coding: nothing is left out.
        torch.testing.assert_close(view.next_byte([text])[0], over_all_codings(by_hand, text), rtol=0, atol=1e-12)
    gaps = [
        float((view.next_byte([text])[0] - over_all_codings(by_hand, text)).abs().sum() / 2)
        for text in (b"ab", b"aba", b"abab")
    ]
    # Total variation for random weights, which know no canonical coding: not nothing, and bounded.
    assert 0 < max(gaps) < 0.25


def test_it_is_a_public_name(base):
    assert isinstance(proxybyte.bytes_of(*base), ByteView)


def test_a_slow_tokenizer_is_refused(base):
    with pytest.raises(ProxyByteError, match="slow"):
        ByteView(base[0], object())
