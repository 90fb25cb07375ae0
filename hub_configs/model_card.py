"""The README.md of an exported folder, at home and on the Hub: one owner of its text and its metadata.

It states what the folder's own JSON says (``export.json``, ``byteify.json``, ``training.json``), the results that it
is given, and what a person adds by options; where nothing is known it says so.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from string import Template

from huggingface_hub import ModelCard, ModelCardData

from proxybyte.artefacts import COMPRESSOR_FOLDER
from proxybyte.hub_configs.card_facts import ExportFacts
from proxybyte.hub_configs.card_results import Result, results_of_training
from proxybyte.provenance import DataFacts, Provenance, TrainingFacts

CARD_FILE = "README.md"
TAGS = ("byte-level", "tokenizer-free", "proxy-compression", "proxybyte")
_PIN = "COMMIT"
"""In the examples of a folder that is not on the Hub yet, where a commit is to be written."""


@dataclass(frozen=True)
class Told:
    """What a person says of a model beside what its folder knows.

    Attributes:
        license: of the weights, as the Hub spells it.
        base_model: the base's name on the Hub, where the folder does not know it.
        data: beside what the runs say.
        results: of evaluations.
    """

    license: str | None = None
    base_model: str | None = None
    data: DataFacts = field(default_factory=DataFacts)
    results: Sequence[Result] = ()


@dataclass(frozen=True)
class Card:
    """All that a card is made of.

    Attributes:
        name: by which the examples load it: of a folder, or on the Hub.
        facts: what the folder is.
        made: where the model comes from.
        told: by a person.
        revision: commit to pin where remote code runs; ``None`` while there is none.
    """

    name: str
    facts: ExportFacts
    made: Provenance
    told: Told = field(default_factory=Told)
    revision: str | None = None

    @property
    def results(self) -> list[Result]:
        """Of the training, then those given."""
        return [*results_of_training(self.made), *self.told.results]

    @property
    def data(self) -> DataFacts:
        """Of the runs, then what was said."""
        mine, more = self.made.data, self.told.data
        return DataFacts(
            tuple(dict.fromkeys((*mine.datasets, *more.datasets))),
            tuple(dict.fromkeys((*mine.licenses, *more.licenses))),
            tuple(dict.fromkeys((*mine.languages, *more.languages))),
        )

    @property
    def base_model(self) -> str | None:
        """The base as the Hub knows it; a name without an owner is a folder's."""
        base = self.told.base_model or self.made.base
        return base if base and "/" in base else None

    def metadata(self) -> ModelCardData:
        """The block at the card's head."""
        data = self.data
        return ModelCardData(
            license=self.told.license,
            base_model=self.base_model,
            datasets=list(data.datasets) or None,
            language=list(data.languages) or None,
            library_name="gguf" if self.facts.form == "gguf" else "transformers",
            pipeline_tag="text-generation",
            tags=list(TAGS),
            model_name=self.name.rpartition("/")[2],
            eval_results=[result.to_eval_result() for result in self.results] or None,
        )

    def __str__(self) -> str:
        facts = self.facts
        source = files("proxybyte.hub_configs") / "templates" / "model_card.md"
        text = Template(source.read_text(encoding="utf-8")).substitute(
            name=self.name.rpartition("/")[2],
            family=facts.family,
            parameters=f"{facts.parameters / 1e6:.1f}",
            layers=facts.layers,
            hidden=facts.hidden,
            context=facts.context or "unlimited",
            origin=_origin(self),
            code=_code(facts),
            compressor=_compressor(self),
            use=_use(self),
            drafting=_drafting(self),
            opening=f"`{facts.opening}`",
            ends="`</raw>`, `<eos>`" + (" or `<|eot_id|>`" if facts.chat else ""),
            other=_other_form(facts.form),
            trl=_trl(self),
            training=_training(self.made),
            data=_data(self),
            results=_results(self.results),
            limits=_limits(self),
            licence=_licence(self),
        )
        return f"---\n{self.metadata().to_yaml()}\n---\n{text}"


