r"""What the base model says of raw text, as further signals beside the targets; all off by default.

The base reads the tokens :math:`t_1 \dots t_k` of a raw document and knows the next token. Two signals follow:

*Bytes.* At a byte of token :math:`k + 1` of which the bytes :math:`s` have been seen, tokens that begin with :math:`s`
and go on are left, so

.. math:: p(b) = \sum_{v \text{ begins with } s b} p(v \mid t_1 \dots t_k) \Big/
    \sum_{v \text{ begins with } s,\, v \ne s} p(v \mid t_1 \dots t_k) .

``kind: border`` asks at token ends alone, where :math:`s` is empty; ``dense`` at every byte. The loss gains ``weight``
times the cross-entropy of the model's own next byte with :math:`p`. It is an approximation: the tokens up to the last
border are taken as given, and that :math:`v = s` could be a whole token with another behind it is left out
(``training/byteify/next_bytes.py`` has the exact one).

*Tokens.* At a token end the model's own rows of the compressed symbols are asked for the next token. The loss gains
``token_weight`` times the KL divergence of the base's distribution from theirs, renormalised over those rows.

*Chunks* (approximate likelihood matching, arXiv 2503.20083). What the model gives to the bytes of a token, one after
another, is held against what the base gives to the token, both as the chance of an event that happens or not, flattened
by a temperature :math:`\tau`: the loss gains ``chunks`` times
:math:`\mathrm{KL}(p^{1/\tau} \| q^{1/\tau})` of the two binary distributions.

*Hidden states.* At a token end the model has read the same text as the base after that token. The loss gains
``hidden`` times one minus the cosine of their states after each of some layers.

All are sums over their places, divided by the targets of the step. A byteified model is its own base through the
compressed view, so the teacher is a model folder that ``proxybyte byteify`` wrote. It may be of a base with another
tokenizer, which it carries: bytes are what both know, and only the tokens' signal needs the same codes. Text is coded
as the row shows it: a document that a row cuts is read from the cut on, as the model itself reads it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from proxybyte import ProxyByteForCausalLM
from proxybyte.checksums import WEIGHTS, verify_folder
from proxybyte.errors import ProxyByteError
from proxybyte.model_loading import SAFELY
from proxybyte.modeling_proxybyte import ProxyByteOutput
from proxybyte.symbols import BYTE_OFFSET, COMPRESSED_OFFSET, NUM_BYTES, NUM_RAW_SYMBOLS, Special

from ..byteify.embedding_rows import token_spellings
from ..byteify.next_bytes import ROOT, Prefixes
from ..compressors import Compressor, load_compressor
from ..compressors.bpe import BpeCompressor
from .config import TeacherKind
from .lever_config import Ramp
from .raw_spans import Span, raw_spans


@dataclass(frozen=True)
class Opinion:
    """What the base says of a batch.

    Attributes:
        spans: the stretches of raw text.
        chances: of the token ``k`` of each span one after another, given those before it, shape ``(sum of K, codes)``.
        ends: row and column of each token end that another token follows, shape ``(2, E)``.
        after: which of ``chances`` is about what follows there, shape ``(E,)``.
        hidden: the base's states after each of the layers asked for at those ends, shape ``(layers, E, D)``.
    """

    spans: list[Span]
    chances: torch.Tensor
    ends: torch.Tensor
    after: torch.Tensor
    hidden: torch.Tensor


@dataclass(frozen=True)
class Teacher:
    """The base, frozen.

    Attributes:
        model: a byteified model as it was before training.
        compressor: its tokenizer.
        prefixes: of its vocabulary.
        weight: of the bytes' signal in the loss.
        kind: at which bytes.
        temperature: of chunks' likelihoods.
    """

    model: ProxyByteForCausalLM
    compressor: BpeCompressor
    prefixes: Prefixes
    weight: float
    kind: TeacherKind = TeacherKind.BORDER
    temperature: float = 100.0

    @classmethod
    def load(
        cls,
        folder: Path,
        compressor: Path,
        weight: float,
        device: torch.device,
        kind: TeacherKind = TeacherKind.BORDER,
        temperature: float = 100.0,
    ) -> "Teacher":
        """The teacher in a model folder, in bfloat16 on an accelerator and float32 on a CPU.

        Raises:
            ProxyByteError: if there is none, or the data's compressor is no tokenizer.
        """
        coder = load_compressor(compressor)
        if not isinstance(coder, BpeCompressor):
            raise ProxyByteError(f"teacher.weight needs a tokenizer as compressor, but {compressor} is {coder.family}")
        dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
        verify_folder(folder, WEIGHTS)
        try:
            model = ProxyByteForCausalLM.from_pretrained(folder, dtype=dtype, **SAFELY)
        except (OSError, ValueError, RuntimeError) as error:
            raise ProxyByteError(f"the teacher in {folder} cannot be loaded: {str(error).splitlines()[0]}") from error
        model.requires_grad_(False)
        prefixes = Prefixes.build(token_spellings(coder), device)
        return cls(model.eval().to(device), coder, prefixes, weight, kind, temperature)

    def codes_as(self, other: Compressor) -> bool:
        """Whether the codes of ``other`` are this teacher's."""
        return isinstance(other, BpeCompressor) and token_spellings(other) == token_spellings(self.compressor)

    @torch.no_grad()
    def read(self, input_ids: torch.Tensor, layers: Sequence[int] = ()) -> Opinion | None:
        """What the base says of packed rows, ``None`` where they hold no raw text of two tokens.

        Args:
            input_ids: shape ``(B, T)``.
            layers: whose states to keep, from 1.
        """
        spans = raw_spans(input_ids.cpu().numpy(), self.compressor)
        if not spans:
            return None
        chances, hidden = self._next_tokens([span.codes[:-1] for span in spans], layers)
        rows = np.concatenate([np.full(len(span.places), span.row) for span in spans])
        columns = np.concatenate([span.places for span in spans])
        first = np.cumsum([0, *(len(span.codes) for span in spans)])
        after = np.concatenate([np.arange(a + 1, b) for a, b in pairwise(first)])
        ends, following = (torch.from_numpy(array).to(chances.device) for array in (np.stack([rows, columns]), after))
        return Opinion(spans, chances, ends, following, hidden[:, following])

    def loss(self, input_ids: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """:meth:`byte_loss` of packed rows ``(B, T)``."""
        return self.byte_loss(self.read(input_ids), logits)

    def byte_loss(self, opinion: Opinion | None, logits: torch.Tensor) -> torch.Tensor:
        """Weighted cross-entropy summed over the places of a batch, in nats, a scalar.

        Args:
            opinion: of the batch.
            logits: of the model that is trained, shape ``(B, T, at least 320)``.
        """
        if opinion is None:
            return logits.new_zeros((), dtype=torch.float32)
        places, wanted = self.next_bytes(opinion)
        said = logits[places[0], places[1], BYTE_OFFSET : BYTE_OFFSET + NUM_BYTES].float().log_softmax(dim=-1)
        return -self.weight * (wanted * said).sum()

    def token_loss(self, opinion: Opinion, token_logits: torch.Tensor) -> torch.Tensor:
        """KL divergence summed over token ends, in nats, a scalar.

        Args:
            opinion: of the batch.
            token_logits: of the trained model's compressed rows at ``opinion.ends``, shape ``(E, at least codes)``.
        """
        wanted = opinion.chances[opinion.after]
        said = token_logits[:, : wanted.shape[1]].float().log_softmax(dim=-1)
        return F.kl_div(said, wanted, reduction="sum")

    @torch.no_grad()
    def next_bytes(self, opinion: Opinion) -> tuple[torch.Tensor, torch.Tensor]:
        """Places ``(2, N)`` (rows, columns) and the distribution of the byte behind each, float32, ``(N, 256)``."""
        if self.kind is TeacherKind.BORDER:
            nodes, places, after = torch.full_like(opinion.after, ROOT), opinion.ends, opinion.after
        else:
            places, after, nodes = self._every_byte(opinion)
        sums = self.prefixes.cumulated(opinion.chances)
        chances = self.prefixes.next_bytes(sums, after, nodes)
        total = chances.sum(dim=-1, keepdim=True)
        known = total[:, 0] > 0
        return places[:, known], (chances[known] / total[known]).float()

    def hidden_loss(self, opinion: Opinion, hidden: Sequence[torch.Tensor]) -> torch.Tensor:
        """One minus the cosine with the base's states, summed over token ends and layers, a scalar.

        Args:
            opinion: of the batch.
            hidden: the trained model's states after the same layers, each of shape ``(B, T, D)``.
        """
        rows, columns = opinion.ends
        own = torch.stack([states[rows, columns].float() for states in hidden])
        return (1 - F.cosine_similarity(own, opinion.hidden.float(), dim=-1)).sum()

    def chunk_loss(self, opinion: Opinion, input_ids: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """Divergence of chunks' likelihoods summed over all tokens that another one follows, in nats, a scalar.

        Args:
            opinion: of the batch.
            input_ids: packed rows, shape ``(B, T)``.
            logits: of the model that is trained, shape ``(B, T, at least 320)``.
        """
        (rows, columns), token = self._bytes(opinion)
        spelled = logits[rows, columns, :NUM_RAW_SYMBOLS].float().log_softmax(dim=-1)
        of_bytes = spelled.gather(1, input_ids[rows, columns + 1, None]).squeeze(1)
        said = of_bytes.new_zeros(len(opinion.chances)).index_add(0, token, of_bytes)
        codes = np.concatenate([span.codes for span in opinion.spans]).astype(np.int64)
        wanted = opinion.chances.gather(1, torch.from_numpy(codes).to(said.device)[:, None]).squeeze(1).log()
        # A row may cut the last token of a stretch.
        followed = opinion.after - 1
        return _event_divergence(wanted[followed], said[followed], self.temperature).sum()

    def _bytes(self, opinion: Opinion) -> tuple[torch.Tensor, torch.Tensor]:
        """Place before each byte ``(2, N)`` (rows, columns) and the token it is of, counted over spans, ``(N,)``."""
        sizes, rows, columns = [], [], []
        for span in opinion.spans:
            length = int(span.ends[-1])
            sizes.append(np.diff(span.ends, prepend=0))
            rows.append(np.full(length, span.row))
            columns.append(span.begin - 1 + np.arange(length))
        size = np.concatenate(sizes)
        places = np.stack([np.concatenate(rows), np.concatenate(columns)])
        token = np.repeat(np.arange(len(size)), size)
        device = opinion.chances.device
        return torch.from_numpy(places).to(device), torch.from_numpy(token).to(device)

    def _every_byte(self, opinion: Opinion) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Places ``(2, N)`` before each byte, which chances hold there and what of the token was seen, both ``(N,)``.

        A token whose bytes are not those that it stands for (SentencePiece's space before a text) is left out from
        where they part.
        """
        places, token = self._bytes(opinion)
        text = np.concatenate(
            [
                np.frombuffer(self.compressor.decode(span.codes), np.uint8)[: int(span.ends[-1])]
                for span in opinion.spans
            ]
        )
        size = torch.bincount(token, minlength=len(opinion.chances))
        flat = torch.from_numpy(text.astype(np.int64)).to(token.device)
        nodes = self.prefixes.walk(flat, size.cumsum(0) - size, int(size.max()))
        chosen = nodes[torch.arange(nodes.shape[1], device=token.device) < size[:, None]]
        return places[:, chosen >= 0], token[chosen >= 0], chosen[chosen >= 0]

    @torch.no_grad()
    def next_byte(self, codes: np.ndarray) -> torch.Tensor:
        """Distribution of the byte after each token, float32, shape ``(len(codes), 256)``."""
        sums = self.prefixes.cumulated(self._next_tokens([codes])[0][1:])
        places = torch.arange(len(codes), device=sums.device)
        chances = self.prefixes.next_bytes(sums, places, torch.full_like(places, ROOT))
        return (chances / chances.sum(dim=-1, keepdim=True)).float()

    def _next_tokens(self, codes: list[np.ndarray], layers: Sequence[int] = ()) -> tuple[torch.Tensor, torch.Tensor]:
        """The base before and after each of the codes of each text, N = sum of (len + 1) places.

        Returns:
            Chances of the next token, float32, shape ``(N, codes)``, and states, shape ``(layers, N, D)``.
        """
        opened = [
            np.concatenate([[Special.COMPRESSED_OPEN], text.astype(np.int64) + COMPRESSED_OFFSET]) for text in codes
        ]
        positions = np.concatenate([np.arange(len(text)) for text in opened])
        device = self.prefixes.order.device
        symbols, places = (torch.from_numpy(part)[None].to(device) for part in (np.concatenate(opened), positions))
        said = self.model(input_ids=symbols, position_ids=places, use_cache=False, output_hidden_states=bool(layers))
        chosen = said.logits[0, :, COMPRESSED_OFFSET : COMPRESSED_OFFSET + self.compressor.num_symbols]
        kept = [said.hidden_states[layer][0] for layer in layers]
        hidden = torch.stack(kept) if kept else chosen.new_zeros(0, chosen.shape[0], 0)
        return chosen.float().softmax(dim=-1), hidden


def _event_divergence(wanted: torch.Tensor, said: torch.Tensor, temperature: float) -> torch.Tensor:
    """KL divergence of events that happen with chance ``p ** (1 / temperature)``, from log chances of any one shape."""
    # A chance of one has no logarithm of its opposite.
    one, other = ((log / temperature).clamp(-30, -1e-6) for log in (wanted, said))
    no_one, no_other = (torch.log(-torch.expm1(log)) for log in (one, other))
    return one.exp() * (one - other) + no_one.exp() * (no_one - no_other)


@dataclass(frozen=True)
class Lesson:
    """What the teacher says of one batch.

    Attributes:
        teacher: who says it.
        opinion: what.
        input_ids: of the batch, shape ``(B, T)``.
        token_weight: of the tokens' signal at this step.
        chunk_weight: of the chunks' signal at this step.
        hidden_weight: of the hidden states' signal at this step.
        layers: whose states, from 1.
    """

    teacher: Teacher
    opinion: Opinion
    input_ids: torch.Tensor
    token_weight: float
    chunk_weight: float
    hidden_weight: float
    layers: tuple[int, ...]

    @property
    def asks(self) -> dict[str, Any]:
        """Keyword arguments of the trained model's forward pass."""
        places = {"token_places": self.opinion.ends} if self.token_weight else {}
        states = {"output_hidden_states": True} if self.hidden_weight else {}
        return {"return_logits": True, "raw_symbols_only": True, **places, **states}

    def loss(self, output: ProxyByteOutput) -> torch.Tensor:
        """All signals together, summed over their places, a scalar."""
        logits, token_logits = output.logits, output.token_logits
        assert logits is not None
        total = logits.new_zeros((), dtype=torch.float32)
        if self.teacher.weight:
            total = total + self.teacher.byte_loss(self.opinion, logits)
        if self.token_weight and token_logits is not None:
            total = total + self.token_weight * self.teacher.token_loss(self.opinion, token_logits)
        if self.chunk_weight:
            total = total + self.chunk_weight * self.teacher.chunk_loss(self.opinion, self.input_ids, logits)
        if self.hidden_weight and output.hidden_states is not None:
            states = [output.hidden_states[layer] for layer in self.layers]
            total = total + self.hidden_weight * self.teacher.hidden_loss(self.opinion, states)
        return total


@dataclass(frozen=True)
class Lessons:
    """The teacher over a run.

    Attributes:
        teacher: the base.
        tokens: weight of the tokens' signal as the run goes on.
        chunks: the same of the chunks'.
        hidden: the same of the hidden states'.
        layers: after which of the decoder's layers, from 1.
        steps: of the run.
    """

    teacher: Teacher
    tokens: Ramp
    chunks: Ramp
    hidden: Ramp
    layers: tuple[int, ...]
    steps: int

    def prepare(self, input_ids: torch.Tensor, step: int) -> Lesson | None:
        """What is said of packed rows ``(B, T)`` at ``step``; ``None`` where there is nothing to say."""
        tokens, chunks, hidden = (ramp.at(step, self.steps) for ramp in (self.tokens, self.chunks, self.hidden))
        if not any((self.teacher.weight, tokens, chunks, hidden)):
            return None
        opinion = self.teacher.read(input_ids, self.layers if hidden else ())
        if opinion is None:
            return None
        return Lesson(self.teacher, opinion, input_ids, tokens, chunks, hidden, self.layers)
