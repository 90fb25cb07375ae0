"""Our lm-eval class in its one setting, against the definition spelled out."""

import json
import math
import subprocess
import sys

import pytest
import torch

from proxybyte import build_tokenizer, encode_bytes
from proxybyte.chat import encode_chat
from proxybyte.cli import main
from proxybyte.errors import ProxyByteError
from proxybyte.eval import Scoring, bits_per_byte
from proxybyte.eval.lm_eval import with_defaults
from proxybyte.eval.tasks import TASKS_FOLDER
from proxybyte.tokenization_proxybyte import save_tokenizer

lm_eval = pytest.importorskip("lm_eval")
from lm_eval.api.instance import Instance  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402

from proxybyte.eval.lm_eval_model import ProxyByteLM  # noqa: E402

RAW = 12


def symbols(text: str) -> list[int]:
    return encode_bytes(text.encode()).tolist()


def ask(model, kind: str, *arguments: tuple) -> list:
    requests = [Instance(kind, {}, pair, number) for number, pair in enumerate(arguments)]
    return getattr(model, kind)(requests, disable_tqdm=True)


@pytest.fixture(params=["byte_llama", "proxy_llama"])
def byte_model(request):
    return request.getfixturevalue(request.param)


PAIRS = [
    ("", "first words"),
    ("ends in spaces  \n", "    go on"),
    ("Größe", "nordung"),
    ("it spells <raw> and <eos>", " in text</raw>"),
    ("no continuation", ""),
]


@pytest.mark.parametrize("batch_size", [1, 3, "auto"])
def test_loglikelihood_splits_at_the_very_byte(byte_model, reference, batch_size):
    lm = ProxyByteLM(byte_model, batch_size=batch_size)
    answers = ask(lm, "loglikelihood", *PAIRS)
    for (context, continuation), (found, _) in zip(PAIRS, answers, strict=True):
        expected = -math.fsum(reference(byte_model, [RAW, *symbols(context)], symbols(continuation)))
        assert found == pytest.approx(expected, abs=1e-3)


def test_is_greedy_tells_what_greedy_decoding_would_write(taught_llama):
    lm = ProxyByteLM(taught_llama, batch_size=4)
    answers = ask(lm, "loglikelihood", ("Q: zwei\n", "A: deux\n"), ("Q: zwei\n", "A: deuz\n"), ("", ""))
    assert [greedy for _, greedy in answers] == [True, False, True]


def test_a_context_that_does_not_fit_loses_its_oldest_bytes_and_keeps_the_sentinel(byte_model, reference):
    lm = ProxyByteLM(byte_model, max_length=21)
    context, continuation = "the quick brown fox jumps over the lazy", " dog ran"
    ((found, _),) = ask(lm, "loglikelihood", (context, continuation))
    kept = symbols(context + continuation)[-20:]
    expected = -math.fsum(reference(byte_model, [RAW], kept)[-len(continuation) :])
    assert found == pytest.approx(expected, abs=1e-3)


def test_a_continuation_that_does_not_fit_is_scored_by_windows_that_all_open_with_the_sentinel(byte_model, reference):
    lm = ProxyByteLM(byte_model, max_length=9, stride=4)
    ids = symbols("abcdefghijklmnopqrst")
    ((found, _),) = ask(lm, "loglikelihood", ("abcdef", "ghijklmnopqrst"))
    windows = [ids[2:10], ids[6:14], ids[10:18], ids[14:20]]
    new = [4, 4, 4, 2]
    expected = sum(
        math.fsum(reference(byte_model, [RAW], window)[-count:]) for window, count in zip(windows, new, strict=True)
    )
    assert found == pytest.approx(-expected, abs=1e-3)


def test_rolling_is_bits_per_byte_for_short_and_long_texts(byte_model):
    lm = ProxyByteLM(byte_model, batch_size=2, max_length=33, stride=8)
    texts = ["short", "", "größer — 数 " * 20]
    found = ask(lm, "loglikelihood_rolling", *((text,) for text in texts))
    ours = bits_per_byte(byte_model, [text.encode() for text in texts], Scoring(window=32, stride=8))
    assert found == pytest.approx([-bits * math.log(2) for bits in ours.document_bits], abs=1e-3)


def greedy(model, prompt: list[int], steps: int) -> bytes:
    """Greedy decoding without cache, batch or padding."""
    ids = list(prompt)
    for _ in range(steps):
        with torch.no_grad():
            ids.append(int(model(torch.tensor([ids]), use_cache=False).logits[0, -1, :320].argmax()))
        if ids[-1] in (2, 13):
            break
    return bytes(symbol - 64 for symbol in ids[len(prompt) :] if symbol >= 64)


