"""CompressionDisplay: the score of a search's candidates against their size, as a picture."""

from collections.abc import Mapping
from typing import Any, Self

import pandas as pd

from .report import compression_report

# Okabe and Ito's palette: distinct for colour-blind readers, in print and on screen.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = ("o", "s", "^", "D", "v", "P")


class CompressionDisplay:
    """Score against size in bytes, one line per criterion.

    Make one with :meth:`from_search`, or from the table of
    :func:`~skcompress.selection.compression_report`.

    Parameters
    ----------
    report : DataFrame
        A row for each candidate, as :func:`~skcompress.selection.compression_report` gives it.
    score : str, default="accuracy"
        Column of the score; its spread is the column `score` + ``"_std"``.
    size : str, default="size"
        Column of the size, in bytes.
    group : str or None, default="criterion"
        Column of the parameter that gets a line for each of its values. None, or a name that
        `report` does not have, draws one line.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Where the curves are, after :meth:`plot`.
    figure_ : matplotlib Figure
        The figure of `ax_`.
    lines_ : list of matplotlib ErrorbarContainer
        One for each value of `group`.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from skcompress import CompressionDisplay
    >>> cv_results = {
    ...     "params": [{"sparsity": 0.5}, {"sparsity": 0.9}],
    ...     "mean_test_accuracy": [0.92, 0.91], "std_test_accuracy": [0.01, 0.02],
    ...     "rank_test_accuracy": [1, 2], "mean_test_size": [-4000, -900]}
    >>> display = CompressionDisplay.from_search(cv_results, ax=Figure().subplots())
    >>> display.ax_.get_xlabel()
    'Size (bytes, log scale)'
    """

    def __init__(
        self,
        report: pd.DataFrame,
        *,
        score: str = "accuracy",
        size: str = "size",
        group: str | None = "criterion",
    ) -> None:
        self.report = report
        self.score = score
        self.size = size
        self.group = group

    @classmethod
    def from_search(
        cls,
        search: Any,
        *,
        baseline: Mapping[str, Any] | None = None,
        score: str = "accuracy",
        size: str = "size",
        group: str | None = "criterion",
        ax: Any = None,
        **kwargs: Any,
    ) -> Self:
        """Plot the candidates of a fitted search.

        Parameters
        ----------
        search : object or dict
            A fitted search such as GridSearchCV, or its ``cv_results_``.
        baseline : dict, default=None
            What ``cross_validate`` returned for the dense net; drawn as a level to compare with.
        score, size, group : str
            As in the class.
        ax : matplotlib Axes, default=None
            Axes to plot on; None makes a new figure.
        **kwargs
            Passed on to :meth:`matplotlib.axes.Axes.errorbar`.

        Returns
        -------
        display : CompressionDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If the search did not score by `score` and `size`.
        """
        report = compression_report(search, baseline=baseline, score=score, size=size)
        return cls(report, score=score, size=size, group=group).plot(ax=ax, **kwargs)

    def plot(self, *, ax: Any = None, **kwargs: Any) -> Self:
        """Draw the curves, the baseline and the chosen candidate.

        Error bars span one standard deviation over the folds to either side.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to plot on; None makes a new figure.
        **kwargs
            Passed on to :meth:`matplotlib.axes.Axes.errorbar`.

        Returns
        -------
        display : CompressionDisplay
            This object.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        self.ax_ = _new_axes() if ax is None else ax
        self.figure_ = self.ax_.figure
        is_baseline = self.report.index == "baseline"
        candidates = self.report[~is_baseline]
        self.lines_ = [
            self._plot_line(rows, label, position, kwargs)
            for position, (label, rows) in enumerate(self._groups(candidates))
        ]
        self._plot_baseline(self.report[is_baseline])
        self._plot_chosen(candidates[candidates["chosen"]])
        self._label_axes()
        return self

    def _groups(self, candidates: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
        if self.group not in candidates:
            return [("candidates", candidates)]
        groups = candidates.groupby(self.group, sort=False, dropna=False)
        return [(str(getattr(value, "__name__", value)), rows) for value, rows in groups]

    def _plot_line(
        self, rows: pd.DataFrame, label: str, position: int, kwargs: dict[str, Any]
    ) -> Any:
        rows = rows.sort_values(self.size)
        style = {
            "label": label,
            "color": _COLORS[position % len(_COLORS)],
            "marker": _MARKERS[position % len(_MARKERS)],
            "markersize": 5,
            "linewidth": 1.5,
            "elinewidth": 1,
            "capsize": 3,
        }
        spread = rows[f"{self.score}_std"]
        return self.ax_.errorbar(rows[self.size], rows[self.score], yerr=spread, **(style | kwargs))

    def _plot_chosen(self, chosen: pd.DataFrame) -> None:
        ring = {"markersize": 14, "markerfacecolor": "none", "markeredgewidth": 1.5}
        if len(chosen):
            self.ax_.plot(
                chosen[self.size], chosen[self.score], "o", color="black", label="chosen", **ring
            )

    def _plot_baseline(self, baseline: pd.DataFrame) -> None:
        if len(baseline):
            x, level = baseline[[self.size, self.score]].iloc[0]
            self.ax_.axhline(level, color="0.4", linestyle=":", linewidth=1)
            self.ax_.plot([x], [level], "*", color="0.3", markersize=12, label="dense baseline")

    def _label_axes(self) -> None:
        from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

        self.ax_.set(
            xscale="log",
            xlabel="Size (bytes, log scale)",
            ylabel=f"{self.score.capitalize()} (mean ± standard deviation over folds)",
        )
        self.ax_.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        self.ax_.xaxis.set_major_formatter(EngFormatter(unit="B"))
        self.ax_.xaxis.set_minor_formatter(NullFormatter())
        self.ax_.grid(alpha=0.3)
        self.ax_.legend()


def _new_axes() -> Any:
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            "CompressionDisplay needs matplotlib, which is not installed. Install it with"
            " `pip install 'skcompress[plot]'`."
        ) from error
    return plt.subplots(layout="constrained")[1]
