"""A chat model is asked in the template that lies in its folder; adapters, thinking, and arguments without effect."""

import json
import math

import pytest
import torch

from proxybyte import ProxyByteConfig, ProxyByteForCausalLM, build_tokenizer, encode_bytes
from proxybyte.errors import ProxyByteError
from proxybyte.tokenization_proxybyte import save_tokenizer

lm_eval = pytest.importorskip("lm_eval")
from lm_eval.api.instance import Instance  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402

from proxybyte.eval.lm_eval_model import ProxyByteLM  # noqa: E402

RAW, HEADER_START, HEADER_END, END_OF_TURN = 12, 9, 10, 11
TEMPLATE = (
    "{{- '<raw>' -}}{%- for message in messages -%}"
    "{{- '<|start_header_id|>' ~ message['role'] ~ '\n' ~ message['content'] | trim ~ '<|eot_id|>\n' -}}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|start_header_id|>assistant\n' -}}"
    "{%- if enable_thinking -%}{{- '<think>' -}}{%- endif -%}{%- endif -%}"
)
"""As a byteified ChatML model has it: its own words around our control symbols."""
TALK = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "  größer?\n"}]


def text(words: str) -> list[int]:
    return encode_bytes(words.encode()).tolist()


def turn(role: str, content: str) -> list[int]:
    return [HEADER_START, *text(f"{role}\n{content}"), END_OF_TURN, *text("\n")]


ASKED = [*turn("system", "be brief"), *turn("user", "größer?"), HEADER_START, *text("assistant\n")]


def chat_tokenizer(template: str | dict = TEMPLATE):
    tokenizer = build_tokenizer(chat=True)
    tokenizer.chat_template = template
    return tokenizer


@pytest.fixture(params=["beside the plain one", "as the folder's own"])
def chat_folder(request, byte_llama, tmp_path):
    """A run's or byteified folder, and an export with --chat."""
    byte_llama.save_pretrained(tmp_path)
    own = request.param == "as the folder's own"
    save_tokenizer(chat_tokenizer() if own else build_tokenizer(), tmp_path)
    if not own:
        save_tokenizer(chat_tokenizer(), tmp_path / "chat")
    return tmp_path


def ask(lm, kind: str, *arguments: tuple) -> list:
    return getattr(lm, kind)([Instance(kind, {}, pair, n) for n, pair in enumerate(arguments)], disable_tqdm=True)


def test_the_template_of_the_folder_is_what_the_model_reads(chat_folder, byte_llama, reference):
    lm = ProxyByteLM(str(chat_folder), device="cpu")
    assert lm.chat_template(True) == TEMPLATE
    prompt = lm.apply_chat_template(TALK)
    assert prompt.symbols.tolist() == ASKED
    ((found, _),) = ask(lm, "loglikelihood", (prompt, "yes"))
    assert found == pytest.approx(-math.fsum(reference(byte_llama, [RAW, *ASKED], text("yes"))), abs=1e-3)


def test_a_begun_answer_is_left_open(chat_folder):
    lm = ProxyByteLM(str(chat_folder), device="cpu")
    for content in ("it is  ", "it"):
        begun = [*TALK, {"role": "assistant", "content": content}]
        found = lm.apply_chat_template(begun, add_generation_prompt=False).symbols.tolist()
        assert found == [*ASKED, *text(content.strip())]


def test_a_model_without_a_template_is_asked_in_our_layout(native_folder):
    lm = ProxyByteLM(str(native_folder), device="cpu")
    found = lm.apply_chat_template([{"role": "user", "content": "a"}]).symbols.tolist()
    header = lambda role: [HEADER_START, *text(role), HEADER_END, *text("\n\n")]  # noqa: E731
    assert found == [*header("user"), *text("a"), END_OF_TURN, *header("assistant")]


@pytest.fixture
def native_folder(byte_llama, tmp_path):
    byte_llama.save_pretrained(tmp_path / "native")
    save_tokenizer(build_tokenizer(), tmp_path / "native")
    return tmp_path / "native"