def write_card(card: Card, folder: Path) -> None:
    """Write ``folder/README.md``."""
    (folder / CARD_FILE).write_text(str(card), encoding="utf-8")


def license_in(text: str) -> str | None:
    """The licence that a card names; ``None`` where it names none."""
    named = ModelCard(text, ignore_metadata_errors=True).data.to_dict().get("license")
    return named if isinstance(named, str) else None


def _origin(card: Card) -> str:
    """Where the weights come from, in a sentence."""
    made = card.made
    method = "with [ProxyByte](https://arxiv.org/abs/2602.04289)"
    views = "raw bytes" + (" and compressed views of text" if any(map(_compressed, made.training)) else "")
    base = card.told.base_model or made.base
    turned = f"It was made from the tokenizer model {_linked(base)}, whose decoder it keeps" if base else ""
    if made.training:
        trained = f"trained {method} on {views}"
        return f"{turned}, and {trained}." if turned else f"It was {trained}."
    if made.byteified is not None:
        return (
            f"{turned}; rows for bytes were put before those of its tokens {method}, and nothing was trained since. On "
            "raw bytes it is therefore no better than those rows are: train it before use."
        )
    return "This folder does not say how it was trained."


def _compressed(run: TrainingFacts) -> bool:
    return run.seen.get("compressed/bytes", 0) > 0


def _linked(base: str) -> str:
    return f"[{base}](https://huggingface.co/{base})" if "/" in base else f"`{base}`"


def _code(facts: ExportFacts) -> str:
    if facts.form == "gguf":
        return "The file is for llama.cpp."
    if facts.form == "native":
        return f"It needs no remote code; Transformers {facts.transformers} or newer."
    return f"Its class and code files are in this folder; they need Transformers {facts.transformers} or newer."


def _pinned(card: Card) -> str:
    """Arguments that let remote code run, of one commit: what is pushed later does not run unread."""
    return f'revision="{card.revision or _PIN}"'


def _use(card: Card) -> str:
    """How to get a text out of it."""
    if card.facts.form == "gguf":
        return f"```sh\nllama-server -hf {card.name}\n```"
    full = card.facts.form == "full"
    trust = f", trust_remote_code=True, {_pinned(card)}" if full else ""
    read = "" if not full or card.revision else f"# Read the code, and write the commit that you read for {_PIN}.\n"
    return f"""```python
from transformers import AutoModelForCausalLM, AutoTokenizer

{read}tokenizer = AutoTokenizer.from_pretrained("{card.name}"{trust})
model = AutoModelForCausalLM.from_pretrained("{card.name}"{trust})
prompt = tokenizer("def fibonacci(n):", return_tensors="pt")
print(tokenizer.decode(model.generate(**prompt, max_new_tokens=100)[0], skip_special_tokens=True))
```"""


def _other_form(form: str) -> str:
    """How to get the other form of the model."""
    if form == "full":
        return "A form that needs no remote code comes from `proxybyte export MODEL --format native`."
    kept = "The compressed view is cut off, and with it its compressor"
    return f"{kept}: `--format full` of `proxybyte export` keeps both." if form == "native" else f"{kept}."


def _drafting(card: Card) -> str:
    """How to use the heads that predict further, where the folder has them."""
    heads = card.facts.heads
    if not heads or card.facts.form == "gguf":
        return ""
    several = "s, which predict" if heads > 1 else ", which predicts"
    more = f"\nIt has {heads} more head{several} further than the next byte: "
    if card.facts.form == "native":
        pinned = "" if not card.revision else " (load the model from that commit too)"
        where = f'"{card.name}"' if not card.revision else f'snapshot_download("{card.name}", {_pinned(card)})'
        return (
            f"{more}`model.generate(**prompt, do_sample=False,\ncustom_generate={where}, "
            f"trust_remote_code=True)`{pinned} writes up to {heads + 1} bytes a step with the code in\n"
            "`custom_generate/`. The output is that of one byte at a time.\n"
        )
    return (
        f'{more}`model.generate(**prompt, draft="heads")`\nwrites up to {heads + 1} bytes a step, and '
        "`draft_repeats=True` drafts what the text says again. The output is that\nof one byte at a time.\n"
    )


