import copy
import subprocess
import sys

import pytest
from transformers import AutoConfig, LlamaConfig

from proxybyte import ProxyByteConfig, ProxyByteError
from proxybyte.symbols import Special

VERSIONS = [("4.57.6", True), ("5.13.1", True), ("5.14.0", False), ("6.0.0.dev0", False)]
EACH_IN_A_FORK = """
import os, sys, transformers
for version in sys.argv[2:]:
    if (child := os.fork()) == 0:
        os.dup2(os.open(f"{sys.argv[1]}/{version}", os.O_WRONLY | os.O_CREAT), 2)
        transformers.__version__ = version
        import proxybyte.configuration_proxybyte
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.fixture(scope="module")
def imported(tmp_path_factory) -> dict[str, tuple[int, str]]:
    """Exit code and stderr of a process that imports the configuration beside each version of Transformers."""
    folder = tmp_path_factory.mktemp("versions")
    versions = [version for version, _ in VERSIONS]
    words = [sys.executable, "-c", EACH_IN_A_FORK, str(folder), *versions]
    codes = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
    return {version: (int(code), (folder / version).read_text()) for version, code in zip(versions, codes, strict=True)}


@pytest.mark.parametrize(("version", "refused"), VERSIONS)
def test_an_old_transformers_is_refused_in_one_sentence_before_anything_is_imported_from_it(imported, version, refused):
    code, stderr = imported[version]
    said = (
        "ImportError: this model's code needs Transformers 5.14 or newer and finds "
        f"{version}: pip install --upgrade transformers (a native export runs from 4.57)"
    )
    assert (stderr.strip().splitlines()[-1:] == [said]) == refused
    assert code == refused


def test_the_vocabulary_follows_from_the_compressor(tiny_config):
    config = tiny_config(num_compressed_symbols=1000)
    assert config.vocab_size == config.backbone_config.vocab_size == 1320
    assert ProxyByteConfig(vocab_size=1320).num_compressed_symbols == 1000
    assert ProxyByteConfig().vocab_size == 320


def test_special_symbols_reach_the_backbone(tiny_config):
    for part in (config := tiny_config(), config.backbone_config):
        assert (part.pad_token_id, part.bos_token_id, part.eos_token_id) == (0, Special.RAW_OPEN, 2)


def test_shapes_are_those_of_the_backbone(tiny_config):
    config = tiny_config("qwen3")
    for name in ("hidden_size", "num_hidden_layers", "num_key_value_heads", "head_dim", "layer_types"):
        assert getattr(config, name) == getattr(config.backbone_config, name)
    config.num_hidden_layers = 5
    assert config.backbone_config.num_hidden_layers == 5
    assert not hasattr(tiny_config("llama"), "layer_types")


def test_a_configuration_object_is_copied():
    given = LlamaConfig(hidden_size=32, num_attention_heads=4)
    config = ProxyByteConfig(backbone_config=given, num_compressed_symbols=7)
    assert (given.vocab_size, config.vocab_size) == (32000, 327)


@pytest.mark.parametrize("tied", [True, False])
def test_tying_is_the_backbones_unless_asked(tied):
    backbone = {"model_type": "llama", "tie_word_embeddings": tied}
    assert ProxyByteConfig(backbone_config=backbone).tie_word_embeddings is tied
    asked = ProxyByteConfig(backbone_config=backbone, tie_word_embeddings=not tied)
    assert asked.tie_word_embeddings is asked.backbone_config.tie_word_embeddings is (not tied)


def _settings(config: ProxyByteConfig) -> dict:
    """All but where the configuration and its code came from."""
    return {name: value for name, value in config.to_dict().items() if name not in ("_name_or_path", "auto_map")}


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_saving_and_loading_changes_nothing(tiny_config, tmp_path, kind):
    config = tiny_config(kind, document_opening="<bos><raw>", tie_word_embeddings=True, loss_chunk_size=17)
    config.save_pretrained(tmp_path)
    for loaded in (ProxyByteConfig.from_pretrained(tmp_path), AutoConfig.from_pretrained(tmp_path)):
        assert type(loaded) is ProxyByteConfig
        assert _settings(loaded) == _settings(config)
    assert copy.deepcopy(config) == config


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"backbone_config": {"model_type": "lama"}}, "did you mean 'llama'"),
        ({"backbone_config": {"hidden_size": 8}}, "unknown model_type None"),
        ({"backbone_config": "llama"}, "give a dictionary"),
        ({"backbone_config": {"model_type": "bert"}}, "'bert' is no text decoder"),
        ({"backbone_config": {"model_type": "t5"}}, "'t5' is no text decoder"),
        ({"backbone_config": {"model_type": "falcon"}}, "'falcon' is no text decoder"),
        ({"backbone_config": {"model_type": "mamba"}}, "'mamba' carries a state"),
        ({"backbone_config": {"model_type": "qwen3_next"}}, "'qwen3_next' carries a state"),
        ({"backbone_config": {"model_type": "lfm3"}}, "'lfm3' carries a state"),
        ({"backbone_config": {"model_type": "cohere"}}, "'logit_scale': set it to 1.0"),
        ({"backbone_config": {"model_type": "mixtral", "output_router_logits": True}}, "router loss"),
        ({"backbone_config": {"model_type": "llama", "vocab_size": 500}}, "backbone_config.vocab_size is 500"),
        ({"backbone_config": LlamaConfig(vocab_size=500)}, "backbone_config.vocab_size is 500"),
        ({"num_compressed_symbols": 3, "vocab_size": 500}, "vocab_size is 500"),
        ({"vocab_size": 100}, "at least 320"),
        ({"num_compressed_symbols": -1}, "num_compressed_symbols is -1"),
        ({"num_compressed_symbols": True}, "num_compressed_symbols is True"),
        ({"loss_chunk_size": 0}, "loss_chunk_size is 0"),
        ({"hidden_size": 64}, "'hidden_size' is a setting of the decoder"),
    ],
)
def test_what_cannot_work_is_refused_in_one_sentence(settings, words):
    with pytest.raises(ProxyByteError, match=words) as error:
        ProxyByteConfig(**settings)
    assert "\n" not in str(error.value)
