"""ShapeSetter: widths of a module that are known only once `fit` sees the data."""

from typing import Any

import numpy as np
from sklearn.base import is_classifier
from skorch import NeuralNet, NeuralNetBinaryClassifier
from skorch.callbacks import Callback, InputShapeSetter
from skorch.utils import to_numpy


class ShapeSetter(Callback):
    """Set a module's input and output width from the data given to ``fit``.

    Parameters
    ----------
    input_param : str or None, default="n_inputs"
        Parameter of the module that takes ``X.shape[-1]``; None leaves the input alone.
    output_param : str or None, default="n_outputs"
        Parameter of the module that takes the number of classes, or for a regressor the number
        of targets; None leaves the output alone. A binary classifier's single output is one.

    Raises
    ------
    ValueError
        If `X` has no ``shape`` of at least two dimensions, as dicts and Datasets have not.

    Examples
    --------
    >>> import numpy as np
    >>> from skorch import NeuralNetClassifier
    >>> from torch import nn
    >>> from skcompress.training import ShapeSetter
    >>> class Linear(nn.Module):
    ...     def __init__(self, n_inputs=1, n_outputs=2):
    ...         super().__init__()
    ...         self.layer = nn.Linear(n_inputs, n_outputs)
    ...     def forward(self, X):
    ...         return self.layer(X)
    >>> net = NeuralNetClassifier(
    ...     Linear, criterion=nn.CrossEntropyLoss, callbacks=[ShapeSetter()],
    ...     train_split=None, max_epochs=1, verbose=0)
    >>> X = np.zeros((6, 4), dtype=np.float32)
    >>> net.fit(X, np.array([0, 1, 2, 0, 1, 2])).module_.layer
    Linear(in_features=4, out_features=3, bias=True)
    """

    def __init__(
        self, input_param: str | None = "n_inputs", output_param: str | None = "n_outputs"
    ) -> None:
        self.input_param = input_param
        self.output_param = output_param

    def on_train_begin(self, net: NeuralNet, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Set the widths that differ, which builds the module anew if it is there already."""
        widths = {}
        if self.input_param is not None:
            widths[f"module__{self.input_param}"] = self._input_width(X)
        if self.output_param is not None:
            widths[f"module__{self.output_param}"] = self._output_width(net, y)
        params = net.get_params()
        changed = {name: width for name, width in widths.items() if params.get(name) != width}
        if changed:
            net.set_params(**changed)

    def _input_width(self, X: Any) -> int:
        shape: tuple[int, ...] = getattr(X, "shape", ())
        if isinstance(X, dict) or len(shape) < 2:
            raise ValueError(
                "ShapeSetter reads the input width from X.shape[-1], which needs an array of at"
                f" least two dimensions; got {type(X).__name__}. Set the width in the net and use"
                " ShapeSetter(input_param=None)."
            )
        return int(shape[-1])

    def _output_width(self, net: NeuralNet, y: Any) -> int:
        y = to_numpy(y)
        if isinstance(net, NeuralNetBinaryClassifier):
            return 1
        if is_classifier(net):
            # Classes that the user names have outputs, also where rows of them are missing.
            given = net.get_params(deep=False).get("classes")
            return int(np.max(y)) + 1 if given is None or not len(given) else len(given)
        return 1 if y.ndim == 1 else int(y.shape[1])


def listed_callbacks(net: NeuralNet) -> list[Any]:
    """Return the user's callbacks: instances, classes or (name, callback) pairs."""
    return list(net.callbacks) if isinstance(net.callbacks, (list, tuple)) else []


def without_shape_setters(net: NeuralNet) -> list[Any]:
    """Return the user's callbacks but those that set shapes, ours and skorch's."""
    kinds = (ShapeSetter, InputShapeSetter)
    left = []
    for item in listed_callbacks(net):
        callback = item[1] if isinstance(item, tuple) else item
        kind = callback if isinstance(callback, type) else type(callback)
        if not issubclass(kind, kinds):
            left.append(item)
    return left


def set_shapes(net: NeuralNet, X: Any, y: Any) -> None:
    """Let a net's shape setters act before it is initialized, so that it is built only once."""
    # skorch makes instances of classes, and applies parameters such as callbacks__ShapeSetter__*.
    net._initialize_callbacks()
    for _, callback in net.callbacks_:
        if isinstance(callback, (ShapeSetter, InputShapeSetter)):
            callback.on_train_begin(net, X, y)
