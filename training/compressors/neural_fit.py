"""``proxybyte compressor fit neural``."""

import argparse

from proxybyte import numbers

from .fitting import Fitter, add_corpus_arguments, add_entropy_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the family."""
    add_corpus_arguments(parser)
    training = parser.add_argument_group("training M1")
    training.add_argument(
        "--width",
        type=numbers.whole(8, 1 << 16),
        default=1024,
        metavar="N",
        help="units (default: 1024, 4M parameters)",
    )
    training.add_argument(
        "--steps", type=numbers.count, default=4000, metavar="N", help="optimizer steps (default: 4000)"
    )
    training.add_argument(
        "--batch", type=numbers.whole(1, 1 << 20), default=512, metavar="N", help="contexts a step (default: 512)"
    )
    training.add_argument(
        "--context", type=numbers.whole(1, 1 << 16), default=32, metavar="N", help="bytes a context (default: 32)"
    )
    training.add_argument(
        "--learning-rate", type=numbers.positive, default=3e-3, metavar="X", help="peak (default: 0.003)"
    )
    training.add_argument(
        "--seed", type=numbers.seed, default=0, metavar="N", help="of weights and contexts (default: 0)"
    )
    training.add_argument("--device", default=None, help="cpu, cuda, cuda:1 (default: the accelerator if there is one)")
    coding = parser.add_argument_group("coding with it")
    coding.add_argument("--bits", type=int, default=16, choices=[8, 12, 16, 24], help="of a window (default: 16)")
    coding.add_argument(
        "--ending",
        choices=["stop", "cut"],
        default="stop",
        help="before the byte that overflows a window (default; lossless), or 'cut' within it (as published; lossy)",
    )
    add_entropy_arguments(coding, "opens a segment")


def fit(args: argparse.Namespace) -> str:
    """Train M1 on the corpus and save."""
    import torch

    from proxybyte.training.texts import source_of

    from .neural.compressor import Ending, NeuralCompressor, NeuralSettings, default_device
    from .neural.fit import FitOptions, TextSampler, bits_per_byte, fit_folder, quantise, remove_checkpoint
    from .neural.fit import fit as fit_m1

    options = FitOptions(args.width, args.steps, args.batch, args.context, args.learning_rate, args.seed)
    settings = NeuralSettings(args.bits, Ending(args.ending), args.threshold, args.jump)
    sampler = TextSampler.of(list(source_of(args, args.corpus).read(progress="reading")))
    device = torch.device(args.device) if args.device else default_device()
    model = fit_m1(sampler, options, fit_folder(args.out), device, keep=True)
    bits = bits_per_byte(model, sampler, options)
    made = {"text_bytes": len(sampler.text), "bits_per_byte": round(bits, 4), "options": vars(options)}
    compressor = NeuralCompressor(quantise(model), settings, made=made)
    compressor.save(args.out)
    remove_checkpoint(fit_folder(args.out))  # not before the compressor is there
    return (
        f"{compressor.name}: M1 of {compressor.lm.num_parameters:,} parameters, {bits:.3f} bits a byte on "
        f"{len(sampler.text):,} bytes of text"
    )


FITTER = Fitter(
    summary="train M1, a small byte model, for the neural compressor and the compiled codebook",
    examples="""\
  proxybyte compressor fit neural --corpus data/corpus --out runs/m1
  proxybyte compressor fit neural --corpus src/ --width 256 --steps 1000 --threshold 8 --jump 8 --out runs/m1-small
  an interrupted fit goes on from its last checkpoint if the same command is given again""",
    add_arguments=add_arguments,
    fit=fit,
)
