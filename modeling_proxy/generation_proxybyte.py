"""Transformers' own ``generate`` for texts in two views, and the ways to draft that it does not have."""

from contextlib import suppress
from typing import Any

import torch
from torch.nn import functional as F
from transformers import GenerationConfig, GenerationMixin, LogitsProcessorList, StoppingCriteriaList
from transformers.generation.candidate_generator import AssistedCandidateGenerator

from .configuration_proxybyte import EvaConfig, ProxyByteConfig
from .drafters import DraftRequest
from .errors import ProxyByteError
from .logits_processors import ViewLogitsProcessor, ViewState, view_states
from .row_cache import CACHE
from .suffix_rows import SuffixRows
from .symbols import COMPRESSED_OFFSET, NUM_RAW_SYMBOLS, Special
from .verification import Generation, decode_with_drafts


class ProxyByteGenerationMixin(GenerationMixin):
    """``generate`` under the rule of :class:`ViewLogitsProcessor`, whatever the caller passes, and with drafts.

    Beside the arguments of Transformers, ``generate`` takes these, as arguments or in a generation configuration:

    * ``draft="heads"``: the model's multi-byte heads draft the next bytes and each forward pass verifies them. The
      output is that of one byte at a time: the same with greedy decoding, from the same distribution with sampling.
    * ``draft=`` any :class:`.drafting.Drafter`, with the same guarantee: ``CrossViewDrafter`` of ``proxybyte.training``
      lets the model itself draft in the compressed view.
    * ``draft_repeats=True``: where the text's last bytes occurred in it before, what followed them is drafted;
      elsewhere whoever ``draft`` names, or nobody. With the same guarantee, and for any model.
    * ``draft_bytes``: how many bytes are drafted at most;
    * ``draft_rows``: how many rows of the batch are in one pass at most; when one ends, the next takes its place.

    With ``return_dict_in_generate=True`` the output then holds ``drafts``, a :class:`DraftReport`.
    """

    config: ProxyByteConfig
    suffix_rows: SuffixRows

    @property
    def reads_suffixes(self) -> bool:
        """Whether bytes are read with the rows of longer tokens."""
        return self.config.suffix_rows is not None and self.config.suffix_rows.mix > 0

    def _prepare_generation_config(self, generation_config: GenerationConfig | None, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        names = ("draft", "draft_repeats", "draft_bytes", "draft_rows")
        asked = {name: kwargs.pop(name) for name in names if name in kwargs}
        config, model_kwargs = super()._prepare_generation_config(generation_config, *args, **kwargs)  # type: ignore[misc]
        for name, value in asked.items():
            setattr(config, name, value)
        return config, model_kwargs

    def _validate_generation_mode(
        self, generation_mode: Any, generation_config: GenerationConfig, generation_mode_kwargs: dict[str, Any]
    ) -> None:
        if (request := DraftRequest.of(generation_config)) is not None:
            request.check(generation_mode, generation_config, generation_mode_kwargs)
        others = generation_mode_kwargs
        if _has_raw_rows_alone(others.get("assistant_model")) and "assistant_tokenizer" not in others:
            # Transformers takes a vocabulary of another size for another tokenizer's.
            others = {key: value for key, value in others.items() if key != "assistant_model"}
        super()._validate_generation_mode(generation_mode, generation_config, others)  # type: ignore[misc]

    def _sample(  # type: ignore[override]
        self,
        input_ids: torch.LongTensor,
        logits_processor: LogitsProcessorList,
        stopping_criteria: StoppingCriteriaList,
        generation_config: GenerationConfig,
        **model_kwargs: Any,
    ) -> Any:
        # Where Transformers decodes greedily and samples; whatever drafts need is prepared by then.
        request = DraftRequest.of(generation_config)
        if request is not None:
            request.check_processors(logits_processor, len(input_ids))
        if request is None:
            return super()._sample(  # type: ignore[misc]
                input_ids,
                logits_processor=logits_processor,
                stopping_criteria=stopping_criteria,
                generation_config=generation_config,
                **model_kwargs,
            )
        streamer = model_kwargs.pop("streamer", None)
        for name in ("synced_gpus", "tokenizer", "assistant_tokenizer"):
            model_kwargs.pop(name, None)
        prepared = (logits_processor, stopping_criteria, generation_config, streamer, model_kwargs)
        given = Generation(input_ids, *prepared, request.rows)
        return decode_with_drafts(self, request.open(self), given)

    def _get_candidate_generator(self, **kwargs: Any) -> Any:  # type: ignore[override]
        assistant = kwargs.get("assistant_model")
        if assistant is not None and assistant.config.model_type != ProxyByteConfig.model_type:
            # An assistant of another class (a native export) does not know what is ours alone.
            known = {name: one for name, one in kwargs["model_kwargs"].items() if name != "raw_symbols_only"}
            kwargs["model_kwargs"] = known
        generator = super()._get_candidate_generator(**kwargs)  # type: ignore[misc]
        if type(generator) is not AssistedCandidateGenerator or not _has_raw_rows_alone(assistant):
            return generator
        if bool((kwargs["input_ids"] >= COMPRESSED_OFFSET).any()):
            raise ProxyByteError("assistant_model reads raw symbols alone: give a prompt without compressed symbols")
        of_tokenizers = ("target_tokenizer", "assistant_tokenizer")
        return _RawCandidates(self.config.vocab_size, **{k: v for k, v in kwargs.items() if k not in of_tokenizers})

    def adjust_generation_fn(  # type: ignore[override]
        self,
        generation_config: GenerationConfig | None,
        from_auto_class: bool,
        from_pipeline: str | None,
        pretrained_model_name_or_path: Any,
        **kwargs: Any,
    ) -> None:
        """Read the folder's generation configuration, also what Transformers does not know in one that it made itself.

        Folders of earlier versions call theirs a copy of the model's configuration, of which Transformers takes only
        what it knows: ``draft`` would be dropped.
        """
        where = (from_auto_class, from_pipeline, pretrained_model_name_or_path)
        super().adjust_generation_fn(generation_config, *where, **kwargs)  # type: ignore[misc]
        if generation_config is None and self.generation_config._from_model_config:
            kwargs.pop("trust_remote_code", None)
            with suppress(OSError):  # there is no such file
                self.generation_config = GenerationConfig.from_pretrained(
                    pretrained_model_name_or_path, _from_model_config=False, **kwargs
                )

    def init_continuous_batching(self, *args: Any, **kwargs: Any) -> Any:
        """As Transformers', which keeps keys and values by pages.

        Raises:
            ProxyByteError: on a backbone whose cache cannot be kept so, and with suffix rows, which read the text.
        """
        kind = self.config.backbone_config.model_type
        hindrance = f"backbone {kind!r}" if kind == EvaConfig.model_type else "suffix rows"
        if kind == EvaConfig.model_type or self.reads_suffixes:
            raise ProxyByteError(f"continuous batching (generate_batch) does not run with {hindrance}: use generate")
        return super().init_continuous_batching(*args, **kwargs)  # type: ignore[misc]

    def prepare_inputs_for_generation(
        self, input_ids: torch.LongTensor, *args: Any, inputs_embeds: torch.Tensor | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Transformers' own, and what suffix rows read where ``input_ids`` are the text so far.

        Transformers takes embeddings as a prompt only of classes in whose signature here they stand.
        """
        kwargs["inputs_embeds"] = inputs_embeds
        inputs = super().prepare_inputs_for_generation(input_ids, *args, **kwargs)  # type: ignore[misc]
        fed, cache = inputs.get("input_ids"), inputs.get(CACHE)
        if not self.reads_suffixes or fed is None or cache is None:
            return inputs
        # Of a prompt that is read in parts only the cache knows what came before.
        held = int(cache.get_seq_length())
        if held and input_ids.shape[1] - fed.shape[1] >= min(held, self.suffix_rows.reach):
            inputs["suffix_symbols"] = self.suffix_rows.following(input_ids, fed.shape[1])
        return inputs

    def _expand_inputs_for_generation(  # type: ignore[override]
        self,
        expand_size: int = 1,
        is_encoder_decoder: bool = False,
        input_ids: torch.LongTensor | None = None,
        **model_kwargs: Any,
    ) -> tuple[torch.LongTensor, dict[str, Any]]:
        # The one place that sees every prompt once. Text never leaves the raw view, so where none starts in the
        # compressed one the head need not compute the compressed symbols: most of a small model's work for a byte.
        if input_ids is not None:
            only_raw = not bool((view_states(input_ids) == ViewState.COMPRESSED).any())
            model_kwargs.setdefault("raw_symbols_only", only_raw)
        return super()._expand_inputs_for_generation(  # type: ignore[misc]
            expand_size=expand_size, is_encoder_decoder=is_encoder_decoder, input_ids=input_ids, **model_kwargs
        )

    def _get_logits_processor(  # type: ignore[override]
        self, generation_config, *args: Any, logits_processor: LogitsProcessorList | None = None, **kwargs: Any
    ) -> LogitsProcessorList:
        # After the caller's processors, so that none brings a symbol back; before top-k and top-p, so that these
        # choose among symbols that may follow.
        # A number, a list, a tuple or a tensor of either shape; Transformers takes all of them.
        ends = generation_config.eos_token_id
        end_of_turn = ends is not None and int(Special.END_OF_TURN) in torch.as_tensor(ends).flatten().tolist()
        rule = ViewLogitsProcessor(self.config.vocab_size, end_of_turn, kwargs.get("device"))
        kwargs["logits_processor"] = LogitsProcessorList([*(logits_processor or []), rule])
        return super()._get_logits_processor(generation_config, *args, **kwargs)  # type: ignore[misc]


def _has_raw_rows_alone(assistant: Any) -> bool:
    """Whether ``assistant``, if there is one, is a model over the 320 raw symbols, such as a native export."""
    return assistant is not None and assistant.config.get_text_config().vocab_size == NUM_RAW_SYMBOLS


class _RawCandidates(AssistedCandidateGenerator):
    """Candidates of such an assistant, their logits as wide as the model's own: compressed symbols are never drafted.

    Args:
        vocab_size: of the model.
        **kwargs: of Transformers' own generator.
    """

    def __init__(self, vocab_size: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._missing = vocab_size - NUM_RAW_SYMBOLS

    def get_candidates(  # type: ignore[override]  # Transformers' own gives None too, where there is no room
        self, input_ids: torch.LongTensor, **kwargs: Any
    ) -> tuple[torch.LongTensor, torch.Tensor | None]:
        """Symbols ``(1, T + n)``, and logits ``(1, n, V)`` or ``None`` where there is no room for any."""
        candidates, logits = super().get_candidates(input_ids, **kwargs)
        return candidates, None if logits is None else F.pad(logits, (0, self._missing), value=-torch.inf)
