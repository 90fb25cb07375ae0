"""The teacher's signal against brute force."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from proxybyte import ProxyByteForCausalLM
from proxybyte.byte_codec import encode_bytes
from proxybyte.symbols import BYTE_OFFSET, Special
from proxybyte.training.byteify import byteify
from proxybyte.training.byteify.rows import token_spellings
from proxybyte.training.compressors import encode_one
from proxybyte.training.run.teacher import Teacher, raw_spans

TEXTS = [b"def f(x):\n    return x", b"it's 3.14"]


@pytest.fixture(scope="module", params=["byte-level", "gemma-pieces"])
def base_and_teacher(make_base, tmp_path_factory, request):
    base, out = make_base("llama", request.param), tmp_path_factory.mktemp("teacher") / "model"
    byteify(str(base), out)
    return base, Teacher.load(out, out / "compressor", 0.5, torch.device("cpu"))


def row_of(*texts: bytes) -> np.ndarray:
    parts = [[Special.RAW_OPEN, *encode_bytes(text).tolist(), Special.RAW_CLOSE, Special.EOS] for text in texts]
    flat = [symbol for part in parts for symbol in part]
    return np.array([[*flat, Special.COMPRESSED_OPEN, 330, 331, Special.COMPRESSED_CLOSE, Special.PAD]])


def test_token_ends_are_where_the_tokens_of_each_document_end(base_and_teacher):
    _, teacher = base_and_teacher
    row = row_of(*TEXTS)
    spans = raw_spans(row, teacher.compressor)
    assert len(spans) == len(TEXTS)
    begin = 1
    for span, text in zip(spans, TEXTS, strict=True):
        assert span.codes.tolist() == encode_one(teacher.compressor, text).tolist()
        for count, place in enumerate(span.places.tolist(), 1):
            spelled = teacher.compressor.decode(span.codes[:count])
            assert encode_bytes(spelled).tolist() == row[0, begin : place + 1].tolist()
        begin += len(text) + 3


def test_the_next_byte_is_the_bases_next_token_by_its_first_byte(base_and_teacher):
    _, teacher = base_and_teacher
    codes = encode_one(teacher.compressor, TEXTS[0])
    got = teacher.next_byte(codes)
    with torch.no_grad():
        opened = teacher.model(torch.tensor([[Special.COMPRESSED_OPEN, *(codes.astype(np.int64) + 320)]])).logits[0, 1:]
    chances = opened[:, 320 : 320 + teacher.compressor.num_symbols].softmax(dim=-1)
    for place in range(len(codes)):
        by_hand = torch.zeros(256)
        for token, spelled in enumerate(token_spellings(teacher.compressor)):
            if spelled:
                by_hand[spelled[0]] += chances[place, token]
        torch.testing.assert_close(got[place], by_hand / by_hand.sum(), rtol=0, atol=1e-6)


def test_the_loss_is_the_weighted_cross_entropy_at_token_ends(base_and_teacher):
    _, teacher = base_and_teacher
    row = row_of(*TEXTS)
    logits = torch.randn(1, row.shape[1], 400, generator=torch.Generator().manual_seed(0), requires_grad=True)
    total = 0.0
    for span in raw_spans(row, teacher.compressor):
        wanted = teacher.next_byte(span.codes)
        for place, target in zip(span.places.tolist(), wanted, strict=False):
            said = logits[0, place, BYTE_OFFSET : BYTE_OFFSET + 256].log_softmax(dim=-1)
            total -= float((target * said.detach()).sum())
    loss = teacher.loss(torch.from_numpy(row), logits)
    assert float(loss.detach()) == pytest.approx(0.5 * total, rel=1e-5)
    loss.backward()
    assert logits.grad[..., :BYTE_OFFSET].abs().max() == 0
    assert not any(weight.requires_grad for weight in teacher.model.parameters())


def test_rows_without_raw_text_cost_nothing(base_and_teacher):
    _, teacher = base_and_teacher
    row = np.array([[Special.COMPRESSED_OPEN, 330, 331, Special.COMPRESSED_CLOSE]])
    assert float(teacher.loss(torch.from_numpy(row), torch.zeros(1, 4, 400))) == 0


def test_the_teacher_is_the_base_through_the_compressed_view(base_and_teacher):
    base, teacher = base_and_teacher
    assert isinstance(teacher.model, ProxyByteForCausalLM)
    theirs = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    tokens = torch.randint(5, 300, (1, 9), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        got = teacher.model(tokens + 320).logits[..., 320:]
        torch.testing.assert_close(got, theirs(tokens).logits, rtol=0, atol=1e-4)
