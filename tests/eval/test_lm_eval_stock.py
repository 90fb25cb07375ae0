"""lm-eval's own ``--model hf`` on a native export: what docs/lm_eval.md says is right, and what it says goes wrong."""

import json
import math
from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM

from proxybyte import build_tokenizer, encode_bytes
from proxybyte.eval import bits_per_byte
from proxybyte.eval.tasks import TASKS_FOLDER
from proxybyte.hub_configs.export import ExportFormat, ExportOptions, export_model
from proxybyte.tokenization_proxybyte import save_tokenizer

lm_eval = pytest.importorskip("lm_eval")
from lm_eval.api.instance import Instance  # noqa: E402
from lm_eval.models.huggingface import HFLM  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402

RAW = 12


def rows(name: str) -> list[dict]:
    return [json.loads(line) for line in (TASKS_FOLDER / name).read_text().splitlines()]


def symbols(text: str) -> list[int]:
    return encode_bytes(text.encode()).tolist()


@pytest.fixture(scope="module")
def native(taught_llama, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("native")
    taught_llama.save_pretrained(folder)
    save_tokenizer(build_tokenizer(), folder)
    return folder


@pytest.fixture(scope="module")
def task_manager() -> TaskManager:
    return TaskManager(include_path=str(TASKS_FOLDER), include_defaults=False)


@pytest.fixture(scope="module")
def evaluate(native, task_manager):
    def run(task: str, **settings) -> dict:
        return lm_eval.simple_evaluate(
            model="hf",
            model_args={"pretrained": str(native), **settings},
            tasks=[task],
            task_manager=task_manager,
            device="cpu",
            batch_size=4,
            bootstrap_iters=0,
        )

    return run


@pytest.fixture(scope="module")
def stock(native) -> HFLM:
    """The class as it is with no setting, which is right for multiple choice and generation."""
    return HFLM(pretrained=str(native), device="cpu", batch_size=3)


def ask(model, kind: str, *arguments: tuple) -> list:
    return getattr(model, kind)([Instance(kind, {}, pair, number) for number, pair in enumerate(arguments)])


@pytest.mark.parametrize(("task", "file"), [("proxybyte_prose", "prose.jsonl"), ("proxybyte_python", "python.jsonl")])
def test_rolling_without_bos_is_our_bits_per_byte(evaluate, taught_llama, task, file):
    found = evaluate(task, add_bos_token=False)["results"][task]["bits_per_byte,none"]
    ours = bits_per_byte(taught_llama, [row["text"].encode() for row in rows(file)]).bits_per_byte
    assert found == pytest.approx(ours, abs=1e-3)


def test_rolling_with_the_tokenizers_bos_doubles_the_sentinel_and_scores_it(evaluate, taught_llama, reference):
    texts = [row["text"] for row in rows("prose.jsonl")]
    found = evaluate("proxybyte_prose")["results"]["proxybyte_prose"]["bits_per_byte,none"]
    wrong = math.fsum(math.fsum(reference(taught_llama, [RAW], [RAW, *symbols(text)])) for text in texts)
    n_bytes = sum(len(text.encode()) for text in texts)
    assert found == pytest.approx(wrong / math.log(2) / n_bytes, abs=1e-3)
    assert abs(found - bits_per_byte(taught_llama, [text.encode() for text in texts]).bits_per_byte) > 1e-2


def test_multiple_choice_with_the_tokenizers_bos_is_the_hand_computed_likelihood(evaluate, taught_llama, reference):
    result = evaluate("proxybyte_choice")
    right = 0
    for sample in result["samples"]["proxybyte_choice"]:
        row = sample["doc"]
        expected = [
            -math.fsum(reference(taught_llama, [RAW, *symbols(row["context"])], symbols(choice)))
            for choice in row["choices"]
        ]
        assert [answer[0] for answer in sample["filtered_resps"]] == pytest.approx(expected, abs=1e-3)
        right += max(range(3), key=expected.__getitem__) == row["answer"]
    assert result["results"]["proxybyte_choice"]["acc,none"] == pytest.approx(right / len(rows("choice.jsonl")))


def test_multiple_choice_without_bos_loses_the_sentinel(evaluate, taught_llama, reference):
    sample = evaluate("proxybyte_choice", add_bos_token=False)["samples"]["proxybyte_choice"][0]
    context, choice = sample["doc"]["context"], sample["doc"]["choices"][0]
    lost = -math.fsum(reference(taught_llama, symbols(context), symbols(choice)))
    kept = -math.fsum(reference(taught_llama, [RAW, *symbols(context)], symbols(choice)))
    assert sample["filtered_resps"][0][0] == pytest.approx(lost, abs=1e-3)
    assert abs(lost - kept) > 1e-2


def test_space_at_the_end_of_a_context_is_scored_with_the_continuation(stock, taught_llama, reference):
    ((found, _),) = ask(stock, "loglikelihood", ("Q: zwei\n", "A: deux"))
    moved = -math.fsum(reference(taught_llama, [RAW, *symbols("Q: zwei")], symbols("\nA: deux")))
    assert found == pytest.approx(moved, abs=1e-3)


@pytest.mark.parametrize(
    ("prompt", "until", "expected"),
    [
        ("Q: zwei\n", ["\n"], "A: deux"),
        ("Q: zwei\n", ["\n\n"], "A: deux"),
        ("Q: zwei\n", ["drei", "eux"], "A: d"),
        ("ein Caf", ["ü"], "é f"),
        ("ein Caf", ["\n"], "é für zwei: trois"),
    ],
)
def test_generation_with_the_tokenizers_bos_stops_exactly(stock, prompt, until, expected):
    others = ("Q: zwei\nA: deux\n\nQ: drei", {"until": until, "max_gen_toks": 40})
    answers = ask(stock, "generate_until", others, (prompt, {"until": until, "max_gen_toks": 40}))
    assert answers[1] == expected


def test_generation_is_cut_where_the_text_spells_eos(stock):
    (found,) = ask(stock, "generate_until", ("print", {"until": ["\n"], "max_gen_toks": 40}))
    assert found == "('"


def test_generate_until_task_runs_on_local_rows(evaluate, taught_llama):
    result = evaluate("proxybyte_complete")
    for sample in result["samples"]["proxybyte_complete"]:
        prompt = torch.tensor([[RAW, *symbols(sample["doc"]["context"])]])
        written = taught_llama.generate(prompt, max_new_tokens=48, do_sample=False)[0, prompt.shape[1] :]
        text = bytes(symbol - 64 for symbol in written.tolist() if symbol >= 64).decode(errors="replace")
        assert sample["filtered_resps"][0] == text.split("\n")[0]


def test_a_text_longer_than_the_context_loses_its_sentinel(native, taught_llama, reference):
    model = HFLM(pretrained=str(native), device="cpu", max_length=16, add_bos_token=False)
    text = "Q: zwei\nA: deux\n\nQ: drei\n"
    (found,) = ask(model, "loglikelihood_rolling", (text,))
    ids = symbols(text)
    first = math.fsum(reference(taught_llama, [RAW], ids[:16]))
    later = math.fsum(reference(taught_llama, ids[8:9], ids[9:])[-9:])
    assert found == pytest.approx(-first - later, abs=1e-3)


def test_what_export_writes_evaluates_with_nothing_but_the_setting(proxy_llama, tmp_path, reference):
    proxy_llama.save_pretrained(tmp_path / "model")
    folder = export_model(tmp_path / "model", tmp_path / "native", ExportOptions(ExportFormat.NATIVE))
    exported = LlamaForCausalLM.from_pretrained(folder)
    texts = ["short enough", "naïve — 数"]
    rolling = HFLM(pretrained=str(folder), device="cpu", add_bos_token=False)
    found = ask(rolling, "loglikelihood_rolling", *((text,) for text in texts))
    ours = bits_per_byte(exported, [text.encode() for text in texts])
    assert found == pytest.approx([-bits * math.log(2) for bits in ours.document_bits], abs=1e-3)

    prompted = HFLM(pretrained=str(folder), device="cpu")
    ((likelihood, _),) = ask(prompted, "loglikelihood", ("short", " enough"))
    expected = -math.fsum(reference(exported, [RAW, *symbols("short")], symbols(" enough")))
    assert likelihood == pytest.approx(expected, abs=1e-3)
