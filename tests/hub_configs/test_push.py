"""``proxybyte push`` with huggingface_hub's own client, to a server process that speaks the Hub's API."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries

from proxybyte.hub_configs.export import ExportFormat, ExportOptions, export_model


def pinned_in(card: str) -> set[str]:
    return {line.split('revision="')[1].split('"')[0] for line in card.splitlines() if 'revision="' in line}


def test_what_is_pushed_is_what_lies_there_and_the_card_pins_the_commit_of_the_code(hub, exported):
    done = hub.push(exported, "me/model", "--license", "apache-2.0", "--language", "en", "--dataset", "some/text")
    assert done.returncode == 0, done.stderr
    repo, there = hub.repo("me/model"), hub.files("me/model")
    assert repo["private"] is True
    here = {path.relative_to(exported).as_posix(): path for path in exported.rglob("*") if path.is_file()}
    assert there.keys() == here.keys()
    for name, path in here.items():
        assert name in ("README.md", "SHA256SUMS") or there[name] == path.read_bytes(), name
    card = there["README.md"].decode()
    full = "auto_map" in json.loads(there["config.json"])
    assert full == ("LICENSE" in there) == ("NOTICE" in there)
    assert 'from_pretrained("me/model"' in card
    pins = pinned_in(card)
    assert len(pins) == (1 if full else 0)
    for commit in pins:
        assert "configuration_proxybyte.py" in repo["commits"][commit]["files"]
        assert commit in done.stdout
    data = ModelCard(card).data
    assert (data.license, data.language, data.datasets) == ("apache-2.0", ["en"], ["some/text"])
    assert (data.library_name, data.pipeline_tag) == ("transformers", "text-generation")


def test_a_dry_run_sends_nothing_and_shows_files_and_card(hub, sharded):
    done = hub.push(sharded, "me/model", "--license", "mit", "--dry-run", HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr
    assert hub.requests() == []
    assert "license: mit" in done.stdout
    names = {path.relative_to(sharded).as_posix() for path in sharded.rglob("*") if path.is_file()}
    assert all(f"  {name}\n" in done.stdout for name in names)


@pytest.fixture(scope="session")
def sharded_once(llama_run, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("sharded") / "model"
    return export_model(llama_run, out, ExportOptions(ExportFormat.FULL, shard_bytes=20_000))


@pytest.fixture
def sharded(sharded_once, tmp_path) -> Path:
    """A full export of several files of weights."""
    return Path(shutil.copytree(sharded_once, tmp_path / "sharded"))


def puts(requests: list[str]) -> list[str]:
    return [line for line in requests if line.startswith("PUT")]


def test_an_interrupted_push_goes_on_with_what_was_not_sent(hub_class, tmp_path, sharded):
    shards = sorted(sharded.glob("model-*.safetensors"))
    assert len(shards) > 3
    hub = hub_class(tmp_path)
    hub.start("--cut-after", "2")
    cut = hub.push(sharded, "me/model", "--license", "mit")
    hub.stop()
    assert cut.returncode == 2
    assert cut.stderr.count("\n") == 1 or "goes on with what has not been sent" in cut.stderr
    assert hub.files("me/model") == {}, "no half a model is to be seen"
    sent = len(list((tmp_path / "store" / "blobs").iterdir()))
    assert sent == 2
    hub.start()
    done = hub.push(sharded, "me/model", "--license", "mit")
    assert done.returncode == 0, done.stderr
    assert len(puts(hub.requests())) == len(shards) - sent
    there = hub.files("me/model")
    assert all(there[shard.name] == shard.read_bytes() for shard in shards)
    again = hub.push(sharded, "me/model", "--license", "mit")
    assert again.returncode == 0, again.stderr
    assert len(puts(hub.requests())) == len(shards) - sent, "nothing is sent twice"
    hub.stop()


def test_a_later_push_removes_earlier_weights_and_leaves_what_others_put_there(hub, sharded, llama_run):
    assert hub.push(sharded, "me/model", "--license", "mit").returncode == 0
    words = ["-c", "from huggingface_hub import upload_file; upload_file(path_or_fileobj=b'x', path_in_repo='art.png', "
             "repo_id='me/model')"]  # fmt: skip
    subprocess.run([sys.executable, *words], env=hub.environment(), check=True, capture_output=True)
    done = hub.push(llama_run, "me/model", "--format", "native", "--license", "mit")
    assert done.returncode == 0, done.stderr
    there = set(hub.files("me/model"))
    assert {"model.safetensors", "art.png"} <= there
    assert not any(name.startswith("model-") or name.endswith((".py", "index.json")) for name in there)


def test_a_branch_and_a_pull_request(hub, sharded):
    assert hub.push(sharded, "me/model", "--license", "mit", "--revision", "v1").returncode == 0
    assert hub.files("me/model") == {}
    assert "model.safetensors.index.json" in hub.files("me/model", "v1")
    asked = hub.push(sharded, "me/model", "--license", "mit", "--create-pr")
    assert asked.returncode == 0, asked.stderr
    assert "/discussions/1" in asked.stdout
    there = hub.files("me/model", "refs/pr/1")
    assert "README.md" in there
    assert hub.files("me/model") == {}


def test_a_public_repository_stays_public_and_that_is_said(hub, sharded):
    assert hub.push(sharded, "me/model", "--license", "mit", "--public").returncode == 0
    assert hub.repo("me/model")["private"] is False
    again = hub.push(sharded, "me/model", "--license", "mit")
    assert "is public" in again.stderr


def test_a_card_changed_by_hand_is_sent_as_it_is(hub, sharded):
    mine = "---\nlicense: mit\n---\n# My words\n"
    (sharded / "README.md").write_text(mine)
    assert hub.push(sharded, "me/model", "--license", "mit").returncode == 0
    assert hub.files("me/model")["README.md"].decode() == mine


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder: (folder / "notes.txt").write_text("see /home/maria/data/x"), "notes.txt holds the path"),
        (
            lambda folder: (folder / "a.json").write_text(json.dumps("hf_" + "a1B2" * 9)),
            "a.json holds the access token 'hf_a1B...'",
        ),
        (lambda folder: (folder / "run.log").write_text(str(folder.resolve())), "run.log holds the path"),
        (lambda folder: (folder / "old.pt").write_bytes(b"x"), "old.pt may hold a pickle"),
        (lambda folder: (folder / "etc").symlink_to("/etc/hostname"), "etc is a link to another folder"),
    ],
)
def test_nothing_leaves_where_something_private_or_unsafe_lies(change: Callable, said, hub, sharded):
    change(sharded)
    refused = hub.push(sharded, "me/model", "--license", "mit")
    assert refused.returncode == 2
    assert said in refused.stderr
    assert "a1B2a1B2" not in refused.stderr
    assert hub.requests() == []


def test_a_word_that_is_no_secret_may_be_allowed(hub, sharded):
    (sharded / "notes.txt").write_text("see /home/maria/data/x")
    done = hub.push(sharded, "me/model", "--license", "mit", "--allow", "/home/maria")
    assert done.returncode == 0, done.stderr


def test_damaged_weights_do_not_leave(hub, sharded):
    shard = min(sharded.glob("model-*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"?")
    refused = hub.push(sharded, "me/model", "--license", "mit")
    assert refused.returncode == 2
    assert f"{shard.name} is not what was written" in refused.stderr
    assert hub.requests() == []


@pytest.mark.parametrize(
    ("words", "environment", "said"),
    [
        (["me/model"], {}, "give --license"),
        (["nobody"], {}, "must be OWNER/NAME"),
        (["me/model", "--license", "mit"], {"HF_TOKEN": "hf_wrong"}, "hf auth login"),
        (["me/model", "--license", "MIT"], {}, "as the Hub spells it"),
        (
            ["me/model", "--license", "mit"],
            {"HF_ENDPOINT": "http://127.0.0.1:9"},
            "goes on with what has not been sent",
        ),
    ],
)
def test_a_refusal_is_one_sentence(words, environment, said, hub, sharded):
    refused = hub.push(sharded, *words, **environment)
    assert refused.returncode == 2
    assert said in refused.stderr
    assert "Traceback" not in refused.stderr


def test_results_come_into_the_card_and_those_of_registered_benchmarks_into_files_of_their_own(hub, sharded, tmp_path):
    code = {"set": "humaneval", "samples": 20, "problems": 10, "settings": {"temperature": 0.2}}
    code |= {"pass@1": {"mean": 0.25, "low": 0.1, "high": 0.4}}
    bits = {"bits_per_byte": 1.5, "bits": 15.0, "bytes": 10, "documents": 1, "symbols": 10}
    harness = {"results": {"gsm8k": {"alias": "gsm8k", "exact_match,strict-match": 0.125}}, "n-shot": {"gsm8k": 5}}
    own = [{"dataset": {"id": "Idavidrein/gpqa", "task_id": "diamond"}, "value": 31.5}]
    for name, content in {"code": code, "held-out": {"/home/x/run (raw)": bits}, "lm": harness}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    (tmp_path / "gpqa.yaml").write_text(yaml.safe_dump(own))
    given = [word for name in ("code.json", "held-out.json", "lm.json", "gpqa.yaml") for word in ("--results", name)]
    done = hub.push(sharded, "me/model", "--license", "mit", *given)
    assert done.returncode == 0, done.stderr
    there = hub.files("me/model")
    card = ModelCard(there["README.md"].decode())
    seen = {(result.dataset_type, result.metric_name): result.metric_value for result in card.data.eval_results}
    assert seen == {
        ("openai/openai_humaneval", "pass@1"): 0.25,
        ("local", "bits per byte, raw view"): 1.5,
        ("gsm8k", "exact_match (strict-match)"): 0.125,
        ("Idavidrein/gpqa", "diamond"): 0.315,
    }
    assert "| HumanEval | pass@1 | 25.00% | 20 samples of 10 problems, temperature 0.2 |" in card.text
    assert "| held-out | bits per byte, raw view | 1.5000 | 10 bytes |" in card.text
    files = {name: content for name, content in there.items() if name.startswith(".eval_results/")}
    assert files.keys() == {".eval_results/gsm8k.yaml", ".eval_results/diamond.yaml"}
    entries = [entry for content in files.values() for entry in parse_eval_result_entries(yaml.safe_load(content))]
    told = {(entry.dataset_id, entry.task_id, entry.value) for entry in entries}
    assert told == {("openai/gsm8k", "gsm8k", 12.5), ("Idavidrein/gpqa", "diamond", 31.5)}
