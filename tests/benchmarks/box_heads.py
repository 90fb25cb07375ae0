"""The model in the box with heads that draft, trained here in about a minute of CPU time: its own weights stay.

Text: Transformers' own model files, which the box was trained on too; every tenth model family gives prompts alone.
What is trained is saved and used again.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from transformers import AutoModelForCausalLM

from proxybyte import ProxyByteConfig, ProxyByteForCausalLM, encode_bytes
from proxybyte.artefacts import BOX_FOLDER
from proxybyte.symbols import COMPRESSED_OFFSET, Special

HEADS, ROW, ROWS, BATCH, STEPS = 7, 512, 512, 2048, 300
HELD_OUT_EVERY = 10


def box_with_heads(kept: Path) -> ProxyByteForCausalLM:
    """The model; its heads are in the file ``kept``, or are trained and go there."""
    box = AutoModelForCausalLM.from_pretrained(BOX_FOLDER)
    config = ProxyByteConfig(backbone_config=box.config, num_compressed_symbols=0, num_raw_pred_heads=HEADS)
    model = ProxyByteForCausalLM(config).eval()
    state = {**model.state_dict(), **box.state_dict()}
    heads = model.raw_pred_heads.weight
    if kept.exists():
        state["raw_pred_heads.weight"] = load_file(kept)["raw_pred_heads.weight"]
        model.load_state_dict(state)
        return model
    model.load_state_dict(state)
    with torch.no_grad():
        heads.copy_(model.lm_head.weight.repeat(HEADS, 1))
    _train(model)
    kept.parent.mkdir(parents=True, exist_ok=True)
    save_file({"raw_pred_heads.weight": heads.detach().contiguous()}, kept)
    return model


def texts(held_out: bool) -> Iterator[bytes]:
    """Model files of the families that are held out, or of all others."""
    families = sorted(path for path in (Path(transformers.__path__[0]) / "models").iterdir() if path.is_dir())
    for number, family in enumerate(families):
        if (number % HELD_OUT_EVERY == 0) is held_out:
            yield from (path.read_bytes() for path in sorted(family.glob("model*.py")))


def _train(model: ProxyByteForCausalLM) -> None:
    """Heads alone, from the hidden states that the frozen model has of ``ROWS`` rows."""
    torch.manual_seed(0)
    symbols = encode_bytes(b"".join(texts(held_out=False))).astype(np.int64)
    starts = np.random.default_rng(0).integers(0, len(symbols) - ROW, ROWS)
    rows = torch.tensor(np.stack([[int(Special.RAW_OPEN), *symbols[start : start + ROW - 1]] for start in starts]))
    with torch.no_grad():
        hidden = torch.cat([model.model(input_ids=part, use_cache=False).last_hidden_state for part in rows.split(16)])
    reach = ROW - HEADS - 1
    inputs = hidden[:, :reach].flatten(0, 1)
    # Head 0, which is there already, gives the next symbol; head h the one h further.
    targets = torch.stack([rows[:, head + 1 : head + 1 + reach] for head in range(1, HEADS + 1)], dim=-1).flatten(0, 1)
    optimizer = torch.optim.Adam([model.raw_pred_heads.weight], lr=2e-3)
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = 2e-3 * (1 - step / STEPS)
        places = torch.randint(0, len(inputs), (BATCH,))
        logits = model.raw_pred_heads(inputs[places]).view(-1, COMPRESSED_OFFSET)
        F.cross_entropy(logits, targets[places].flatten()).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
