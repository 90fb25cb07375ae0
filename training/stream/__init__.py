"""The stream as a function: prepared splits, schedule, plan, packed rows of mixed views."""
