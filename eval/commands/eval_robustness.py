"""``proxybyte eval robustness``: what is left of pass@k where the prompt is changed and the task is not."""

import argparse
import shlex
import sys
from typing import TYPE_CHECKING, Any

from proxybyte import numbers
from proxybyte.cli import Command
from proxybyte.errors import ProxyByteError
from proxybyte.folders import write_json
from proxybyte.privacy import shown_name

if TYPE_CHECKING:
    from proxybyte.eval.code.samples import Sample
    from proxybyte.eval.robustness.variants import RobustnessSet

EXAMPLES = """\
  proxybyte eval robustness exported/native --output out --confirm-run-unsafe-code
  proxybyte eval robustness exported/full --recode recode/ --output out --confirm-run-unsafe-code
  proxybyte eval robustness exported/full --families docstrings names --seeds 3 --output out --confirm-run-unsafe-code
  proxybyte eval robustness --recode recode/ --output ceiling --confirm-run-unsafe-code   # no model: the ceiling"""


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    from proxybyte.eval.code.options import add_model_options, add_sandbox_options

    add_model_options(parser, "one K: how many of N samples a problem has for being solved (default: 1)")
    parser.add_argument(
        "--set", default="humaneval", choices=["humaneval", "mbpp"], help="default: humaneval (mbpp: in ReCode's form)"
    )
    parser.add_argument(
        "--data", type=numbers.path, metavar="FILE", help="the set's unperturbed rows, .jsonl or .jsonl.gz"
    )
    parser.add_argument(
        "--recode",
        type=numbers.path_or_name,
        metavar="FOLDER",
        help="ReCode's perturbed files: a folder, or OWNER/NAME on the Hub; else built-in",
    )
    parser.add_argument(
        "--families", nargs="+", choices=["format", "names", "syntax", "docstrings"], help="default: all four"
    )
    parser.add_argument(
        "--seeds", type=numbers.count, default=5, metavar="S", help="worst of the first S seeds (default: 5)"
    )
    parser.add_argument(
        "--output", type=numbers.path, required=True, metavar="FOLDER", help="samples, verdicts and results go here"
    )
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    add_sandbox_options(parser)


def _run(args: argparse.Namespace) -> int:
    import json

    from proxybyte.eval.code.options import check_model, sandbox_bench
    from proxybyte.eval.robustness.measuring import find_ceiling, find_passed, report_rows, rows_as_json, rows_as_table

    ks = args.k or [1]
    if len(ks) > 1 or not ks[0] <= args.samples_per_problem:
        raise ProxyByteError("robustness is measured at one -k, of at least 1 and at most -n")
    bench = sandbox_bench(args)
    if args.folder is not None:
        check_model(args)
    problems = _load(args)
    variants = problems.all()
    model, about = None, {"model": "published solutions"}
    if args.folder is not None:
        samples, about = _generate(args, problems)
        print("the model's samples:", file=sys.stderr)
        model = find_passed(variants, samples, args.samples_per_problem, bench)
    print("the published solutions, which are the ceiling:", file=sys.stderr)
    rows = report_rows(problems, find_ceiling(variants, bench), model, ks[0])
    results = {
        **about,
        "set": args.set,
        "perturbations": shown_name(args.recode) if args.recode else "built-in",
        "problems": len(problems.nominal.problems),
        "k": ks[0],
        "sandbox": str(bench.wall),
        "rows": rows_as_json(rows),
    }
    write_json(args.output / "results.json", results)
    print(json.dumps(results, indent=2) if args.json else rows_as_table(rows, ks[0]))
    print(f"samples and rows are in {args.output}", file=sys.stderr)
    if args.folder is None:
        print("next: proxybyte eval robustness MODEL --output FOLDER --confirm-run-unsafe-code", file=sys.stderr)
    else:
        named = shlex.quote(str(args.folder))
        print(f"next: proxybyte eval lm --model_args pretrained={named} --tasks proxybyte", file=sys.stderr)
    return 0


def _load(args: argparse.Namespace) -> "RobustnessSet":
    from dataclasses import replace

    from proxybyte.eval.code.problems import CodeSet
    from proxybyte.eval.code.sources import load_problems
    from proxybyte.eval.robustness.builtin import perturb_all
    from proxybyte.eval.robustness.recode import load_recode

    code_set = CodeSet(args.set)
    nominal = load_problems(code_set, args.data)[: args.limit]
    everything = load_recode(args.recode, code_set, nominal) if args.recode else perturb_all(nominal, args.seeds)
    kept = tuple(
        variant
        for variant in everything.variants
        if variant.seed < args.seeds
        and variant.family is not None
        and (args.families is None or variant.family.label in args.families)
    )
    if not kept:
        raise ProxyByteError(_nothing_kept(args, everything))
    return replace(everything, variants=kept)


def _nothing_kept(args: argparse.Namespace, everything: "RobustnessSet") -> str:
    """Why no perturbed set is left, and what to do."""
    asked = args.families or [variant.family.label for variant in everything.variants if variant.family]
    seeds = [v.seed for v in everything.variants if v.family is not None and v.family.label in asked]
    if not seeds:
        return f"{args.recode} holds no file of the families asked for ({', '.join(args.families)})"
    return f"{args.recode} holds no file of the first {args.seeds} seeds: give --seeds {min(seeds) + 1} or more"


def _generate(args: argparse.Namespace, problems: "RobustnessSet") -> "tuple[dict[str, list[Sample]], dict[str, Any]]":
    from proxybyte.eval.code.generating import generate_samples
    from proxybyte.eval.code.options import load_completer
    from proxybyte.eval.code.samples import Header, SampleFile, fingerprint_problems

    model = load_completer(args)
    shown = shown_name(str(model.folder))
    samples = {}
    variants = problems.all()
    for number, variant in enumerate(variants, start=1):
        print(f"{variant.name} ({number} of {len(variants)})", file=sys.stderr)
        prompts = fingerprint_problems(variant.problems)
        header = Header(f"{args.set} {variant.name}", prompts, model.fingerprint, shown, model.settings)
        with SampleFile(args.output / "samples" / f"{variant.name}.jsonl", header) as file:
            samples[variant.name] = generate_samples(model.completer, variant.problems, model.plan, file)
    cut = sum(model.completer.cuts(problem.prompt) for variant in variants for problem in variant.problems)
    about = {"model": shown, "fingerprint": model.fingerprint, "settings": model.settings}
    return samples, {**about, "prompts_cut": cut}


COMMAND = Command(
    summary="how much of a model's pass@k survives changed prompts (ReCode), worst case over seeds",
    examples=EXAMPLES,
    add_arguments=_add_arguments,
    run=_run,
)
