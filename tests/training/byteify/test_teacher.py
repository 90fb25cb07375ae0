"""The teacher's signal against brute force."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from proxybyte import ProxyByteForCausalLM
from proxybyte.byte_codec import encode_bytes
from proxybyte.symbols import BYTE_OFFSET, COMPRESSED_OFFSET, Special
from proxybyte.training.byteify import byteify
from proxybyte.training.byteify.embedding_rows import token_spellings
from proxybyte.training.compressors import encode_one
from proxybyte.training.run.config import TeacherKind
from proxybyte.training.run.lever_config import Ramp
from proxybyte.training.run.raw_spans import raw_spans
from proxybyte.training.run.teacher import Teacher

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


def next_tokens(teacher, codes: list[int]) -> torch.Tensor:
    """The base's distribution of the code after ``codes``, by a pass of its own."""
    symbols = [Special.COMPRESSED_OPEN, *(int(code) + 320 for code in codes)]
    with torch.no_grad():
        logits = teacher.model(torch.tensor([symbols])).logits[0, -1, 320 : 320 + teacher.compressor.num_symbols]
    return logits.softmax(dim=-1)


def bytes_after(chances: torch.Tensor, spellings: list[bytes | None], seen: bytes) -> torch.Tensor:
    """By looking at every token: which byte follows ``seen`` in those that begin with it and go on."""
    by_hand = torch.zeros(256, dtype=torch.float64)
    for chance, spelled in zip(chances.tolist(), spellings, strict=False):
        if spelled and len(spelled) > len(seen) and spelled.startswith(seen):
            by_hand[spelled[len(seen)]] += chance
    return by_hand / by_hand.sum()


def test_the_dense_teacher_goes_on_with_the_tokens_that_begin_with_what_was_seen(base_and_teacher):
    _, border = base_and_teacher
    teacher = replace(border, kind=TeacherKind.DENSE)
    row, spellings = row_of(*TEXTS), token_spellings(border.compressor)
    places, got = teacher.next_bytes(teacher.read(torch.from_numpy(row)))
    found = {(int(r), int(column)): said for r, column, said in zip(*places, got, strict=True)}
    begin = 1
    for text in TEXTS:
        codes = encode_one(teacher.compressor, text).tolist()
        start = 0
        for number, code in enumerate(codes):
            chances, size = next_tokens(teacher, codes[:number]), len(spellings[code])
            for seen in range(size):
                expected = bytes_after(chances, spellings, text[start : start + seen])
                # The byte at start + seen is told at the column before it.
                said = found.pop((0, begin + start + seen - 1))
                torch.testing.assert_close(said.double(), expected, rtol=0, atol=2e-6)
            start += size
        begin += len(text) + 3
    assert not found


def test_the_border_teacher_is_the_dense_one_at_token_ends(base_and_teacher):
    _, border = base_and_teacher
    row = torch.from_numpy(row_of(*TEXTS))
    opinion = border.read(row)
    at_ends, there = border.next_bytes(opinion)
    every, dense = replace(border, kind=TeacherKind.DENSE).next_bytes(opinion)
    lookup = {tuple(place): said for place, said in zip(every.T.tolist(), dense, strict=True)}
    assert len(at_ends.T) < len(every.T)
    for place, said in zip(at_ends.T.tolist(), there, strict=True):
        torch.testing.assert_close(lookup[tuple(place)], said)


def test_documents_do_not_see_each_other_through_the_teacher(base_and_teacher):
    _, teacher = base_and_teacher
    together = teacher.read(torch.from_numpy(row_of(*TEXTS))).chances
    alone = [teacher.read(torch.from_numpy(row_of(text))).chances for text in TEXTS]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-6)


def test_the_tokens_signal_is_the_divergence_at_each_token_end(base_and_teacher):
    _, teacher = base_and_teacher
    row = torch.from_numpy(row_of(*TEXTS))
    opinion = teacher.read(row)
    student = ProxyByteForCausalLM(teacher.model.config).float()
    output = student(row, labels=row, token_places=opinion.ends)
    with torch.no_grad():
        logits = student(row, use_cache=False).logits
    total, column = 0.0, 1
    codes_count = teacher.compressor.num_symbols
    for text in TEXTS:
        codes, end = encode_one(teacher.compressor, text).tolist(), 0
        for number, code in enumerate(codes[:-1]):
            end += len(token_spellings(teacher.compressor)[code])
            wanted = next_tokens(teacher, codes[: number + 1]).double()
            said = logits[0, column + end - 1, 320 : 320 + codes_count].double().log_softmax(dim=-1)
            total += float((wanted * (wanted.log() - said)).sum())
        column += len(text) + 3
    loss = teacher.token_loss(opinion, output.token_logits)
    assert float(loss.detach()) == pytest.approx(total, rel=1e-4)
    loss.backward()
    assert student.lm_head.weight.grad[:COMPRESSED_OFFSET].abs().max() == 0


