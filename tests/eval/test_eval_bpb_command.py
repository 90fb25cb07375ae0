import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, Features, LargeList, List, Value

from proxybyte.cli import main
from proxybyte.eval import bits_per_byte, compressed_bits_per_byte, tokenizer_bits_per_byte
from proxybyte.training.prepare.manifest import CompressorInfo, PreparedManifest, SplitTotals

TEXTS = [b"import os\n", b"\xff\x00 not text", b"print('hello')\n" * 9]
CODES = [[0, 1, 2], [], [3] * 20]


@pytest.fixture(scope="module")
def model_folder(byte_llama, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    byte_llama.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """A prepared folder as docs/architecture.md describes it."""
    folder = tmp_path_factory.mktemp("prepared")
    features = Features(
        {
            "text": Value("large_binary"),
            "symbols": LargeList(Value("uint16")),
            "n_bytes": Value("int64"),
            "n_symbols": Value("int64"),
            "borders": List(Value("uint32"), length=15),
            "source": Value("string"),
        }
    )
    rows = {
        "text": TEXTS,
        "symbols": CODES,
        "n_bytes": [len(text) for text in TEXTS],
        "n_symbols": [len(code) or -1 for code in CODES],
        "borders": [[0] * 15] * len(TEXTS),
        "source": ["here"] * len(TEXTS),
    }
    Dataset.from_dict(rows, features=features).save_to_disk(folder / "validation")
    info = CompressorInfo(family="bits", name="bits-8", num_symbols=256, lossless=True, digest="")
    totals = {"train": SplitTotals(), "validation": SplitTotals(documents=len(TEXTS))}
    figures = {"fingerprint": "", "verify": "all", "ratio": 1.0, "workers": 1, "seconds": 0.0, "mb_per_s": 0.0}
    (folder / "prepared.json").write_text(PreparedManifest(compressor=info, **totals, **figures).to_json())
    return folder


def figures(capsys, *arguments) -> dict:
    assert main(["eval", "bpb", *map(str, arguments), "--json", "--device", "cpu"]) == 0
    return json.loads(capsys.readouterr().out)


def test_prepared_folder_is_scored_as_the_function_scores_it(model_folder, prepared, byte_llama, capsys):
    result = figures(capsys, model_folder, "--data", prepared)
    model = result[f"{model_folder} (raw)"]
    assert model["bits_per_byte"] == pytest.approx(bits_per_byte(byte_llama, TEXTS).bits_per_byte)
    assert model["bytes"] == sum(map(len, TEXTS))
    assert result["uniform over 320 symbols"]["bits_per_byte"] == pytest.approx(8.3219, abs=1e-4)
    assert {"gzip -9, each document", "xz -6e, each document"} < result.keys()


def test_compressed_view_reads_the_codes_and_says_what_it_left_out(proxy_llama, prepared, tmp_path, capsys):
    proxy_llama.save_pretrained(tmp_path)
    arguments = [str(tmp_path), "--data", str(prepared), "--view", "compressed", "--json", "--device", "cpu"]
    assert main(["eval", "bpb", *arguments]) == 0
    printed = capsys.readouterr()
    assert "1 documents have no codes" in printed.err
    codes = [np.array(code) for code in CODES if code]
    expected = compressed_bits_per_byte(proxy_llama, codes, [len(TEXTS[0]), len(TEXTS[2])])
    model = json.loads(printed.out)[f"{tmp_path} (compressed)"]
    assert model["bits_per_byte"] == pytest.approx(expected.bits_per_byte)
    assert model["symbols"] == 23


def test_a_tokenizer_model_is_scored_per_byte_and_has_no_compressed_view(prepared, token_llama, tmp_path, capsys):
    model, tokenizer = token_llama
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "text.txt").write_text("spam and größe")
    result = figures(capsys, tmp_path, "--data", tmp_path / "text.txt")[f"{tmp_path} (tokens)"]
    expected = tokenizer_bits_per_byte(model, tokenizer, ["spam and größe".encode()])
    assert result["bits_per_byte"] == pytest.approx(expected.bits_per_byte)
    assert main(["eval", "bpb", str(tmp_path), "--data", str(prepared), "--view", "compressed"]) == 2
    assert "it is a tokenizer model" in capsys.readouterr().err