def test_whole_tasks_are_asked_in_it(byte_llama, tmp_path):
    """Through lm-eval's own code."""
    folder, tasks = tmp_path / "model", tmp_path / "tasks"
    byte_llama.save_pretrained(folder)
    save_tokenizer(chat_tokenizer(), folder)
    tasks.mkdir()
    (tasks / "rows.jsonl").write_text("".join(json.dumps({"q": q, "a": q[::-1]}) + "\n" for q in ("ab", "cd")))
    (tasks / "t.yaml").write_text(
        f"task: chatty\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {tasks}/rows.jsonl}}}}\n"
        "output_type: generate_until\ntest_split: test\ndoc_to_text: '{{q}}'\ndoc_to_target: '{{a}}'\n"
        "generation_kwargs: {until: ['\\n'], max_gen_toks: 4}\nmetric_list: [{metric: exact_match}]\n"
    )
    found = lm_eval.simple_evaluate(
        model="proxybyte",
        model_args={"pretrained": str(folder)},
        tasks=["chatty"],
        task_manager=TaskManager(include_path=str(tasks), include_defaults=False),
        device="cpu",
        apply_chat_template=True,
        log_samples=True,
        bootstrap_iters=0,
    )
    prompt = found["samples"]["chatty"][0]["arguments"][0][0]
    assert prompt.symbols.tolist() == [*turn("user", "ab"), HEADER_START, *text("assistant\n")]


def test_thinking_is_told_to_the_template_and_refused_where_it_is_none(chat_folder, native_folder):
    lm = ProxyByteLM(str(chat_folder), device="cpu", enable_thinking=True, think_end_token="</think>")
    assert lm.apply_chat_template(TALK).symbols.tolist() == [*ASKED, *text("<think>")]
    with pytest.raises(ProxyByteError, match="enable_thinking=True is for generation"):
        ask(lm, "loglikelihood", ("a", "b"))
    plain = ProxyByteLM(str(native_folder), device="cpu", enable_thinking=True, think_end_token="</think>")
    with pytest.raises(ProxyByteError, match="enable_thinking=True changes nothing: the model's chat template has no"):
        plain.apply_chat_template(TALK)
    off = ProxyByteLM(str(native_folder), device="cpu", enable_thinking=False)
    assert len(off.apply_chat_template(TALK).symbols)
    more = ProxyByteLM(str(chat_folder), device="cpu", chat_template_args={"tone": "dry"})
    with pytest.raises(ProxyByteError, match="tone=dry changes nothing"):
        more.apply_chat_template(TALK)


def test_a_template_is_chosen_by_name(byte_llama, tmp_path):
    byte_llama.save_pretrained(tmp_path)
    short = "{{- '<raw>' -}}{{- messages[0]['content'] -}}"
    save_tokenizer(chat_tokenizer({"default": TEMPLATE, "short": short}), tmp_path)
    lm = ProxyByteLM(str(tmp_path), device="cpu")
    assert lm.chat_template("short") == short
    assert lm.apply_chat_template(TALK).symbols.tolist() == text("be brief")
    with pytest.raises(ProxyByteError, match=r"no chat template 'long' .*default, short"):
        lm.chat_template("long")


def test_the_template_can_be_given(native_folder, tmp_path, token_llama):
    save_tokenizer(chat_tokenizer(), tmp_path / "elsewhere")
    for given in (str(tmp_path / "elsewhere"), chat_tokenizer()):
        lm = ProxyByteLM(str(native_folder), device="cpu", tokenizer=given)
        assert lm.apply_chat_template(TALK).symbols.tolist() == ASKED
    with pytest.raises(ProxyByteError, match="no byte tokenizer"):
        ProxyByteLM(str(native_folder), device="cpu", tokenizer=token_llama[1])
    with pytest.raises(ProxyByteError, match="does not load"):
        ProxyByteLM(str(native_folder), device="cpu", tokenizer=str(tmp_path / "absent"))


