"""Several bytes a step with plain Transformers: this folder's heads draft, the model verifies.

    model.generate(**prompt, custom_generate=folder, trust_remote_code=True)

Greedy decoding, whose output is that of one byte at a time; anything else is done one byte at a time.
"""

import functools

import torch
from safetensors.torch import load_file
from transformers import DynamicCache
from transformers.generation.utils import GenerationMixin
from transformers.utils import cached_file

WEIGHTS = "draft_heads.safetensors"


def generate(model, *args, heads_from=None, custom_generate=None, trust_remote_code=None, **kwargs):
    """Transformers' ``generate`` with drafts.

    Args:
        model: the plain model.
        args: as for ``generate``.
        heads_from: folder or repository of the heads; where the model came from if absent.
        custom_generate: how this function was found, which Transformers 4 hands on to it.
        trust_remote_code: likewise.
        kwargs: as for ``generate``.
    """
    # The class's own, as the model's may be this function.
    plain = functools.partial(GenerationMixin.generate, model)
    config, _ = model._prepare_generation_config(kwargs.get("generation_config"), **_settings(kwargs))
    one_text = config.num_beams == config.num_return_sequences == 1
    if config.do_sample or not one_text or config.return_dict_in_generate or not config.use_cache:
        return plain(*args, **kwargs)
    heads = load_file(cached_file(heads_from or model.config._name_or_path, WEIGHTS))["heads"]
    heads = heads.to(device=model.lm_head.weight.device, dtype=model.lm_head.weight.dtype)
    # Transformers hands a streamer the prompt, but does not hand it on to a callable.
    decode = functools.partial(_decode, heads=heads, streamer=kwargs.get("streamer"))
    return plain(*args, custom_generate=decode, **kwargs)


def _settings(kwargs):
    """Those of ``kwargs`` that belong to the generation configuration."""
    return {name: kwargs[name] for name in ("do_sample", "num_beams", "num_return_sequences",
                                            "return_dict_in_generate", "use_cache") if name in kwargs}  # fmt: skip


@torch.no_grad()
def _decode(
    model, input_ids, logits_processor, stopping_criteria, generation_config, *, heads, streamer, **model_kwargs
):
    """Continue each row of ``input_ids`` by itself."""
    mask = model_kwargs.get("attention_mask")
    rows = []
    for row, ids in enumerate(input_ids):
        seen = ids if mask is None else ids[mask[row].bool()]
        text = _Text(model, heads, logits_processor, stopping_criteria)
        rows.append(text.continue_row(ids[None], seen[None], streamer))
    if streamer is not None:
        streamer.end()
    width = max(row.shape[1] for row in rows)
    pad = generation_config._pad_token_tensor
    fill = 0 if pad is None else int(pad)
    return torch.cat([torch.nn.functional.pad(row, (0, width - row.shape[1]), value=fill) for row in rows])


class _Text:
    """One row while it is continued."""

    def __init__(self, model, heads, logits_processor, stopping_criteria):
        self.model, self.heads = model, heads
        self.processor, self.stopping = logits_processor, stopping_criteria
        self.cache = DynamicCache(config=model.config)
        # A window's cache cannot be shortened, so that nothing can be taken back.
        self.drafts = not any(getattr(layer, "is_sliding", False) for layer in self.cache.layers)

    def continue_row(self, ids, seen, streamer):
        """``ids`` of shape ``(1, T)`` and what follows; ``seen`` are its symbols without padding."""
        logits, hidden = self._forward(seen)
        first, at = self._next(ids, logits[:, -1]), hidden[:, -1]
        while True:
            ids, done = self._append(ids, first, streamer)
            if done:
                return ids
            draft = self._draft(at) if self.drafts else first[:, :0]
            logits, hidden = self._forward(torch.cat([first, draft], dim=1))
            accepted, first = 0, self._next(ids, logits[:, 0])
            while accepted < draft.shape[1] and int(first) == int(draft[0, accepted]):
                ids, done = self._append(ids, first, streamer)
                if done:
                    return ids
                accepted += 1
                first = self._next(ids, logits[:, accepted])
            if accepted < draft.shape[1]:
                self.cache.crop(accepted - draft.shape[1])
            at = hidden[:, accepted]

    def _forward(self, symbols):
        out = self.model(symbols, past_key_values=self.cache, use_cache=True, output_hidden_states=True)
        return out.logits, out.hidden_states[-1]

    def _draft(self, hidden):
        """Each head's likeliest symbol, shape ``(1, heads)``, from a hidden state ``(1, D)``."""
        return (hidden @ self.heads.mT).view(1, -1, self.model.config.vocab_size).argmax(-1)

    def _next(self, ids, logits):
        return self.processor(ids, logits.to(torch.float32)).argmax(-1)[:, None]

    def _append(self, ids, symbol, streamer):
        ids = torch.cat([ids, symbol], dim=1)
        if streamer is not None:
            streamer.put(symbol[0].cpu())
        return ids, bool(self.stopping(ids, None).all())
