"""A page about one run, for people who would rather look: bits per byte beside what needs no model, curves, views."""
