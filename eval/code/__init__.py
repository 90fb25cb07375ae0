"""Code generation: problems, samples, verdicts, pass@k (docs/code_eval.md)."""
