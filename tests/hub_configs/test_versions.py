"""Exports in other versions of Transformers: the oldest of our class and of a native one, one between, the newest."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from proxybyte.configuration_proxybyte import OLDEST_TRANSFORMERS
from proxybyte.hub_configs.export import ExportFormat, ExportOptions, export_model

pytestmark = pytest.mark.slow
BEFORE_THE_FLOOR, FLOOR, NEWEST, OLD = "5.13.1", "5.14.0", "5.24.0", "4.57.6"
"""The newest is the one that was tried last; it may be above the tested set's."""
NO_CLASS = (BEFORE_THE_FLOOR, OLD)
HUB = ["huggingface_hub>=1.20,<2.0", "httpx", "tokenizers==0.22.2"]
OLD_HUB = ["huggingface_hub==0.36.0", "tokenizers==0.22.1"]
"""What those versions want in the place of the tested set's."""
PROBE = """
import json, sys
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer
folder, full = sys.argv[1], sys.argv[2] == "full"
try:
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=full)
except ImportError as error:
    print(json.dumps({"refused": str(error)}))
    sys.exit()
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=full)  # 5.24 asks otherwise
batch = tokenizer(["def f(x):", "\\u00e9 <raw>"], padding=True, return_tensors="pt")
drafts = {"draft": "heads"} if full else {"custom_generate": folder, "trust_remote_code": True}
print(json.dumps({
    "version": transformers.__version__,
    "logits": model(**batch).logits[:, -1, :320].tolist(),
    "generated": model.generate(**batch, max_new_tokens=12, do_sample=False).tolist(),
    "drafted": model.generate(**batch, max_new_tokens=12, do_sample=False, **drafts).tolist(),
}))
"""


@pytest.fixture(scope="module", params=[OLD, BEFORE_THE_FLOOR, FLOOR, NEWEST])
def version(request, tmp_path_factory) -> tuple[str, Path]:
    """A version and the folder that it is installed in."""
    folder = tmp_path_factory.mktemp(f"transformers-{request.param}")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(folder)]
    of_its_time = ["--no-deps", *OLD_HUB] if request.param == OLD else [] if request.param == NEWEST else HUB
    for more in filter(None, (["--no-deps", f"transformers=={request.param}"], of_its_time)):
        if subprocess.run([*pip, *more], check=False, capture_output=True).returncode:
            pytest.skip("no package index at hand")
    return request.param, folder


def ask(version: tuple[str, Path], folder: Path, kind: str, home: Path) -> dict:
    environment = {
        "PYTHONPATH": str(version[1]), "HF_HUB_OFFLINE": "1", "HF_HOME": str(home), "OMP_NUM_THREADS": "1",
        "PATH": os.environ["PATH"],
    }  # fmt: skip
    probe = subprocess.run(
        [sys.executable, "-c", PROBE, str(folder), kind],
        cwd=home, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert probe.returncode == 0, probe.stderr
    return json.loads(probe.stdout.splitlines()[-1])


@pytest.mark.parametrize("kind", ["full", "native"])
def test_from_the_floor_on_logits_bytes_and_drafts_are_equal_and_before_it_one_sentence_says_so(
    kind, version, model_writer, tmp_path
):
    assert f"{'.'.join(map(str, OLDEST_TRANSFORMERS))}.0" == FLOOR
    model_writer(tmp_path / "run" / "model", "llama", num_raw_pred_heads=2)
    folder = export_model(tmp_path / "run", tmp_path / "hub", ExportOptions(ExportFormat(kind)))
    seen = ask(version, folder, kind, tmp_path)
    if kind == "full" and version[0] in NO_CLASS:
        assert f"this model's code needs Transformers 5.14 or newer and finds {version[0]}" in seen["refused"]
        return
    assert seen["version"] == version[0]
    model = AutoModelForCausalLM.from_pretrained(folder)
    batch = AutoTokenizer.from_pretrained(folder)(["def f(x):", "é <raw>"], padding=True, return_tensors="pt")
    with torch.inference_mode():
        logits = model(**batch).logits[:, -1, :320]
    torch.testing.assert_close(torch.tensor(seen["logits"]), logits, rtol=0, atol=1e-5)
    expected = model.generate(**batch, max_new_tokens=12, do_sample=False).tolist()
    assert seen["generated"] == seen["drafted"] == expected
