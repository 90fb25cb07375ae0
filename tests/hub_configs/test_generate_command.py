import io
import shutil
import sys

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from proxybyte import decode_bytes
from proxybyte.cli import main
from proxybyte.hub_configs.export import ExportFormat, ExportOptions, export_model
from proxybyte.training.compressors import load_compressor
from proxybyte.training.compressors.bpe_train import Split, train_bpe


class Bytes(io.StringIO):
    """A text stream with bytes under it, as stdin and stdout are."""

    def __init__(self, data: bytes = b""):
        super().__init__()
        self.buffer = io.BytesIO(data)


@pytest.fixture
def run(monkeypatch):
    """Run ``proxybyte generate`` on bytes; gives its exit code and its bytes."""

    def call(*arguments: object, stdin: bytes = b"") -> tuple[int, bytes]:
        out = Bytes()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", Bytes(stdin))
            patch.setattr(sys, "stdout", out)
            code = main(["generate", *map(str, arguments), "--device", "cpu"])
        return code, out.buffer.getvalue()

    return call


def greedy(folder, text: str, count: int) -> bytes:
    prompt = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")
    out = AutoModelForCausalLM.from_pretrained(folder).generate(**prompt, max_new_tokens=count)
    return decode_bytes(out[0, prompt["input_ids"].shape[1] :])


def test_it_writes_the_new_bytes_of_generate(exported, run):
    assert run(exported, "--prompt", "def é", "--max-new-bytes", 20) == (0, greedy(exported, "def é", 20))


def test_prompt_file_and_standard_input_are_the_same_prompt(llama_run, run, tmp_path):
    prompt = b"\xff<raw>\r\n\x00"
    (tmp_path / "prompt").write_bytes(prompt)
    from_file = run(llama_run, "--prompt-file", tmp_path / "prompt", "--max-new-bytes", 20)
    assert from_file == run(llama_run, "--max-new-bytes", 20, stdin=prompt)
    assert len(from_file[1]) == 20


def test_utf8_is_guaranteed_on_demand_and_a_seed_repeats(llama_run, run):
    arguments = (llama_run, "--prompt", "a", "--temperature", 5, "--seed", 3, "--max-new-bytes", 60)
    code, free = run(*arguments)
    assert (code, free) == run(*arguments)
    with pytest.raises(UnicodeDecodeError):
        free.decode()
    assert len(run(*arguments, "--utf8")[1].decode()) > 10


@pytest.fixture(scope="module")
def drafting_export(model_writer, tmp_path_factory):
    """A full export with heads and a small BPE beside it."""
    home = tmp_path_factory.mktemp("drafting")
    bpe = train_bpe([b"def f(self):\n    return self\n" * 20], 290, Split.CODE)
    model_writer(home / "run" / "model", "llama", num_raw_pred_heads=3, num_compressed_symbols=bpe.num_symbols)
    bpe.save(home / "run" / "compressor")
    return export_model(home / "run", home / "full", ExportOptions(ExportFormat.FULL))


@pytest.mark.parametrize(
    "drafting",
    [
        ["--draft", "heads"],
        ["--draft", "compressed"],
        ["--draft-repeats"],
        ["--draft", "heads", "--draft-repeats", "--draft-bytes", "2"],
    ],
)
def test_drafts_change_nothing_but_what_the_report_says(drafting_export, run, capsys, drafting):
    arguments = (drafting_export, "--prompt", "abcabcabcabcabc", "--max-new-bytes", 30)
    plain, drafted = run(*arguments), run(*arguments, *drafting, "--report")
    assert plain == drafted and plain[0] == 0 and plain[1]
    (report,) = [line for line in capsys.readouterr().err.splitlines() if "forward passes" in line]
    symbols, passes = [int(word) for word in report.split() if word.isdigit()][:2]
    assert passes <= symbols <= 30


def test_what_cannot_draft_says_so(model_writer, exported, tmp_path, run, capsys):
    model_writer(tmp_path / "run" / "model", "llama")
    for name, said in (("bits-4", "do not spell"), ("bits-16", "spells 65536 symbols")):
        load_compressor(name).save(tmp_path / "run" / "compressor")
        assert run(tmp_path / "run", "--prompt", "a", "--draft", "compressed")[0] == 2
        assert said in capsys.readouterr().err
    assert run(exported, "--prompt", "a", "--draft", "heads")[0] == 2
    said = "has none" if exported.name.startswith("full") else "native export"
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["absent"], "absent is no folder"),
        (["RUN", "--max-new-bytes", "0"], "--max-new-bytes must be at least 1, not 0"),
        (["RUN", "--temperature", "-1"], "--temperature must be at least 0, not -1"),
        (["RUN", "--prompt-file", "absent"], "--prompt-file absent cannot be read"),
        (["RUN", "--prompt", "x" * 256], "a prompt of 257 symbols leaves no room in the model's context of 256"),
        (["RUN", "--prompt", "x" * 200, "--max-new-bytes", "100"], "lower --max-new-bytes to at most 55"),
        (["RUN", "--prompt", "x", "--device", "nonsense"], "--device nonsense cannot be used"),
    ],
)
def test_mistakes_get_one_sentence_and_exit_code_2(arguments, sentence, llama_run, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert main(["generate", *(str(llama_run) if argument == "RUN" else argument for argument in arguments)]) == 2
    assert sentence in capfd.readouterr().err


def test_the_default_is_what_the_context_leaves(llama_run, run):
    assert len(run(llama_run, "--prompt", "x" * 10)[1]) == 200
    assert len(run(llama_run, "--prompt", "x" * 240)[1]) == 256 - 241


def test_a_prompt_beyond_the_context_is_said_before_the_weights_are_read(llama_run, run, tmp_path, capsys):
    shutil.copytree(llama_run / "model", tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").unlink()
    assert run(tmp_path / "model", "--prompt", "x" * 500)[0] == 2
    assert "leaves no room in the model's context of 256" in capsys.readouterr().err


def test_loading_draws_no_bars(llama_run, run, capfd):
    run(llama_run, "--prompt", "x", "--max-new-bytes", 2)
    assert "Loading" not in capfd.readouterr().err


def test_a_model_of_tokens_is_refused(tmp_path, run, capsys):
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=1000, **shape)).save_pretrained(tmp_path)
    assert run(tmp_path, "--prompt", "x")[0] == 2
    assert "no byte model: it has 1000 symbols" in capsys.readouterr().err