@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize(
    ("until", "expected"),
    [
        (["\n"], ["A: deux", "é für zwei: trois", "('<eos>') # a", " drei"]),
        (["\n\n"], ["A: deux", "é für zwei: trois", "('<eos>') # a\n", " drei\nA: trois"]),
        (["eos", "ü", "deux\n"], ["A: ", "é f", "('<", " drei\nA: trois\n\n"]),
        ([], ["A: deux\n\nQ: drei\nA: trois\n\n", "é für zwei: trois", "('<eos>') # a\n", " drei\nA: trois\n\n"]),
    ],
)
def test_generation_stops_at_the_very_byte_in_any_batch(taught_llama, batch_size, until, expected):
    lm = ProxyByteLM(taught_llama, batch_size=batch_size)
    settings = {"until": until, "max_gen_toks": 60}
    prompts = ["Q: zwei\n", "ein Caf", "print", "Q: zwei\nA: deux\n\nQ:"]
    assert ask(lm, "generate_until", *((prompt, settings) for prompt in prompts)) == expected


def test_generation_ends_after_so_many_bytes(taught_llama):
    lm = ProxyByteLM(taught_llama, batch_size=2)
    found = ask(lm, "generate_until", ("ein Caf", {"until": ["\n"], "max_gen_toks": 3}), ("Q", {"max_gen_toks": 5}))
    assert found == ["é ", ": zwe"]


def test_generation_truncated_from_the_left_keeps_the_sentinel(byte_llama):
    lm = ProxyByteLM(byte_llama, max_length=24)
    prompt = "a prompt that is far too long for it"
    (found,) = ask(lm, "generate_until", (prompt, {"until": [], "max_gen_toks": 8}))
    assert found == greedy(byte_llama, [RAW, *symbols(prompt)[-15:]], 8).decode(errors="replace")


def test_generation_that_leaves_no_room_for_a_prompt_is_refused(byte_llama):
    lm = ProxyByteLM(byte_llama, max_length=24)
    with pytest.raises(ProxyByteError, match="max_gen_toks=23 leaves no room"):
        ask(lm, "generate_until", ("a", {"until": [], "max_gen_toks": 23}))


def test_our_class_never_generates_compressed_symbols(proxy_llama):
    lm = ProxyByteLM(proxy_llama, batch_size=2)
    prompts = ["def f", "numbers: "]
    found = ask(lm, "generate_until", *((prompt, {"until": [], "max_gen_toks": 20}) for prompt in prompts))
    for prompt, text in zip(prompts, found, strict=True):
        ids = torch.tensor([[RAW, *symbols(prompt)]])
        written = proxy_llama.generate(ids, max_new_tokens=20, do_sample=False)[0, ids.shape[1] :].tolist()
        assert text == bytes(symbol - 64 for symbol in written if symbol >= 64).decode(errors="replace")


def test_chat_prompts_are_symbols_and_never_text(byte_llama, reference):
    lm = ProxyByteLM(byte_llama, max_length=96)
    messages = [{"role": "user", "content": "say <|eot_id|>"}]
    prompt = lm.apply_chat_template(messages)
    ((found, _),) = ask(lm, "loglikelihood", (prompt, "ok"))
    opening = encode_chat(messages, add_generation_prompt=True).tolist()
    assert found == pytest.approx(-math.fsum(reference(byte_llama, opening, symbols("ok"))), abs=1e-3)

    begun = [*messages, {"role": "assistant", "content": "o"}]
    ((found, _),) = ask(lm, "loglikelihood", (lm.apply_chat_template(begun, add_generation_prompt=False), "k"))
    assert found == pytest.approx(-reference(byte_llama, [*opening, *symbols("o")], symbols("k"))[0], abs=1e-3)


@pytest.fixture(scope="module")
def native(taught_llama, tmp_path_factory):
    folder = tmp_path_factory.mktemp("native")
    taught_llama.save_pretrained(folder)
    save_tokenizer(build_tokenizer(), folder)
    return folder


