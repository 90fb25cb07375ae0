"""Offsets against placements written out symbol by symbol."""

import numpy as np
import pytest

from proxybyte.training.stream.placement import Form, Lengths, Offsets, segments

BORDERS = np.arange(1, 16, dtype=np.uint32)[None]  # the text of symbol k of 16 ends at byte k
LENGTHS = Lengths(np.array([23]), np.array([16]), BORDERS)
SPELLED = {
    (Form.RAW, 0): ["open", *["text"] * 23, "close", "eos"],
    (Form.PARALLEL_RAW, 0): ["open", *["text"] * 23, "close", "eos"],
    (Form.COMPRESSED, 0): ["open", *["text"] * 16, "close", "eos"],
    (Form.PARALLEL_COMPRESSED, 0): ["open", *["text"] * 16, "close", "eos"],
    (Form.RAW_THEN_COMPRESSED, 0): ["open", *["text"] * 23, "close", "open", *["text"] * 16, "close", "eos"],
    (Form.COMPRESSED_THEN_RAW, 0): ["open", *["text"] * 16, "close", "open", *["text"] * 23, "close", "eos"],
    # 5 symbols, which spell 5 bytes, then the 18 bytes that are left.
    (Form.HAND_OFF, 5): ["open", *["text"] * 5, "close", "open", *["text"] * 18, "close", "eos"],
    # 3 bytes, 9 symbols, 11 bytes.
    (Form.SWITCHED, 1 << 2 | 1 << 11): [
        "open", *["text"] * 3, "close", "open", *["text"] * 9, "close", "open", *["text"] * 11, "close", "eos",
    ],
    # 15 symbols, 8 bytes.
    (Form.SWITCHED, 1 << 14 | 1 << 15): ["open", *["text"] * 15, "close", "open", *["text"] * 8, "close", "eos"],
    # 16 symbols.
    (Form.SWITCHED, 1 << 15): ["open", *["text"] * 16, "close", "eos"],
}  # fmt: skip


@pytest.mark.parametrize("prefix", [False, True])
@pytest.mark.parametrize(("form", "part"), SPELLED)
def test_offsets_point_where_a_placement_written_out_has_its_symbols(form, part, prefix):
    spelled = ["bos"] * prefix + SPELLED[form, part]
    spans = segments(LENGTHS, np.array([0]), np.array([form]), np.array([part], np.uint16))
    offsets = Offsets.of(spans, 1 + prefix)
    opens = [place for place, what in enumerate(spelled) if what == "open"]
    closes = [place for place, what in enumerate(spelled) if what == "close"]
    assert offsets.there.sum(axis=0).tolist() == [len(opens)]
    assert offsets.open[: len(opens), 0].tolist() == opens
    assert offsets.text[: len(opens), 0].tolist() == [place + 1 for place in opens]
    assert offsets.close[: len(opens), 0].tolist() == closes
    assert offsets.last_close.tolist() == closes[-1:]
    assert offsets.eos.tolist() == [spelled.index("eos")]
    assert offsets.length.tolist() == [len(spelled)]


def test_every_form_is_spelled():
    assert {form for form, _ in SPELLED} == set(Form)
