"""The sub-commands of this room; each module holds one ``COMMAND``."""