def test_the_chunks_signal_is_the_divergence_of_tokens_and_their_bytes(base_and_teacher):
    _, plain = base_and_teacher
    teacher = replace(plain, temperature=3.0)
    row = row_of(*TEXTS)
    logits = torch.randn(1, row.shape[1], 400, generator=torch.Generator().manual_seed(0), requires_grad=True)
    said = logits[0, :, :COMPRESSED_OFFSET].detach().double().log_softmax(dim=-1)
    total, column = 0.0, 1
    for text in TEXTS:
        codes, ends = encode_one(teacher.compressor, text).tolist(), [0]
        ends += teacher.compressor.borders(np.array(codes)).tolist()
        for number, code in enumerate(codes[:-1]):
            of_token = float(next_tokens(teacher, codes[:number])[code]) ** (1 / 3)
            places = range(column + ends[number], column + ends[number + 1])
            of_bytes = float(np.exp(sum(float(said[place - 1, row[0, place]]) for place in places))) ** (1 / 3)
            total += of_token * np.log(of_token / of_bytes)
            total += (1 - of_token) * np.log((1 - of_token) / (1 - of_bytes))
        column += len(text) + 3
    input_ids = torch.from_numpy(row)
    loss = teacher.chunk_loss(teacher.read(input_ids), input_ids, logits)
    assert float(loss.detach()) == pytest.approx(total, rel=1e-4)
    loss.backward()
    assert torch.isfinite(logits.grad).all()
    assert logits.grad[..., COMPRESSED_OFFSET:].abs().max() == 0


def test_the_hidden_states_signal_is_one_minus_the_cosine_at_token_ends(base_and_teacher):
    _, teacher = base_and_teacher
    row, layers = row_of(*TEXTS), (1, 2)
    student = ProxyByteForCausalLM(teacher.model.config).float()
    states = student(torch.from_numpy(row), use_cache=False, output_hidden_states=True).hidden_states
    total, column = 0.0, 1
    for text in TEXTS:
        codes = encode_one(teacher.compressor, text).astype(np.int64)
        ends = teacher.compressor.borders(codes)
        for number, end in enumerate(ends.tolist()[:-1], 1):
            read = torch.tensor([[Special.COMPRESSED_OPEN, *(codes[:number] + COMPRESSED_OFFSET)]])
            with torch.no_grad():
                known = teacher.model(read, use_cache=False, output_hidden_states=True).hidden_states
            for layer in layers:
                own, wanted = (
                    v.detach().double().numpy() for v in (states[layer][0, column + end - 1], known[layer][0, -1])
                )
                total += 1 - float(own @ wanted / np.linalg.norm(own) / np.linalg.norm(wanted))
        column += len(text) + 3
    opinion = teacher.read(torch.from_numpy(row), layers)
    loss = teacher.hidden_loss(opinion, [states[layer] for layer in layers])
    assert float(loss.detach()) == pytest.approx(total, rel=1e-4)


def test_the_loss_over_raw_rows_knows_no_others(base_and_teacher):
    _, teacher = base_and_teacher
    student = ProxyByteForCausalLM(teacher.model.config).float()
    labels = torch.from_numpy(row_of(*TEXTS))[:, :-5]
    with torch.no_grad():
        said = student(labels, use_cache=False).logits[0, :-1, :COMPRESSED_OFFSET].log_softmax(dim=-1)
    expected = -said.gather(1, labels[0, 1:, None]).mean()
    output = student(labels, labels=labels, raw_targets_only=True)
    torch.testing.assert_close(output.loss.detach(), expected)
    assert output.loss.detach() < student(labels, labels=labels).loss.detach()


@pytest.mark.parametrize(
    ("hold", "end", "expected"),
    [(1.0, 1.0, [2, 2, 2, 2, 2]), (0.2, 0.8, [2, 4 / 3, 2 / 3, 0, 0]), (0.0, 1.0, [1.6, 1.2, 0.8, 0.4, 0]),
     (0.6, 0.6, [2, 2, 2, 0, 0])],
)  # fmt: skip
def test_a_ramp_is_held_and_falls_to_nothing(hold, end, expected):
    ramp = Ramp(value=2, hold=hold, end=end)
    assert [ramp.at(step, 5) for step in range(5)] == pytest.approx(expected)


def test_a_ramp_that_falls_before_it_is_held_is_refused():
    with pytest.raises(ValueError, match="before hold"):
        Ramp(value=1, hold=0.5, end=0.4)
