"""What runs in the sandbox's own process; standard library alone, started by ``proxybyte.eval.sandbox.runner``."""
