"""What a model folder says of where it comes from, through corpus, prepare, byteify, train, merge and export."""

import json
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from proxybyte.cli import main
from proxybyte.provenance import read_provenance

TEXT = "def name(first, second):\n    return first + second  # the sum\n"
PLAN = ["plan.row_length=64", "plan.budget=2048", "plan.budget_unit=symbols", "batch.rows_per_step=4"]
SMALL = [*PLAN, "batch.rows_per_device=4", "precision=float32", "log.plot=false", "log.trackers=[]"]
SMALL += ["evaluation.every=4", "evaluation.documents=4", "evaluation.max_bytes=60", "checkpoint.every=4"]


def run(*words: str | Path) -> None:
    assert main([*map(str, words)]) == 0, words


def write_base(folder: Path, card: str | None) -> None:
    """A tokenizer model of a few kilobytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: number for number, letter in enumerate(["<s>", "</s>", *alphabet, "de"])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("d", "e")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>").save_pretrained(folder)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4}
    config = LlamaConfig(**shape, vocab_size=len(vocabulary), bos_token_id=0, eos_token_id=1)
    LlamaForCausalLM(config).save_pretrained(folder)
    if card is not None:
        (folder / "README.md").write_text(card)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("origin")
    lines = [json.dumps({"text": TEXT.replace("name", f"name_{number}")}) for number in range(60)]
    (home / "texts.jsonl").write_text("\n".join(lines) + "\n")
    facts = ["--license", "cc-by-4.0", "--license", "mit", "--language", "en"]
    run("corpus", home / "texts.jsonl", "--validation-share", "0.3", *facts, "--out", home / "corpus")
    return home / "corpus"


@pytest.fixture(scope="module")
def byteified(corpus) -> Path:
    """A byteified model, and data prepared with its tokenizer beside it."""
    home = corpus.parent
    write_base(home / "base", "---\nlicense: llama3.2\n---\n# A base\n")
    run("byteify", home / "base", "--out", home / "byteified")
    compressor = home / "byteified" / "compressor"
    run("prepare", corpus, "--compressor", compressor, "--workers", "1", "--out", home / "prepared")
    return home / "byteified"


@pytest.fixture(scope="module")
def trained(byteified) -> Path:
    """A run that went on from it."""
    home = byteified.parent
    recipe = ["--config", "quickstart", f"data={home / 'prepared'}", f"output={home / 'run'}", "model.preset=null"]
    run("train", *recipe, f"model.checkpoint={byteified}", *SMALL)
    return home / "run"


def test_the_licence_and_language_of_the_text_travel_to_the_run(trained):
    facts = read_provenance(trained / "model").training[-1]
    assert (facts.data.licenses, facts.data.languages) == (("cc-by-4.0", "mit"), ("en",))
    assert facts.codes is not None
    assert facts.codes.num_symbols == json.loads((trained.parent / "prepared/prepared.json").read_text())["compressor"]["num_symbols"]  # noqa: E501 # fmt: skip


def test_the_figures_are_those_of_the_log(trained):
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    last = [line for line in lines if line["kind"] == "train"][-1]
    evaluated = [line for line in lines if line["kind"] == "evaluation"][-1]
    facts = read_provenance(trained / "model").training[-1]
    assert (facts.steps, facts.symbols, facts.flops) == (last["step"], last["symbols"], last["flops"])
    assert facts.seen["raw/share_of_bytes"] == last["raw/share_of_bytes"]
    assert facts.seen["raw/share_of_bytes"] + facts.seen["compressed/share_of_bytes"] == pytest.approx(1)
    assert dict(facts.validation) == {key: value for key, value in evaluated.items() if key not in ("kind", "step")}
    for folder in trained.glob("checkpoints/step-*/model"):
        assert read_provenance(folder).training[-1].steps == int(folder.parent.name.removeprefix("step-"))


def exported(model: Path, form: str, out: Path) -> ModelCard:
    run("export", model, "--format", form, "--out", out)
    return ModelCard((out / "README.md").read_text())


@pytest.mark.parametrize("form", ["native", "full", "gguf"])
def test_a_byteified_model_that_was_never_trained_names_its_base_and_no_training(form, byteified, tmp_path):
    card = exported(byteified, form, tmp_path / "out")
    assert "made from the tokenizer model `base`" in card.text
    assert "nothing was trained since" in card.text
    assert "trained with" not in card.text.replace("nothing was trained", "")
    assert "It was not trained here." in card.text
    assert card.data.eval_results is None
    assert read_provenance(tmp_path / "out").base == "base"


@pytest.mark.parametrize("form", ["native", "full"])
def test_trained_on_it_still_names_its_base_and_says_what_it_read(form, trained, tmp_path):
    card = exported(trained, form, tmp_path / "out")
    assert "made from the tokenizer model `base`" in card.text
    assert "trained with [ProxyByte]" in card.text
    assert "compressed views" in card.text
    assert card.data.language == ["en"]
    assert "cc-by-4.0, mit" in card.text
    facts = read_provenance(trained / "model").training[-1]
    told = {result.metric_name: result.metric_value for result in card.data.eval_results}
    assert told["bits per byte, raw view"] == pytest.approx(facts.validation["validation/raw_bpb"], abs=1e-6)
    assert f"{facts.flops:.3g}" in card.text
    assert read_provenance(tmp_path / "out") == read_provenance(trained / "model")


def test_a_second_run_adds_itself_to_the_first(trained, tmp_path):
    out = tmp_path / "again"
    recipe = ["--config", "quickstart", f"data={trained.parent / 'prepared'}", f"output={out}", "model.preset=null"]
    run("train", *recipe, f"model.checkpoint={trained}", *SMALL, "seed=5")
    made = read_provenance(out / "model")
    assert made.base == "base"
    assert [facts.seed for facts in made.training] == [read_provenance(trained / "model").training[0].seed, 5]


def test_an_adapter_carries_both_and_so_does_what_it_is_merged_into(byteified, tmp_path):
    recipe = ["--config", "quickstart", f"data={byteified.parent / 'prepared'}", f"output={tmp_path / 'run'}"]
    adapter = ["trainable.adapter.kind=lora", "trainable.adapter.rank=2", "model.preset=null"]
    run("train", *recipe, *adapter, f"model.checkpoint={byteified}", *SMALL)
    run("adapter", "merge", byteified, tmp_path / "run" / "adapter", "--out", tmp_path / "merged")
    for folder in (tmp_path / "run" / "model", tmp_path / "run" / "adapter", tmp_path / "merged"):
        made = read_provenance(folder)
        assert made.base == "base"
        assert [facts.weights for facts in made.training] == ["lora"]


def test_the_base_s_licence_is_that_of_its_card(byteified, tmp_path):
    assert read_provenance(byteified).byteified["license"] == "llama3.2"
    write_base(tmp_path / "bare", None)
    run("byteify", tmp_path / "bare", "--out", tmp_path / "out")
    assert read_provenance(tmp_path / "out").byteified["license"] is None


@pytest.mark.parametrize("name", ["byteify.json", "training.json"])
def test_a_damaged_file_is_named(name, trained, tmp_path, capsys):
    (tmp_path / name).write_text("[")
    (tmp_path / "config.json").write_bytes((trained / "model" / "config.json").read_bytes())
    assert main(["compare", str(tmp_path), str(trained)]) == 2
    assert name in capsys.readouterr().err