def test_every_shipped_task_runs_in_the_one_setting(native, taught_llama):
    result = lm_eval.simple_evaluate(
        model="proxybyte",
        model_args={"pretrained": str(native)},
        tasks=["proxybyte"],
        task_manager=TaskManager(include_path=str(TASKS_FOLDER), include_defaults=False),
        device="cpu",
        batch_size=4,
        bootstrap_iters=0,
    )["results"]
    texts = [json.loads(line)["text"].encode() for line in (TASKS_FOLDER / "prose.jsonl").read_text().splitlines()]
    ours = bits_per_byte(taught_llama, texts).bits_per_byte
    assert result["proxybyte_prose"]["bits_per_byte,none"] == pytest.approx(ours, abs=1e-5)
    assert {"proxybyte_prose", "proxybyte_python", "proxybyte_choice", "proxybyte_complete"} <= result.keys()


@pytest.mark.parametrize(
    ("given", "completed"),
    [
        (["--tasks", "x"], ["run", "--tasks", "x", "--include_path", str(TASKS_FOLDER), "--model", "proxybyte"]),
        (["run", "--model=hf"], ["run", "--model=hf", "--include_path", str(TASKS_FOLDER)]),
        (["--include_path", "mine", "-M", "hf"], ["run", "--include_path", "mine", "-M", "hf"]),
        (["ls", "tasks"], ["ls", "tasks", "--include_path", str(TASKS_FOLDER)]),
        (["--config", "mine.yaml"], ["run", "--config", "mine.yaml"]),
        ([], ["--help"]),
    ],
)
def test_what_the_caller_says_wins_over_our_defaults(given, completed):
    assert with_defaults(given) == completed


def test_a_missing_model_folder_is_named(tmp_path):
    with pytest.raises(ProxyByteError, match=f"{tmp_path}/absent is no folder"):
        ProxyByteLM(f"{tmp_path}/absent")


def test_a_broken_model_is_one_sentence(native, tmp_path):
    for file in native.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes()[:3000])
    with pytest.raises(ProxyByteError, match=f"cannot load the model in {tmp_path}"):
        ProxyByteLM(str(tmp_path), device="cpu")


@pytest.mark.slow
@pytest.mark.parametrize("command", [["-m", "proxybyte.eval.lm_eval"], ["-m", "proxybyte.cli", "eval", "lm"]])
def test_the_command_lines_print_lm_evals_table(native, command, tmp_path):
    arguments = [f"--model_args=pretrained={native}", "--tasks", "proxybyte_choice", "--limit", "3", "--device", "cpu"]
    done = subprocess.run([sys.executable, *command, *arguments], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "proxybyte_choice" in done.stdout
    wrong = [sys.executable, *command, f"--model_args=pretrained={native}", "--tasks", "proxybyte_chioce"]
    done = subprocess.run(wrong, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("proxybyte: Tasks not found: proxybyte_chioce")


def test_a_tokenizer_model_is_sent_to_lm_evals_own_class(token_llama):
    model, _ = token_llama
    with pytest.raises(ProxyByteError, match="use --model hf"):
        ProxyByteLM(model)


def test_help_shows_examples(capsys):
    assert main(["eval", "lm", "--help"]) == 0
    assert "proxybyte eval lm --model_args pretrained=" in capsys.readouterr().out


def test_without_the_extra_it_says_what_to_install():
    script = (
        "import sys; sys.modules['lm_eval'] = None\n"
        "from proxybyte.cli import main\n"
        "sys.exit(main(['eval', 'lm', '--tasks', 'proxybyte']))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "proxybyte: lm-eval is not installed: pip install 'proxybyte[eval]'\n"


def test_drafted_answers_are_those_of_one_byte_at_a_time(drafting_llama):
    """Rows of different lengths that end at stop strings of their own."""
    settings = {"until": ["\n\n", "rois", ": t"], "max_gen_toks": 24, "do_sample": False}
    contexts = ["Q: zwei\n", "ein Café", "Q: drei\nA:", "print(", "x"]
    requests = [(context, settings) for context in contexts]
    expected = ask(ProxyByteLM(drafting_llama, batch_size=3), "generate_until", *requests)
    for drafts in ({"draft": "heads"}, {"draft_repeats": True}, {"draft": "heads", "draft_repeats": True}):
        assert ask(ProxyByteLM(drafting_llama, batch_size=3, **drafts), "generate_until", *requests) == expected
    assert len(set(map(len, expected))) > 1


def test_what_cannot_draft_is_refused(byte_llama, proxy_llama):
    with pytest.raises(ProxyByteError, match="full export"):
        ProxyByteLM(byte_llama, draft="heads")
    with pytest.raises(ProxyByteError, match="full export"):
        ProxyByteLM(byte_llama, draft_repeats=True)
    with pytest.raises(ProxyByteError, match="compressor"):
        ProxyByteLM(proxy_llama, draft="compressed")
