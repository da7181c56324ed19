"""fldp.plotting: contrast in light and dark, and helpers that refuse what does not fit."""

from __future__ import annotations

import io
from types import SimpleNamespace

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

mpl.use("Agg")

from fldp import plotting

PAGES = {"light": "#ffffff", "dark": "#14181e", "darker": "#121212"}


def luminance(colour: str) -> float:
    channels = np.array(mpl.colors.to_rgb(colour))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ np.array([0.2126, 0.7152, 0.0722]))


def contrast(a: str, b: str) -> float:
    bright, dim = sorted((luminance(a), luminance(b)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("name", [*plotting.PALETTE, "INK"])
def test_every_colour_reads_on_every_page(name: str, page: str) -> None:
    colour = plotting.INK if name == "INK" else plotting.PALETTE[name]
    assert contrast(colour, PAGES[page]) >= 3.0


def test_letters_read_on_paper_and_where_the_dark_page_lightens_them() -> None:
    assert contrast(plotting.INK, "#ffffff") >= 4.5
    # fldp.css: brightness(1.3).
    lighter = tuple(min(1.0, 1.3 * c) for c in mpl.colors.to_rgb(plotting.INK))
    assert contrast(mpl.colors.to_hex(lighter), "#14181e") >= 4.5


def test_the_style_is_local_to_its_block() -> None:
    before = mpl.rcParams["axes.spines.top"]
    with plotting.style():
        assert mpl.rcParams["axes.spines.top"] is False
        assert mpl.rcParams["figure.facecolor"] == "none"
    assert mpl.rcParams["axes.spines.top"] == before


def test_error_bars_are_over_seeds() -> None:
    runs = np.array([[0.8, 0.9], [0.6, 0.8], [0.5, 0.5]])
    ax = plotting.accuracy_against_epsilon([1, 2, 8], runs, baseline=[0.9, 0.92])
    line = ax.containers[0].lines[0]
    np.testing.assert_allclose(line.get_ydata(), runs.mean(axis=1))
    with pytest.raises(ValueError, match="3 rows for 2"):
        plotting.accuracy_against_epsilon([1, 2], runs)


def test_a_band_needs_one_value_per_point() -> None:
    _, ax = plotting.figure()
    plotting.error_band(ax, [1, 2, 3], np.ones((4, 3)), label="a")
    with pytest.raises(ValueError, match=r"expected \(seeds, 2\)"):
        plotting.error_band(ax, [1, 2], np.ones((4, 3)))


def test_digits_and_histories_are_drawn() -> None:
    fig = plotting.digits_grid(np.random.default_rng(0).random((10, 64)), titles=["0"] * 10)
    assert len(fig.axes) == 16
    ax = plotting.history(SimpleNamespace(accuracy=[0.1, 0.5, 0.8], epsilon=[0.5, 0.8, 1.0]))
    assert len(ax.get_lines()) == 1


def test_a_figure_in_a_notebook_has_twice_the_pixels_and_keeps_its_size() -> None:
    with plotting.style():
        fig, ax = plotting.figure()
        ax.plot([0, 1], [0, 1])
        data, shown = plotting._sharp(fig)
    image = Image.open(io.BytesIO(data))
    assert (image.width // 2, image.height // 2) == (shown["width"], shown["height"])
    assert image.info["dpi"][0] == pytest.approx(2 * fig.dpi, rel=1e-3)
    assert shown["width"] == pytest.approx(plotting.WIDTH * fig.dpi, rel=0.05)
    assert "transparency" in image.info
