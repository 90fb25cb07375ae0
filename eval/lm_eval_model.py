"""Our model class for lm-eval: ``--model proxybyte``, right in one setting for every kind of task.

lm-eval's own ``hf`` class splits context and continuation as a tokenizer would (a context's last spaces go to the
continuation), loses the sentinel where a text is longer than the model's context, and looks for stop strings in
decoded text. Here a request is bytes: split where the task splits it, every window opening with the sentinel, and
generation stopping at the very byte.
"""

import json
import math
from collections import defaultdict
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lm_eval.api.instance import Instance
from lm_eval.api.registry import register_model
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import normalize_gen_kwargs

from proxybyte.artefacts import find_adapter, find_compressor, find_model, is_hub_name
from proxybyte.byte_codec import encode_bytes
from proxybyte.errors import ProxyByteError
from proxybyte.eval.bpb import bits_per_byte
from proxybyte.eval.completing import ByteGeneration, check_temperature, complete_bytes
from proxybyte.eval.lm_eval_chat import ChatLayout, ChatPrompt, carried_chat_tokenizer
from proxybyte.eval.loading import ModelKind, model_kind
from proxybyte.eval.scoring import Scoring, Sequences, bare, score_sequences
from proxybyte.faults import loading
from proxybyte.model_loading import SAFELY, check_remote_code
from proxybyte.progress import Progress
from proxybyte.symbols import NUM_RAW_SYMBOLS, DocumentOpening, Special, document_opening
from proxybyte.tokenization_proxybyte import build_tokenizer
from proxybyte.user_paths import name_or_path

_AUTO_ROWS = 16
"""Prompts that generate side by side with ``--batch_size auto``."""


_BYPASSED: dict[str, tuple[tuple[Any, ...], str]] = {
    "add_bos_token": ((None,), "every window opens as the model's configuration says"),
    "prefix_token_id": ((None,), "every window opens as the model's configuration says"),
    "softmax_dtype": ((None, "float32", torch.float32), "log-probabilities are always taken in float32"),
    "use_fast_tokenizer": ((True, None), "bytes need no tokenizer"),
    "backend": (("default", "causal"), "byte models are causal"),
}
"""Arguments of ``--model hf`` that this class has no use for: the values that say what it does anyway, and why."""


def drafting_options(model: Any, folder: Any, draft: str | None, repeats: bool) -> dict[str, Any]:
    """Arguments of ``generate``.

    Args:
        model: it is to generate.
        folder: where it was loaded from; a full export, if the compressed view is to draft.
        draft: ``"heads"`` or ``"compressed"``, if anybody.
        repeats: draft what the text says again.

    Raises:
        ProxyByteError: if the model is a native export, or has no compressor beside it.
    """
    if draft is None and not repeats:
        return {}
    if model.config.model_type != "proxybyte":
        raise ProxyByteError("drafting (draft, draft_repeats) needs the full export: a native one has not its code")
    asked = {"draft": draft, "draft_repeats": repeats}
    if draft != "compressed":
        return asked
    compressor = find_compressor(Path(folder)) if isinstance(folder, str | Path) else None
    if compressor is None:
        raise ProxyByteError("draft=compressed needs a full export with its folder compressor/")
    from proxybyte.training import CrossViewDrafter, load_spelling

    return {**asked, "draft": CrossViewDrafter(load_spelling(compressor))}


