"""Colours of the lines in one picture: no two alike."""

Colour = tuple[float, float, float, float]


def distinct_colours(count: int) -> list[Colour]:
    """``count`` different colours: the usual ten, up to twenty in pairs, more along a scale."""
    from matplotlib import colormaps  # takes a second to import

    if count <= 20:
        palette = colormaps["tab10" if count <= 10 else "tab20"]
        return [palette(number) for number in range(count)]
    return [colormaps["turbo"](number / (count - 1)) for number in range(count)]
