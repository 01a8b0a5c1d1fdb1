import sys

import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from skcompress import CompressionDisplay, compression_report

PARAMS = [
    {"criterion": criterion, "sparsity": sparsity}
    for criterion in ("magnitude", "random")
    for sparsity in (0.5, 0.9)
]
CV_RESULTS = {
    "params": PARAMS,
    "mean_test_accuracy": np.array([0.96, 0.95, 0.94, 0.80]),
    "std_test_accuracy": np.array([0.01, 0.02, 0.03, 0.04]),
    "rank_test_accuracy": np.array([1, 2, 3, 4]),
    "mean_test_size": np.array([-500.0, -100.0, -500.0, -100.0]),
}
BASELINE = {"test_accuracy": np.array([0.96, 0.98]), "test_size": np.array([-1000, -1000])}


@pytest.fixture
def ax():
    """Return axes that no window shows."""
    return Figure().subplots()


class Search:
    """What the display needs of a fitted search."""

    cv_results_ = CV_RESULTS
    best_index_ = 1


def points(container):
    """Return the x and y of an error-bar container's line."""
    return container.lines[0].get_xydata().tolist()


def test_one_line_per_criterion_from_small_to_large(ax):
    """Each criterion has a line through its candidates, ordered by size."""
    display = CompressionDisplay.from_search(Search(), ax=ax)
    assert [line.get_label() for line in display.lines_] == ["magnitude", "random"]
    assert points(display.lines_[0]) == [[100, 0.95], [500, 0.96]]
    assert points(display.lines_[1]) == [[100, 0.80], [500, 0.94]]
    assert ax.get_xscale() == "log"
    assert display.ax_ is ax
    assert display.figure_ is ax.figure


def test_error_bars_span_one_standard_deviation(ax):
    """The bar at (100, 0.80) with spread 0.04 reaches from 0.76 to 0.84."""
    display = CompressionDisplay.from_search(Search(), ax=ax)
    (bars,) = display.lines_[1].lines[2]
    assert np.allclose(bars.get_segments()[0], [[100, 0.76], [100, 0.84]])


def test_chosen_candidate_and_baseline_are_marked(ax):
    """The search's choice gets a ring and the baseline a star, both with a label."""
    CompressionDisplay.from_search(Search(), baseline=BASELINE, ax=ax)
    marked = {line.get_label(): line.get_xydata().tolist() for line in ax.get_lines()}
    assert marked["chosen"] == [[100, 0.95]]
    assert marked["dense baseline"] == [[1000, 0.97]]
    labels = {text.get_text() for text in ax.get_legend().get_texts()}
    assert labels == {"magnitude", "random", "chosen", "dense baseline"}


def test_nothing_chosen_and_no_baseline(ax):
    """Results of a search alone have neither ring nor star."""
    CompressionDisplay.from_search(CV_RESULTS, ax=ax)
    labels = {text.get_text() for text in ax.get_legend().get_texts()}
    assert labels == {"magnitude", "random"}


@pytest.mark.parametrize("group", [None, "absent"])
def test_without_a_group_there_is_one_line(ax, group):
    """Candidates that differ in no grouping parameter are one line."""
    display = CompressionDisplay.from_search(CV_RESULTS, group=group, ax=ax)
    assert len(display.lines_) == 1
    assert len(points(display.lines_[0])) == 4


def test_another_group_and_style(ax):
    """Any parameter can be the group; keyword arguments override the style."""
    report = compression_report(CV_RESULTS)
    display = CompressionDisplay(report, group="sparsity").plot(ax=ax, color="black")
    assert [line.get_label() for line in display.lines_] == ["0.5", "0.9"]
    assert {line.lines[0].get_color() for line in display.lines_} == {"black"}


def test_plot_makes_its_own_figure():
    """Without axes a new figure is made."""
    display = CompressionDisplay.from_search(CV_RESULTS)
    assert plt.fignum_exists(display.figure_.number)
    plt.close(display.figure_)


def test_missing_matplotlib_names_the_extra(monkeypatch):
    """Without matplotlib the error says what to install."""
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"pip install 'skcompress\[plot\]'"):
        CompressionDisplay(compression_report(CV_RESULTS)).plot()
