"""A page to try a model on: what it writes and what each byte costs it. Importing this package imports no Gradio."""
