"""The error that a person caused and can mend: one sentence that names the file, row or key and the fix."""


class ProxyByteError(ValueError):
    """Raised for bad input. The command line prints its one sentence and exits with code 2, without a traceback."""