def _compressor(card: Card) -> str:
    family = card.facts.compressor
    if family is None:
        return ""
    return f"\nThe compressor whose symbols it knows (family `{family}`) is in `{COMPRESSOR_FOLDER}/`.\n"


def _trl(card: Card) -> str:
    """What a trainer that appends ends as text must be told."""
    if card.facts.form != "native" or card.facts.chat:
        return ""
    return (
        "\nTo train it with TRL, load the tokenizer by\n"
        f'`AutoTokenizer.from_pretrained("{card.name}", split_special_tokens=False)`: TRL appends `<eos>` as text,\n'
        "which otherwise is five bytes that teach the model no end.\n"
    )


def _training(made: Provenance) -> str:
    if not made.training:
        return "No training is recorded in this folder." if made.byteified is None else "It was not trained here."
    return "\n\n".join(map(_run, made.training))


def _run(run: TrainingFacts) -> str:
    """One run as a table."""
    seen = run.seen
    rows = [
        ("optimizer steps", f"{run.steps:,}"),
        ("symbols of rows", f"{run.symbols:,.0f}"),
        ("symbols of a row", f"{run.row_length:,}"),
        ("training FLOPs", f"{run.flops:.3g}"),
        ("seed", str(run.seed)),
        ("trained", "all weights" if run.weights == "all" else f"an adapter ({run.weights}), merged"),
    ]
    for view in ("raw", "compressed"):
        if seen.get(f"{view}/bytes"):
            share = seen[f"{view}/share_of_bytes"]
            shown = f"{seen[f'{view}/bytes']:,.0f} ({share:.1%}) in {seen[f'{view}/documents']:,.0f} documents"
            rows.append((f"bytes of text seen in the {view} view", shown))
    if run.codes is not None:
        codes = run.codes
        shown = f"{codes.name} (family `{codes.family}`), {codes.num_symbols:,} symbols, {codes.ratio:.2f} bytes each"
        rows.append(("compressor", shown))
    return _table(("", ""), rows)


def _data(card: Card) -> str:
    data = card.data
    datasets = ", ".join(f"[{name}](https://huggingface.co/datasets/{name})" for name in data.datasets)
    rows = [
        ("datasets on the Hub", datasets or "none named"),
        ("licence of the text", ", ".join(data.licenses) or "not stated"),
        ("languages", ", ".join(data.languages) or "not stated"),
    ]
    kinds = sorted({"conversations" if run.chat else "documents" for run in card.made.training})
    return _table(("", ""), [("kind", ", ".join(kinds) or "none"), *rows])


def _results(results: Sequence[Result]) -> str:
    if not results:
        return "None are recorded in this folder."
    rows = [(each.dataset, each.metric, each.shown, each.note) for each in results]
    return _table(("data", "metric", "value", "how"), rows)


def _limits(card: Card) -> str:
    facts, lines = card.facts, []
    if facts.context:
        lines.append(f"Text beyond {facts.context:,} bytes is outside what the model was made for.")
    if not facts.chat:
        lines.append("It continues text. It was not trained to follow instructions.")
    if not card.results:
        lines.append("Nothing is known here of its quality.")
    elif not card.told.results:
        lines.append("It was measured on held-out text of its own kind alone.")
    lines.append("Nothing was done against false, biased or harmful text: what it was trained on may come out again.")
    lines.append("Generated code is to be read, and run in a sandbox.")
    return "\n".join(f"- {line}" for line in lines)


def _licence(card: Card) -> str:
    weights = f"The weights: `{card.told.license}`." if card.told.license else "That of the weights is not stated."
    code = " The code files in this folder: Apache-2.0 (`LICENSE`, `NOTICE`)." if card.facts.code else ""
    return weights + code


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]
    return "\n".join(lines)
