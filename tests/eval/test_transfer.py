"""Transfer between the views, on a model that was taught to translate three texts by heart."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM

from proxybyte import ProxyByteConfig, ProxyByteForCausalLM, encode_bytes
from proxybyte.cli import main
from proxybyte.errors import ProxyByteError
from proxybyte.eval.bpb import bits_per_byte, compressed_bits_per_byte
from proxybyte.eval.code.judging import Bench
from proxybyte.eval.code.problems import CodeSet, parse_problems
from proxybyte.eval.code.sources import load_problems
from proxybyte.eval.sandbox import Limits, choose_wall
from proxybyte.eval.transfer import (
    Direction,
    Pair,
    TwoViewModel,
    Written,
    continue_text,
    fitting_bytes,
    load_two_views,
    pair_up,
    programs_in_both_views,
    spell,
    translate,
    translate_programs,
    translation_bpb,
    view_symbols,
    write_greedily,
)
from proxybyte.symbols import Special, View
from proxybyte.training.compressors.bpe_train import train_bpe

TEXTS = [b"def area(r):\n    return r * r\n", "naïve = 'é'\n".encode(), b"for x in range(10): print(x)\n"]


@pytest.fixture(scope="session")
def two() -> TwoViewModel:
    """A small model that has seen each text as a pair in both orders, and in each view alone, until it knew them."""
    compressor = train_bpe(TEXTS * 4, 300)
    pairs, _ = pair_up(TEXTS, compressor, 1000)
    rows = []
    for pair in pairs:
        raw = [Special.RAW_OPEN, *view_symbols(pair, View.RAW), Special.RAW_CLOSE]
        codes = [Special.COMPRESSED_OPEN, *view_symbols(pair, View.COMPRESSED), Special.COMPRESSED_CLOSE]
        rows += [torch.tensor([*first, *second, Special.EOS]) for first, second in ((raw, codes), (codes, raw))]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=0)
    labels = ids.masked_fill(ids == 0, -100)
    backbone = {
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "max_position_embeddings": 96,
        "initializer_range": 0.1,
    }
    torch.manual_seed(0)
    model = ProxyByteForCausalLM(
        ProxyByteConfig(backbone_config=backbone, num_compressed_symbols=compressor.num_symbols)
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(100):
        loss = model(input_ids=ids, labels=labels, use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss < 0.2
    return TwoViewModel(model.eval(), compressor)


@pytest.fixture(scope="session")
def pairs(two) -> list[Pair]:
    return pair_up(TEXTS, two.compressor, 1000)[0]


@pytest.fixture
def run_folder(two, tmp_path) -> Path:
    """A run as training leaves it: model/ and compressor/."""
    two.model.save_pretrained(tmp_path / "run" / "model")
    two.compressor.save(tmp_path / "run" / "compressor")
    return tmp_path / "run"


@pytest.mark.parametrize("direction", Direction)
def test_a_model_that_was_taught_to_translate_translates_exactly(two, pairs, direction):
    written = translate(two, pairs, direction)
    assert [one.produced for one in written] == TEXTS
    assert all(one.exact and one.distance == 0 and one.right_bytes == len(one.expected) for one in written)


def test_a_model_that_never_learnt_it_does_not(two, pairs):
    torch.manual_seed(1)
    fresh = TwoViewModel(ProxyByteForCausalLM(two.model.config).eval(), two.compressor)
    assert not any(one.exact for direction in Direction for one in translate(fresh, pairs, direction))


@pytest.mark.parametrize("view", View)
def test_greedy_writing_is_the_best_allowed_symbol_of_full_forwards(two, view):
    prompt = [int(view.open), *(encode_bytes(b"for", np.int64) if view is View.RAW else [321, 330])]
    symbols, ended = write_greedily(two.model, prompt, view, 12)
    ids, wanted = list(prompt), []
    low, high = (64, 320) if view is View.RAW else (320, two.model.config.vocab_size)
    for _ in range(12):
        with torch.no_grad():
            logits = two.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
        choices = [*range(low, high), int(view.close)]
        best = choices[int(logits[choices].argmax())]
        if best == view.close:
            break
        wanted.append(best)
        ids.append(best)
    assert symbols == wanted
    assert ended == (len(wanted) < 12)


@pytest.mark.parametrize("direction", Direction)
def test_the_bits_of_the_right_answer_are_those_of_the_definition(two, pairs, direction):
    exact = ProxyByteForCausalLM(two.model.config).double().eval()
    exact.load_state_dict(two.model.state_dict())
    bits = 0.0
    for pair in pairs:
        views = {view: view_symbols(pair, view).tolist() for view in View}
        given = View.COMPRESSED if direction.target is View.RAW else View.RAW
        context = [given.open, *views[given], given.close, direction.target.open]
        with torch.no_grad():
            logits = exact(input_ids=torch.tensor([[*context, *views[direction.target]]]), use_cache=False).logits[0]
        rows = 320 if direction.target is View.RAW else logits.shape[-1]
        log_p = torch.log_softmax(logits[:, :rows], dim=-1)
        for place, symbol in enumerate(views[direction.target]):
            bits -= float(log_p[len(context) + place - 1, symbol]) / math.log(2)
    assert translation_bpb(two, pairs, direction) == pytest.approx(bits / sum(map(len, TEXTS)), rel=1e-4)


@pytest.mark.parametrize("view", View)
def test_continuation_writes_no_more_than_was_asked_for(two, pairs, view):
    for one, text in zip(continue_text(two, pairs, view), TEXTS, strict=True):
        assert one.expected == text[len(text) // 2 :]
        assert one.symbols <= len(one.expected) + 1
        assert one.right_bytes <= len(one.expected)


def test_distance_and_exactness_are_those_of_bytes():
    assert Written(b"abcd", b"abxd", 4, True).distance == 0.25
    assert Written(b"abcd", b"abxd", 4, True).right_bytes == 2
    assert Written(b"abcd", b"", 0, True).distance == 1.0
    assert Written(b"ab", b"abc", 3, True).right_bytes == 2
    assert not Written(b"ab", b"ab", 2, False).exact
    assert Written(b"ab", b"ab", 2, True).exact


def test_symbols_that_spell_nothing_are_no_bytes(two):
    assert spell(two.compressor, [320 + two.compressor.num_symbols], View.COMPRESSED) == b""
    assert spell(two.compressor, encode_bytes(b"\xff\x00", np.int64).tolist(), View.RAW) == b"\xff\x00"


def test_the_command_reports_the_same_documents_in_both_views(two, run_folder, tmp_path, capsys):
    data, samples = tmp_path / "texts.jsonl", tmp_path / "samples.jsonl"
    data.write_text("".join(json.dumps({"text": text.decode()}) + "\n" for text in TEXTS))
    words = ["eval", "transfer", str(run_folder), "--data", str(data), "--translate-bytes", "40", "--device", "cpu"]
    assert main([*words, "--json", "--samples", str(samples)]) == 0
    found = json.loads(capsys.readouterr().out)
    pairs, _ = pair_up(TEXTS, two.compressor, 4096)
    codes, sizes = [pair.codes for pair in pairs], [len(text) for text in TEXTS]
    raw = bits_per_byte(two.model, TEXTS).bits_per_byte
    compressed = compressed_bits_per_byte(two.model, codes, sizes).bits_per_byte
    assert found["views"]["raw"]["bits_per_byte"] == pytest.approx(raw, rel=1e-5)
    assert found["views"]["compressed"]["bits_per_byte"] == pytest.approx(compressed, rel=1e-5)
    assert found["views"]["raw"]["documents"] == found["views"]["compressed"]["documents"] == 3
    for direction in Direction:
        assert found["translation"][direction]["exact"] == 1.0
    lines = [json.loads(line) for line in samples.read_text().splitlines()]
    assert [line["produced"] for line in lines] == [text.decode() for text in TEXTS] * 2
    assert main(words) == 0
    assert "compressed to raw               1.000" in capsys.readouterr().out


@pytest.mark.parametrize("place", ["run", "run/model", "run/checkpoints/step-00000001/model"])
def test_the_compressor_is_found_from_any_folder_of_a_run(two, run_folder, place):
    two.model.save_pretrained(run_folder / "checkpoints" / "step-00000001" / "model")
    found = load_two_views(run_folder.parent / place, None, "cpu", "auto")
    assert found.compressor.num_symbols == two.compressor.num_symbols


def test_a_checkpoint_without_a_compressor_is_one_sentence(two, tmp_path, capsys):
    two.model.save_pretrained(tmp_path / "alone")
    (tmp_path / "text.py").write_bytes(TEXTS[0])
    words = ["eval", "transfer", str(tmp_path / "alone"), "--data", str(tmp_path / "text.py")]
    assert main(words) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith(f"proxybyte: {tmp_path / 'alone'} carries no compressor, so nothing can be written")
    two.compressor.save(tmp_path / "bpe")
    assert main([*words, "--compressor", str(tmp_path / "bpe"), "--translate-bytes", "20"]) == 0


def test_models_that_know_one_view_are_refused(byte_llama, token_llama, tmp_path):
    byte_llama.save_pretrained(tmp_path / "bytes")
    with pytest.raises(ProxyByteError, match="reads raw bytes alone: it has no rows for compressed symbols"):
        load_two_views(tmp_path / "bytes", "gzip", "cpu", "auto")
    model, tokenizer = token_llama
    LlamaForCausalLM.save_pretrained(model, tmp_path / "tokens")
    tokenizer.save_pretrained(tmp_path / "tokens")
    with pytest.raises(ProxyByteError, match="is a tokenizer model"):
        load_two_views(tmp_path / "tokens", "gzip", "cpu", "auto")


def test_a_compressor_of_another_model_is_refused(run_folder):
    with pytest.raises(ProxyByteError, match=r"has rows for \d+ compressed symbols, but bits-16 has 65536"):
        load_two_views(run_folder, "bits-16", "cpu", "auto")


def test_documents_that_do_not_fit_twice_are_refused(two):
    long, _ = pair_up([TEXTS[0] * 4], two.compressor, 1000)
    with pytest.raises(ProxyByteError, match=r"takes \d+ symbols in both views, but the model knows 96 positions"):
        translate(two, long, Direction.TO_RAW)


def test_by_default_as_much_is_translated_as_the_context_holds_twice(two, run_folder, capsys):
    text = TEXTS[0] * 4
    size = fitting_bytes(two, [text], 192)
    (pair,), _ = pair_up([text], two.compressor, size)
    assert size < 96 and len(pair.text) + len(pair.codes) + 5 <= 96
    assert fitting_bytes(two, TEXTS, 20) == 20
    data = run_folder / "long.py"
    data.write_bytes(text)
    words = ["eval", "transfer", str(run_folder), "--data", str(data), "--device", "cpu"]
    assert main(words) == 0
    assert f"{size} bytes of each document are translated" in capsys.readouterr().err
    assert main([*words, "--translate-bytes", "192"]) == 2
    said = capsys.readouterr()
    assert "lower --translate-bytes" in said.err
    assert "scoring" not in said.err


def test_documents_that_cannot_be_coded_are_counted(two):
    class Picky:
        name = "picky"

        def encode_batch(self, documents):
            from proxybyte.training import CannotEncode

            good = two.compressor.encode_batch(documents)
            return [CannotEncode("no") if b"x" in text else code for text, code in zip(documents, good, strict=True)]

    pairs, left_out = pair_up([b"axa", b"bb", b""], Picky(), 10)
    assert ([pair.text for pair in pairs], left_out) == ([b"bb"], 1)
    with pytest.raises(ProxyByteError, match="picky can code none of the 1 documents"):
        pair_up([b"x"], Picky(), 10)


def _row(name: str, prompt: str, canonical: str, test: str) -> dict[str, str]:
    return {"task_id": name, "prompt": prompt, "entry_point": "area", "canonical_solution": canonical, "test": test}


@pytest.fixture
def known_programs(tmp_path) -> Path:
    """A program known by heart that is right, one that is wrong, and one that does not fit."""
    right = "def check(area):\n    assert area(3) == 9\n"
    wrong = "def check(area):\n    assert area(3) == 8\n"
    rows = [
        _row("set/0", "def area(r):\n", "    return r * r\n", right),
        _row("set/1", "def area(r):\n", "    return r * r\n", wrong),
        _row("set/2", "def area(r):\n", "    return r * r\n" * 9, right),
    ]
    path = tmp_path / "set.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_translated_programs_pass_only_their_own_tests(two, run_folder, known_programs, capsys):
    data = run_folder / "text.py"
    data.write_bytes(TEXTS[0])
    words = ["eval", "transfer", str(run_folder), "--data", str(data), "--device", "cpu"]
    words += ["--set", "humaneval", "--set-data", str(known_programs)]
    assert main(words) == 2
    assert "--confirm-run-unsafe-code" in capsys.readouterr().err
    assert main([*words, "--confirm-run-unsafe-code", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["programs"]
    assert (found["programs"], found["left_out"]) == (2, 1)
    for direction in Direction:
        assert found[direction]["pass@1"]["mean"] == 0.5
        assert found[direction]["edit_distance"] == 0.0
    assert main([*words, "--confirm-run-unsafe-code"]) == 0
    assert "compressed to raw            pass@1 50.00%" in capsys.readouterr().out


def test_programs_that_do_not_fit_at_all_are_one_sentence(two):
    problems = parse_problems([_row("set/0", "def area(r):\n", "    return r * r\n" * 9, "")], CodeSet.HUMANEVAL, "it")
    with pytest.raises(ProxyByteError, match="none of the 1 solutions fits into the model's 96 positions in both"):
        programs_in_both_views(two, problems)


def test_a_translation_that_is_no_text_does_not_pass(two, known_programs):
    programs = programs_in_both_views(two, load_problems(CodeSet.HUMANEVAL, known_programs))
    blank = ProxyByteForCausalLM(two.model.config).eval()
    bench = Bench(Limits(), choose_wall(confirmed=True, allow_weak=False))
    found = translate_programs(TwoViewModel(blank, two.compressor), programs, Direction.TO_RAW, bench)
    assert found.pass_at_1.mean == 0.0
