"""Whether changes of a prompt that change nothing in the task make a model fail (docs/code_eval.md)."""