def test_files_of_each_kind_hold_the_same_documents(model_folder, byte_llama, tmp_path, capsys):
    texts = ["α plain", "second\n"]
    plain = [tmp_path / "a.txt", tmp_path / "b.py"]
    for path, text in zip(plain, texts, strict=True):
        path.write_bytes(text.encode())
    lines = tmp_path / "both.jsonl"
    lines.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    table = tmp_path / "both.parquet"
    pq.write_table(pa.table({"text": pa.array([text.encode() for text in texts], pa.large_binary())}), table)
    expected = bits_per_byte(byte_llama, [text.encode() for text in texts]).bits_per_byte
    for data in (plain, [lines], [table]):
        result = figures(capsys, model_folder, "--no-baselines", "--data", *data)
        assert result == {f"{model_folder} (raw)": result[f"{model_folder} (raw)"]}
        assert result[f"{model_folder} (raw)"]["bits_per_byte"] == pytest.approx(expected)


def test_our_own_class_loads_in_a_fresh_process(proxy_llama, tmp_path):
    proxy_llama.save_pretrained(tmp_path)
    script = (
        "import sys; from proxybyte.artefacts import find_model\n"
        "from proxybyte.eval.loading import load_model, model_kind\n"
        "print(model_kind(load_model(find_model(sys.argv[1]), 'cpu', 'auto')))"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout == "bytes\n"


def test_limit_takes_the_first_documents(model_folder, prepared, capsys):
    result = figures(capsys, model_folder, "--data", prepared, "--limit", "1")
    assert result[f"{model_folder} (raw)"]["bytes"] == len(TEXTS[0])


def test_the_table_names_each_line(model_folder, prepared, capsys):
    assert main(["eval", "bpb", str(model_folder), "--data", str(prepared), "--device", "cpu"]) == 0
    table = capsys.readouterr().out.splitlines()
    assert "BPB" in table[0]
    assert [line.split("  ")[0] for line in table[2:]] == [
        "gzip -9, each document",
        "xz -6e, each document",
        "uniform over 320 symbols",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{model}", "--data", "{tmp}/absent"], "no such file or folder"),
        (["{tmp}", "--data", "{good}"], "it has no config.json"),
        (["{model}", "--data", "{model}"], "is no prepared folder"),
        (["{model}", "--data", "{prepared}", "--split", "test"], "no split 'test'"),
        (["{model}", "--data", "{good}", "{model}"], "holds no file with text that ends in .py"),
        (["{model}", "--data", "{bad}"], "bad.jsonl:2: missing column"),
        (["{model}", "--data", "{empty}"], "no text in"),
        (["{model}", "--data", "{good}", "--view", "compressed"], "needs codes"),
        (["{model}", "--data", "{good}", "--window", "4", "--stride", "9"], "stride 9"),
        (["{model}", "--data", "{good}", "--limit", "0"], "--limit must be at least 1"),
        (["{model}", "--data", "{good}", "--device", "abacus"], "--device abacus"),
        (["{broken}", "--data", "{good}"], "cannot load the weights"),
    ],
)
def test_bad_input_is_one_sentence_and_code_2(arguments, message, model_folder, prepared, tmp_path, capsys):
    (tmp_path / "bad.jsonl").write_text('{"text": 1, "txt": 2}\n{"txt": 1}\n')
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "good.txt").write_text("good")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_bytes((model_folder / "config.json").read_bytes())
    (broken / "model.safetensors").write_bytes((model_folder / "model.safetensors").read_bytes()[:5000])
    places = {
        "model": model_folder,
        "prepared": prepared,
        "tmp": tmp_path,
        "broken": broken,
        "bad": tmp_path / "bad.jsonl",
        "empty": tmp_path / "empty.txt",
        "good": tmp_path / "good.txt",
    }
    assert main(["eval", "bpb", *(argument.format(**places) for argument in arguments)]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("proxybyte: ")
    assert message in error