@pytest.fixture(scope="module")
def thinker(tmp_path_factory):
    """Folder of a model that knows by heart three answers after thinking, and one without."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    shape = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=320, pad_token_id=0, bos_token_id=RAW, eos_token_id=[2, 13], **shape)
    )
    rows = [[RAW, *(symbols if isinstance(symbols, list) else text(symbols)), 13, 2] for symbols in THOUGHTS]
    ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=0)
    labels = ids.masked_fill(ids == 0, -100)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(150):
        loss = model(input_ids=ids, labels=labels, use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss < 0.1
    folder = tmp_path_factory.mktemp("thinker")
    model.eval().save_pretrained(folder)
    save_tokenizer(build_tokenizer(), folder)
    return folder


MARK = 40
"""A special that ends thinking in the last one."""
THOUGHTS = [
    "A: so\n\nor</think>\n\n two\n\nB",
    "D: x</t></t> vier",
    "C: drei\n\nE",
    [*text("F: um\n\n"), MARK, *text(" fünf\n\nG")],
]


@pytest.mark.parametrize("batch_size", [1, 4])
def test_the_answer_is_what_follows_the_thinking(thinker, batch_size):
    """Stop strings inside the thinking end nothing; without thinking they count as ever."""
    settings = {"until": ["\n\n"], "max_gen_toks": 40}

    def answers(end, *prompts):
        lm = ProxyByteLM(str(thinker), device="cpu", batch_size=batch_size, think_end_token=end)
        return ask(lm, "generate_until", *((prompt, settings) for prompt in prompts))

    assert answers("</think>", "A:", "C:") == ["two", " drei"]
    assert answers("</t>", "D:", "C:") == ["vier", " drei"]
    assert answers(MARK, "F:", "C:") == answers(str(MARK), "F:", "C:") == ["fünf", " drei"]
    assert answers(None, "A:", "C:", "F:") == [" so", " drei", " um"]


@pytest.mark.parametrize("end", ["", 320, -1, "999"])
def test_an_end_of_thinking_that_is_never_written_is_refused(thinker, end):
    with pytest.raises(ProxyByteError, match="think_end_token="):
        ProxyByteLM(str(thinker), device="cpu", think_end_token=end)


@pytest.mark.parametrize(
    "argument",
    [
        {"add_bos_token": False},
        {"add_bos_token": True},
        {"prefix_token_id": 1},
        {"softmax_dtype": "float64"},
        {"use_fast_tokenizer": False},
        {"backend": "seq2seq"},
    ],
)
def test_arguments_that_would_change_nothing_are_refused_by_name(native_folder, argument):
    ((name, value),) = argument.items()
    with pytest.raises(ProxyByteError, match=f"{name}={value} has no effect with --model proxybyte"):
        ProxyByteLM(str(native_folder), device="cpu", **argument)


def test_every_argument_of_the_stock_class_is_honoured_or_refused():
    """A new one in a later lm-eval is to be looked at before it is taken."""
    import inspect

    from lm_eval.models.huggingface import HFLM

    by_the_base = "revision subfolder truncation logits_cache max_length device dtype mixed_precision_dtype batch_size "
    by_the_base += "trust_remote_code parallelize max_memory_per_gpu max_cpu_memory offload_folder tp_plan peft delta "
    by_the_base += "autogptq gptqmodel gguf_file"
    here = "tokenizer max_batch_size think_end_token enable_thinking chat_template_args"
    refused = "add_bos_token prefix_token_id softmax_dtype use_fast_tokenizer backend"
    known = {"self", "pretrained", "kwargs", *by_the_base.split(), *here.split(), *refused.split()}
    assert set(inspect.signature(HFLM.__init__).parameters) == known


def test_a_word_that_no_model_knows_is_one_sentence(native_folder):
    with pytest.raises(ProxyByteError, match=r"cannot load the model in .*strid"):
        ProxyByteLM(str(native_folder), device="cpu", strid=3)


def test_max_batch_size_bounds_what_auto_lays_side_by_side(native_folder, monkeypatch):
    from proxybyte.eval import lm_eval_model

    seen = []
    complete = lm_eval_model.complete_bytes
    monkeypatch.setattr(
        lm_eval_model,
        "complete_bytes",
        lambda model, prompts, plan: seen.append(len(prompts)) or complete(model, prompts, plan),
    )
    lm = ProxyByteLM(str(native_folder), device="cpu", batch_size="auto", max_batch_size=2)
    ask(lm, "generate_until", *((f"{n}", {"until": ["\n"], "max_gen_toks": 2}) for n in range(5)))
    assert seen == [2, 2, 1]


@pytest.mark.parametrize("codes", [0, 50])
def test_an_adapter_is_laid_on_the_whole_model(codes, reference, tmp_path):
    """The same likelihoods as its merged weights give, spelled out."""
    from peft import LoraConfig, PeftModel, get_peft_model

    torch.manual_seed(0)
    shape = {"model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
    shape |= {"num_attention_heads": 2, "max_position_embeddings": 128, "initializer_range": 0.2}
    model = ProxyByteForCausalLM(ProxyByteConfig(backbone_config=shape, num_compressed_symbols=codes)).eval()
    model.save_pretrained(tmp_path / "base")
    save_tokenizer(build_tokenizer(), tmp_path / "base")
    adapted = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj", "v_proj"]))
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.5)
    adapted.save_pretrained(tmp_path / "adapter")
    lm = ProxyByteLM(str(tmp_path / "base"), peft=str(tmp_path / "adapter"), device="cpu")
    assert isinstance(lm.model, PeftModel)
    assert lm.model.get_input_embeddings().num_embeddings == 320 + codes
    ((found, _),) = ask(lm, "loglikelihood", ("ab", "cde"))
    rolled = ask(lm, "loglikelihood_rolling", ("abcde",))
    written = ask(lm, "generate_until", ("ab", {"until": [], "max_gen_toks": 8}))
    bare = ProxyByteForCausalLM.from_pretrained(tmp_path / "base")
    merged = PeftModel.from_pretrained(bare, tmp_path / "adapter").merge_and_unload().eval()
    nats = reference(merged, [RAW], text("abcde"))
    assert found == pytest.approx(-math.fsum(nats[2:]), abs=1e-3)
    assert rolled == pytest.approx([-math.fsum(nats)], abs=1e-3)
    assert written == ask(ProxyByteLM(merged), "generate_until", ("ab", {"until": [], "max_gen_toks": 8}))
    with pytest.raises(ProxyByteError, match=f"cannot load the adapter in {tmp_path}/absent"):
        ProxyByteLM(str(tmp_path / "base"), peft=str(tmp_path / "absent"), device="cpu")
    with pytest.raises(ProxyByteError, match="peft= has no effect on a model that is loaded already"):
        ProxyByteLM(merged, peft=str(tmp_path / "adapter"))


def test_rolling_likelihood_of_nothing_is_zero(native_folder):
    lm = ProxyByteLM(str(native_folder), device="cpu")
    assert ask(lm, "loglikelihood_rolling", ("",)) == [0.0]
    assert ask(lm, "loglikelihood_rolling", ("",), ("",)) == [0.0, 0.0]
    beside = ask(lm, "loglikelihood_rolling", ("",), ("abc",))
    assert beside[0] == 0.0 and beside[1] == ask(lm, "loglikelihood_rolling", ("abc",))[0] < 0


@pytest.mark.parametrize("value", [math.inf, math.nan, 1e308, 1e-45, 0.0])
def test_a_temperature_that_nothing_survives_is_refused(native_folder, value):
    lm = ProxyByteLM(str(native_folder), device="cpu")
    with pytest.raises(ProxyByteError, match="temperature"):
        ask(lm, "generate_until", ("a", {"until": [], "max_gen_toks": 2, "do_sample": True, "temperature": value}))
