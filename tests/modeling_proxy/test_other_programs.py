"""What other programs do with a model: offload it, ask it for metrics, name an end in any form, add tokens."""

import pytest
import torch
from accelerate import cpu_offload
from transformers import LogitsProcessor
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from proxybyte import ProxyByteConfig, ProxyByteError, ProxyByteForCausalLM, build_tokenizer

PROMPT = torch.tensor([[12, 70, 80, 90], [12, 71, 81, 91]])


def test_an_offloaded_head_gives_what_it_gives_at_home(tiny_model):
    model = tiny_model(num_pred_heads=2, num_raw_pred_heads=2)
    labels = PROMPT.clone()
    expected = model(PROMPT, labels=labels, return_head_logits=True)
    texts = model.generate(PROMPT, max_new_tokens=8)
    cpu_offload(model, execution_device=torch.device("cpu"))
    assert model.lm_head.weight.is_meta
    with torch.no_grad():
        found = model(PROMPT, labels=labels, return_head_logits=True, return_logits=False)
    torch.testing.assert_close(found.loss, expected.loss.detach())
    torch.testing.assert_close(found.head_logits, expected.head_logits.detach())
    assert torch.equal(model.generate(PROMPT, max_new_tokens=8), texts)
    assert torch.equal(model.generate(PROMPT, max_new_tokens=8, draft="heads"), texts)


class CountingCalls(LogitsProcessor):
    def __init__(self):
        self.calls = 0

    def __call__(self, input_ids, scores):
        self.calls += 1
        scores = scores.clone()
        scores[:, 64 + self.calls] += 1e3
        return scores


def test_drafts_for_a_batch_under_a_processor_with_a_state_are_refused_and_one_row_is_exact(tiny_model):
    model = tiny_model(num_raw_pred_heads=3)
    with pytest.raises(ProxyByteError, match="CountingCalls in a batch of 2"):
        model.generate(PROMPT, max_new_tokens=6, draft="heads", logits_processor=[CountingCalls()])
    row = model.generate(PROMPT[:1], max_new_tokens=6, draft="heads", logits_processor=[CountingCalls()])
    assert row[0, 4:].tolist() == [65, 66, 67, 68, 69, 70]


class WantsToEndItsTurn(LogitsProcessor):
    def __call__(self, input_ids, scores):
        return scores.index_fill(1, torch.tensor([11]), 1e4)


@pytest.mark.parametrize("ends", [11, [2, 11], (2, 13, 11), torch.tensor(11), torch.tensor([2, 11])], ids=str)
def test_an_end_is_one_in_any_form(tiny_model, ends):
    out = tiny_model().generate(PROMPT[:1], max_new_tokens=3, eos_token_id=ends, logits_processor=[WantsToEndItsTurn()])
    assert out[0, 4:].tolist() == [11]


def test_a_draft_in_the_generation_config_of_a_folder_is_kept(tiny_model, tmp_path):
    model = tiny_model(num_raw_pred_heads=3)
    model.generation_config.draft = "heads"
    model.save_pretrained(tmp_path)
    assert ProxyByteForCausalLM.from_pretrained(tmp_path).generation_config.draft == "heads"


def test_embeddings_alone_are_a_prompt_for_drafts(tiny_model):
    model = tiny_model(num_raw_pred_heads=3)
    embeddings = model.get_input_embeddings()(PROMPT).detach()
    expected = model.generate(PROMPT, max_new_tokens=8)[:, 4:]
    assert torch.equal(model.generate(inputs_embeds=embeddings, max_new_tokens=8, draft="heads"), expected)


def test_evaluation_gives_logits_beside_the_loss_unless_the_configuration_says_not(tiny_model):
    model = tiny_model()
    with torch.no_grad():
        assert torch.equal(model(PROMPT, labels=PROMPT).logits, model(PROMPT).logits)
        model.config.logits_in_evaluation = False
        assert model(PROMPT, labels=PROMPT).logits is None


def test_tools_find_the_class_and_the_sizes(tiny_config):
    assert MODEL_FOR_CAUSAL_LM_MAPPING_NAMES["proxybyte"] == "ProxyByteForCausalLM"
    gemma = ProxyByteConfig(backbone_config={"model_type": "gemma2", "final_logit_softcapping": 7.0})
    assert gemma.final_logit_softcapping == 7.0
    assert tiny_config().to_dict()["hidden_size"] == 32
    assert ProxyByteConfig.from_dict(tiny_config().to_dict()).hidden_size == 32


def test_a_setting_that_contradicts_the_weights_is_refused_by_name(tiny_model, tmp_path):
    tiny_model().save_pretrained(tmp_path)
    for setting in ({"num_compressed_symbols": 10}, {"vocab_size": 330}, {"tie_word_embeddings": True}):
        with pytest.raises(ProxyByteError, match=next(iter(setting))):
            ProxyByteForCausalLM.from_pretrained(tmp_path, **setting)
    with pytest.raises(ProxyByteError, match="loss_chunk_size"):
        ProxyByteForCausalLM.from_pretrained(tmp_path, loss_chunk_size=0)


def test_a_token_without_an_id_of_its_own_is_refused():
    tokenizer = build_tokenizer(chat=True)
    with pytest.raises(ProxyByteError, match="<extra_id_19>"):
        tokenizer.add_tokens(["<tool_call>"], special_tokens=True)
    tokenizer.add_tokens(["<eos>"])
    assert len(tokenizer) == 320
