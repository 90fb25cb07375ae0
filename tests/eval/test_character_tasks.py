"""The lm-eval tasks in which bytes should win: characters of words, typos, scripts, valid UTF-8."""

import importlib.util
import json
import re
from collections import Counter

import pytest

from proxybyte import build_tokenizer, save_tokenizer
from proxybyte.eval import bits_per_byte
from proxybyte.eval.noise import Noise, noised
from proxybyte.eval.tasks import TASKS_FOLDER

lm_eval = pytest.importorskip("lm_eval")
from lm_eval.tasks import TaskManager  # noqa: E402

import proxybyte.eval.lm_eval_model  # noqa: E402, F401  registers the model


def loaded(name: str):
    """A module of the folder as lm-eval loads it: by its file."""
    spec = importlib.util.spec_from_file_location(name, TASKS_FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


KINDS = ["spell", "reverse", "count", "delete", "swap", "similar"]


def one_change_apart(one: str, other: str) -> bool:
    """By brute force over what one change of ``one`` gives."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    changed = {one[:i] + one[i + 1 :] for i in range(len(one))}
    changed |= {one[:i] + c + one[i:] for i in range(len(one) + 1) for c in letters}
    changed |= {one[:i] + c + one[i + 1 :] for i in range(len(one)) for c in letters}
    return other in changed


def is_right(kind: str, question: str, choice: str) -> bool:
    """Worked out from the words of the question alone."""
    quoted = re.findall(r'"([a-z]+)"', question)
    answer = choice.removeprefix(" ")
    match kind:
        case "spell":
            word = re.search(r"Word: (\w+)", question)[1]
            return len(answer) == 2 * len(word) - 1 and answer[::2] == word and set(answer[1::2]) == {" "}
        case "reverse":
            word = re.search(r"Word: (\w+)", question)[1]
            return list(answer) == list(reversed(word))
        case "count":
            return int(answer) == Counter(quoted[1])[quoted[0]]
        case "delete":
            return answer == "".join(letter for letter in quoted[1] if letter != quoted[0])
        case "swap":
            one, other, word = quoted
            return answer == "".join({one: other, other: one}.get(letter, letter) for letter in word)
    return one_change_apart(quoted[0], answer)


@pytest.mark.parametrize("kind", KINDS)
def test_one_choice_of_four_is_right_and_said_to_be(kind):
    module = loaded("character_rows")
    rows = module.load(kind)["test"]
    assert len(rows) == 60
    for row in rows:
        question = row["context"].split("\n\n")[-1]
        assert len(set(row["choices"])) == 4
        right = [number for number, choice in enumerate(row["choices"]) if is_right(kind, question, choice)]
        assert right == [row["answer"]]
    answers = Counter(rows["answer"])
    assert max(answers.values()) < 30  # no place is right much more often than the others


@pytest.mark.parametrize("kind", KINDS)
def test_the_solved_examples_are_right_and_of_words_that_are_not_asked_about(kind):
    module = loaded("character_rows")
    rows = module.load(kind)["test"]
    for example in rows[0]["context"].split("\n\n")[:-1]:
        question, _, answer = example.rpartition("? " if kind == "count" else ":")
        assert is_right(kind, question, answer)
    assert not set(module.EXAMPLES) & set(module.WORDS)
    assert len(set(module.WORDS)) == len(module.WORDS)


def test_the_same_questions_every_time():
    for kind in KINDS:
        first, second = (loaded("character_rows").load(kind)["test"].to_list() for _ in range(2))
        assert first == second


def test_valid_utf8_allows_a_character_that_the_limit_cut():
    valid = loaded("utf8_rows").valid
    assert valid({}, ["안녕 🎉"]) == {"valid_utf8": 1.0}
    assert valid({}, ["안녕\N{REPLACEMENT CHARACTER}"]) == {"valid_utf8": 1.0}
    assert valid({}, ["안\N{REPLACEMENT CHARACTER}녕"]) == {"valid_utf8": 0.0}


def test_all_of_them_run_and_typos_cost_what_our_own_figure_says(taught_llama, tmp_path):
    taught_llama.save_pretrained(tmp_path)
    save_tokenizer(build_tokenizer(), tmp_path)
    result = lm_eval.simple_evaluate(
        model="proxybyte",
        model_args={"pretrained": str(tmp_path)},
        tasks=["proxybyte_characters", "proxybyte_typos", "proxybyte_scripts", "proxybyte_utf8"],
        task_manager=TaskManager(include_path=str(TASKS_FOLDER), include_defaults=False),
        device="cpu",
        batch_size=16,
        limit=8,
        bootstrap_iters=0,
    )["results"]
    assert {f"proxybyte_characters_{kind}" for kind in KINDS} <= result.keys()
    assert {"proxybyte_scripts", "proxybyte_utf8"} <= result.keys()
    assert 0 <= result["proxybyte_utf8"]["valid_utf8,none"] <= 1
    texts = [json.loads(line)["text"] for line in (TASKS_FOLDER / "prose.jsonl").read_text().splitlines()][:8]
    for percent in (5, 20):
        noisy = [noised(text, percent / 100, Noise.MIXED, number).encode() for number, text in enumerate(texts)]
        ours = bits_per_byte(taught_llama, noisy).bits_per_byte
        assert result[f"proxybyte_typos_{percent}"]["bits_per_byte,none"] == pytest.approx(ours, abs=1e-5)
