import pytest
import torch

from proxybyte import ProxyByteError
from proxybyte.modeling_proxybyte import positions_from_mask

KINDS = pytest.mark.parametrize("kind", ["llama", "qwen3"])
ATTENTIONS = pytest.mark.parametrize("attention", ["eager", "sdpa"])
# Eager attention takes its softmax in float32, whatever the weights are.
TOLERANCE = {"eager": 1e-5, "sdpa": 1e-9}
LENGTHS = [[7, 1, 12], [1, 1, 18], [20]]


def packed_rows() -> tuple[torch.Tensor, torch.Tensor]:
    """Three rows of twenty symbols and the positions of their documents."""
    symbols = torch.randint(64, 360, (3, 20), generator=torch.Generator().manual_seed(3))
    positions = torch.stack([torch.cat([torch.arange(n) for n in lengths]) for lengths in LENGTHS])
    return symbols, positions


def each_alone(model, symbols: torch.Tensor) -> torch.Tensor:
    """Logits of every document run on its own, put back in their places."""
    rows = [
        torch.cat([model(piece[None]).logits[0] for piece in row.split(lengths)])
        for row, lengths in zip(symbols, LENGTHS, strict=True)
    ]
    return torch.stack(rows)


@KINDS
@ATTENTIONS
def test_logits_of_a_packed_document_are_those_of_the_document_alone(tiny_model, kind, attention):
    model = tiny_model(kind, attn_implementation=attention)
    symbols, positions = packed_rows()
    with torch.no_grad():
        alone = each_alone(model, symbols)
        packed = model(symbols, position_ids=positions).logits
        joined = model(symbols).logits
    torch.testing.assert_close(packed, alone, rtol=0, atol=TOLERANCE[attention])
    assert (joined - alone).abs().max() > 1e-3, "the documents are not long enough for the test to see a leak"


@KINDS
@ATTENTIONS
def test_no_gradient_reaches_another_document(tiny_model, kind, attention):
    model = tiny_model(kind, attn_implementation=attention)
    symbols, positions = packed_rows()
    embeddings = model.get_input_embeddings()(symbols).detach().requires_grad_()
    labels = symbols.clone()
    labels[0, :8] = labels[0, 8] = -100
    labels[1:] = -100
    model(inputs_embeds=embeddings, position_ids=positions, labels=labels).loss.backward()
    assert not embeddings.grad[0, :8].any() and not embeddings.grad[1:].any()
    assert embeddings.grad[0, 8:-1].abs().sum(-1).gt(0).all()


def test_a_mask_that_hides_nothing_does_not_open_the_documents(tiny_model):
    model = tiny_model()
    symbols, positions = packed_rows()
    masked = model(symbols, position_ids=positions, attention_mask=torch.ones_like(symbols)).logits
    assert torch.equal(masked, model(symbols, position_ids=positions).logits)


def test_what_would_open_the_documents_is_refused(tiny_model):
    model = tiny_model()
    symbols, positions = packed_rows()
    with pytest.raises(ProxyByteError, match="pass use_cache=False"):
        model(symbols, position_ids=positions, use_cache=True)
    hiding = torch.ones_like(symbols)
    hiding[0, 0] = 0
    with pytest.raises(ProxyByteError, match="leave attention_mask out"):
        model(symbols, position_ids=positions, attention_mask=hiding)


@KINDS
@ATTENTIONS
def test_a_left_padded_row_equals_the_row_alone(tiny_model, kind, attention):
    model = tiny_model(kind, attn_implementation=attention)
    if attention == "eager":
        # The least float64, which masks a whole padding row, is minus infinity in that softmax: NaN in, NaN out.
        model.float()
    symbols, _ = packed_rows()
    mask = torch.ones_like(symbols)
    mask[1, :5] = mask[2, :19] = 0
    with torch.no_grad():
        padded = model(symbols.masked_fill(mask == 0, 0), attention_mask=mask).logits
        explicit = model(symbols.masked_fill(mask == 0, 0), mask, positions_from_mask(mask)).logits
        for row, start in enumerate([0, 5, 19]):
            alone = model(symbols[row : row + 1, start:]).logits[0]
            torch.testing.assert_close(padded[row, start:], alone, rtol=0, atol=TOLERANCE[attention])
    assert torch.equal(padded, explicit)


@pytest.mark.slow
def test_flex_attention_keeps_packed_documents_apart(tiny_model):
    """Forward only: on a CPU FlexAttention has no backward."""
    model = tiny_model(attn_implementation="flex_attention").float()
    symbols, positions = packed_rows()
    with torch.no_grad():
        packed = model(symbols[:1], position_ids=positions[:1]).logits
        model.set_attn_implementation("sdpa")
        torch.testing.assert_close(packed[0], each_alone(model, symbols)[0], rtol=0, atol=1e-4)
