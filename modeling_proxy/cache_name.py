"""What this version of Transformers calls the decoding cache: ``past_key_values``, and from 5.24 on ``cache``."""

from dataclasses import fields

from transformers.modeling_outputs import BaseModelOutputWithPast

CACHE = "cache" if "cache" in {field.name for field in fields(BaseModelOutputWithPast)} else "past_key_values"
"""The name in arguments and outputs of decoders, and in what ``generate`` carries from step to step."""