@register_model("proxybyte")
class ProxyByteLM(HFLM):
    """A byte model, ours or its native export, under lm-eval.

    Args:
        pretrained: model folder or name on the Hub, or a loaded model.
        stride: distance between windows where a text is longer than ``max_length``; half a window by default.
        max_gen_toks: most bytes generated where a task does not say; 1,024 or half the context by default.
        draft: who drafts several bytes a step (``"heads"``, ``"compressed"``): the same answers, in less time.
        draft_repeats: draft what the text says again, with or without ``draft``.
        kwargs: as for ``--model hf`` (``dtype``, ``max_length``, ``peft``, ``parallelize``, ``think_end_token``, ...).
            ``max_length`` counts positions, that is bytes and the sentinel; ``batch_size`` counts rows of that length;
            ``tokenizer`` is where the chat template is taken from; ``max_batch_size`` bounds ``batch_size=auto``.

    Raises:
        ProxyByteError: if the model cannot be loaded, its symbols are not bytes, or an argument would change nothing.
    """

    def __init__(
        self,
        pretrained: Any,
        *,
        stride: int | None = None,
        max_gen_toks: int | None = None,
        draft: str | None = None,
        draft_repeats: bool = False,
        **kwargs: Any,
    ) -> None:
        if isinstance(pretrained, str):
            pretrained = name_or_path(pretrained)
            if not is_hub_name(pretrained) and not {"subfolder", "gguf_file"} & kwargs.keys():
                pretrained = str(find_model(pretrained).model)
        _refuse_what_would_change_nothing(pretrained, kwargs)
        if kwargs.get("trust_remote_code") and isinstance(pretrained, str):
            check_remote_code(pretrained, kwargs.get("revision"))
        self._most_rows = kwargs.get("max_batch_size")
        with loading(Path(str(pretrained)), "model"):
            super().__init__(pretrained, **SAFELY | kwargs)
        if model_kind(self.model) is ModelKind.TOKENS:
            raise ProxyByteError(f"{pretrained} is a tokenizer model: use --model hf for it")
        self._stride = None if stride is None else int(stride)
        self._max_gen_toks = None if max_gen_toks is None else int(max_gen_toks)
        self._opening = document_opening(bare(self.model).config)
        self._drafting = drafting_options(self.model, pretrained, draft, draft_repeats)
        where = {name: kwargs[name] for name in ("revision", "subfolder", "trust_remote_code") if name in kwargs}
        chat = carried_chat_tokenizer(pretrained, kwargs.get("tokenizer"), **where)
        self._chat = ChatLayout(chat, self.chat_template_args)

    @property
    def max_gen_toks(self) -> int:
        """Bytes generated where the task does not say."""
        return self._max_gen_toks or min(1024, self.max_length // 2)

    @property
    def tokenizer_name(self) -> str:
        """Key of lm-eval's cache of requests: bytes are the same for all."""
        return "proxybyte-bytes"

    def chat_template(self, chat_template: bool | str = False) -> str:
        """Source of the model's chat template, for lm-eval's logs; ``chat_template`` names one of several."""
        return self._chat.source(chat_template)

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """The conversation as a prompt whose control tokens are symbols and never text.

        In the chat template that lies in the model's folder, else in the layout of :func:`proxybyte.chat.encode_chat`.
        """
        return self._chat.prompt(chat_history, to_be_answered=add_generation_prompt)

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Nats of each continuation after its context, and whether greedy decoding would write it.

        A context that does not fit loses its oldest bytes, never the sentinel; a continuation that does not fit is
        scored by overlapping windows.

        Raises:
            ProxyByteError: with ``enable_thinking``: a model that thinks first has no likelihood of its answer alone.
        """
        if self.enable_thinking:
            raise ProxyByteError(
                "enable_thinking=True is for generation: likelihoods of answers leave no room to think"
            )
        pairs = [(_symbols(context), _symbols(continuation)) for context, continuation in _arguments(requests)]
        joined = [np.concatenate(pair) for pair in pairs]
        sequences = Sequences(
            prefix=self._opening,
            lengths=np.array([len(symbols) for symbols in joined], dtype=np.int64),
            read=lambda i, start, end: joined[i][start:end],
            score_from=np.array([len(context) for context, _ in pairs], dtype=np.int64),
            raw=True,
        )
        with self._precision():
            scores = score_sequences(self.model, sequences, self._scoring(disable_tqdm), want_greedy=True)
        assert scores.greedy is not None
        answers = [(-float(nats), bool(greedy)) for nats, greedy in zip(scores.nats, scores.greedy, strict=True)]
        for arguments, answer in zip(_arguments(requests), answers, strict=True):
            self.cache_hook.add_partial("loglikelihood", arguments, answer)
        return answers

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Nats of each text, as :func:`proxybyte.eval.bits_per_byte` counts them."""
        texts = [_utf8(text) for (text,) in _arguments(requests)]
        bits = np.zeros(len(texts))
        if any(texts):  # the empty ones alone cost nothing, and have no bits per byte
            with self._precision():
                bits = bits_per_byte(self.model, texts, self._scoring(disable_tqdm)).document_bits
        answers = [0.0 - float(cost) * math.log(2) for cost in bits]
        for arguments, answer in zip(_arguments(requests), answers, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", arguments, answer)
        return answers

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """What the model writes after each context, up to the first byte of a stop string, ``</raw>`` or ``<eos>``.

        With ``think_end_token`` the answer is what follows its last occurrence, and stop strings count in it alone.
        Bytes that are no UTF-8 come out as U+FFFD, as lm-eval takes text alone.
        """
        arguments = _arguments(requests)
        answers = [""] * len(requests)
        groups: dict[str, list[int]] = defaultdict(list)
        for number, (context, settings) in enumerate(arguments):
            groups[json.dumps([isinstance(context, ChatPrompt), settings], sort_keys=True, default=str)].append(number)
        rows = min(_AUTO_ROWS, self._most_rows or _AUTO_ROWS) if self.batch_size == "auto" else int(self.batch_size)
        with Progress(total=len(requests), desc="generating", disable=disable_tqdm or self.rank != 0) as bar:
            for numbers in groups.values():
                numbers.sort(key=lambda number: -len(arguments[number][0]))
                for start in range(0, len(numbers), rows):
                    batch = numbers[start : start + rows]
                    texts = self._generate([arguments[number][0] for number in batch], arguments[batch[0]][1])
                    for number, text in zip(batch, texts, strict=True):
                        answers[number] = text
                        self.cache_hook.add_partial("generate_until", arguments[number], text)
                    bar.update(len(batch))
        return answers

    def _generate(self, contexts: list[str], settings: dict[str, Any]) -> list[str]:
        plan = self._plan(settings)
        room = self.max_length - plan.max_bytes - len(self._opening)
        if room < 1:
            raise ProxyByteError(
                f"max_gen_toks={plan.max_bytes} leaves no room for a prompt in {self.max_length} positions: "
                "lower it with --gen_kwargs max_gen_toks=N (it counts bytes)"
            )
        prompts = [np.concatenate([self._opening, _symbols(context)[-room:]]) for context in contexts]
        if isinstance(contexts[0], ChatPrompt):
            plan = replace(plan, ends=(*plan.ends, int(Special.END_OF_TURN)))
        with self._precision():
            return [text.decode("utf-8", "replace") for text in complete_bytes(self.model, prompts, plan)]

    def _plan(self, settings: dict[str, Any]) -> ByteGeneration:
        options: dict[str, Any] = dict(normalize_gen_kwargs(settings, self.max_gen_toks))
        until, max_bytes = options.pop("until"), options.pop("max_gen_toks")
        if options["do_sample"]:
            if options.get("temperature") == 0:
                raise ProxyByteError("do_sample=True draws and temperature=0 does not: give one of them")
            check_temperature(options.get("temperature", 1.0), "temperature")
        else:
            options.pop("temperature", None)
        stops = [_utf8(stop) for stop in until if stop]
        end = self.think_end_token
        after = _utf8(end) if isinstance(end, str) else end
        return ByteGeneration(stops=stops, max_bytes=max_bytes, options={**options, **self._drafting}, after=after)

    def _scoring(self, disable_tqdm: bool) -> Scoring:
        rows = self._most_rows if self.batch_size == "auto" else int(self.batch_size)
        positions = None if rows is None else rows * self.max_length
        return Scoring(
            window=self.max_length - len(self._opening),
            stride=self._stride,
            batch_positions=positions,
            progress=not disable_tqdm and self.rank == 0,
        )

    def _precision(self) -> AbstractContextManager:
        """The ``mixed_precision_dtype`` that was asked for."""
        dtype = self.mixed_precision_dtype
        return torch.autocast(device_type=self.device.type, dtype=dtype, enabled=dtype is not None)

    def _create_model(self, *args: Any, peft: str | None = None, **kwargs: Any) -> None:
        """As the base class, but an adapter is laid on as it is: that one would cut the model down to its tokenizer."""
        super()._create_model(*args, **kwargs)
        if peft is None:
            return
        if kwargs.get("delta"):
            raise ProxyByteError("peft and delta cannot be used together: give one of them")
        from peft import PeftModel

        try:
            folder = find_adapter(str(peft), kwargs.get("revision"))
        except ProxyByteError as error:
            raise ProxyByteError(f"cannot load the adapter in {peft}: {error}") from error
        with loading(folder, "adapter"):
            self._model: Any = PeftModel.from_pretrained(self.model, folder)

    def _create_tokenizer(self, *_args: Any, **_kwargs: Any) -> None:
        """Bytes need no tokenizer; the base class wants one for its settings."""
        self.tokenizer = build_tokenizer(opening=DocumentOpening.of(self._config))


def _refuse_what_would_change_nothing(pretrained: Any, kwargs: dict[str, Any]) -> None:
    for name, (allowed, reason) in _BYPASSED.items():
        if kwargs.get(name, allowed[0]) not in allowed:
            raise ProxyByteError(f"{name}={kwargs[name]} has no effect with --model proxybyte ({reason}): leave it out")
    end = kwargs.get("think_end_token")
    symbol = int(end) if isinstance(end, int) or (isinstance(end, str) and end.isdigit()) else None
    if end == "" or (symbol is not None and not 0 <= symbol < NUM_RAW_SYMBOLS):
        raise ProxyByteError(
            f"think_end_token={end!r} never is written: give its text, or a symbol below {NUM_RAW_SYMBOLS}"
        )
    for name in ("peft", "delta"):
        if kwargs.get(name) and not isinstance(pretrained, str):
            raise ProxyByteError(f"{name}= has no effect on a model that is loaded already: give its folder")


def _arguments(requests: list[Instance]) -> list[tuple]:
    return [request.args for request in requests]


def _utf8(text: str) -> bytes:
    """Bytes of ``text``; lone surrogates, which JSON can hold, as Python writes them."""
    return text.encode("utf-8", "surrogatepass")


def _symbols(text: str) -> np.ndarray:
    """Symbols of ``text``, shape ``(n,)``, without an opening."""
    return text.symbols.astype(np.int64) if isinstance(text, ChatPrompt) else encode_bytes(_utf8(text), np.int64)
