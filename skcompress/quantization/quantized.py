"""QuantizedNet: a skorch net that rounds its weights to a few bits inside ``fit``."""

from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from skorch import NeuralNet
from torch import Tensor

from .._sklearn import Interval, Options, StrOptions
from ..activations import first_rows, input_ranges
from ..base import BaseCompressedNet
from ..layers import weight_matrices
from ..moments import second_moments
from ..probe import check_last_batch
from ..refusals import Refusal
from ..training.isolation import seed_generators, stage_seed
from ..training.loop import Data, evenly_spaced, retrain
from ..training.nets import dense_net
from ..training.teaching import check_taught, taught_by
from .allocation import allocate
from .batch_norm import fold, recalibrate
from .checks import check_products, check_size
from .formats import FORMATS, HUGE, TINY
from .integers import IntegerModule, widened
from .layerwise import round_floats, round_layers
from .refusals import REFUSALS
from .rounding import quantize
from .straight_through import Quantized, StraightThrough, set_weights
from .tensors import QuantizedTensor

# Rows whose activations rounding by reconstruction looks at, and bits="auto" measures losses on.
CALIBRATION_ROWS = 1024


class QuantizedNet(BaseCompressedNet):
    """Quantize a skorch net inside ``fit``.

    ``fit`` trains the wrapped net as it is, then rounds the weight matrices of a copy to integers
    of a few bits, all on the rows that it was given. Cross-validation therefore scores the
    quantized net, and the number of bits is a hyperparameter like any other.

    Parameters
    ----------
    estimator : skorch net, compressed net, or FrozenEstimator of either
        What to quantize. Weights that it pruned stay exactly zero.
    bits : int or "auto", default=8
        Bits of a weight, 1 to 8 or 16, as the format allows; or for each layer as few as
        `max_bytes` or `max_loss` asks for.
    format : {"symmetric", "affine", "codebook", "power-of-two"}, default="symmetric"
        Integers of either sign times a scale; integers with a zero point; the centres of k-means
        clusters; zero and powers of two.
    granularity : {"tensor", "channel"} or int >= 2, default=None
        What shares a scale: a weight matrix, the weights of one output, or runs of so many inputs
        of an output. None means "tensor" for a codebook and "channel" for the rest.
    scale : float > 0, in the range of float32, default=None
        Fixed step of the symmetric format: ``scale=2**-b`` is the textbook map
        ``q = round(w * 2**b)``, saturated. None chooses the steps of least squared error.
    rounding : {"nearest", "reconstruct"}, default="nearest"
        Round each weight to the nearest level, or input by input so that later weights make up
        for the errors of earlier ones on the activations of training rows; for 4 bits down to 2.
    float_bits : int from 10 to 32, default=32
        Bits of what stays in floating point: biases, norms, embeddings, buffers. A sign, eight
        bits of exponent and the rest of fraction, so that 16 is bfloat16; 32 leaves them.
    activations : {"dynamic", "static"}, default=None
        Also round what enters each layer to 8 bits, so that products are sums of integers: by a
        scale for each row, or a power of two for the range of the training rows. None does not.
    batch_norm : {"recalibrate", "fold", "keep"}, default="recalibrate"
        Measure the statistics of batch normalization anew once the weights are rounded; or fold
        it into the layer before it first; or leave it as it is.
    retrain_epochs : int >= 0, default=0
        Epochs of training with rounded weights, by the straight-through estimator.
    retrain_lr : float > 0, default=None
        First learning rate of that training, which falls as a cosine; None takes the optimizer's.
    distill : float in [0, 1], default=0.0
        The dense net stays on as teacher in that training: the loss is ``(1 - distill)`` of the
        net's own and `distill` of the divergence from the dense net [4]_, or for a regressor of
        the squared difference.
    distill_temperature : float > 0, default=None
        Temperature of both nets in that divergence. None means 2.
    max_bytes : int >= 1, default=None
        Only with ``bits="auto"``: bytes that all parameters and buffers may take,
        those that stay in floating point at their full width.
    max_loss : float >= 0, default=None
        Only with ``bits="auto"``: how much the mean loss on the training rows may rise.
    random_state : int, RandomState instance or None, default=None
        Seeds every stage. An integer gives the same bits at an equal number of threads.
    n_threads : int >= 1, default=None
        Threads of torch during ``fit``; None leaves them as they are.
    memory : str, path, joblib.Memory or CacheFolder, default=None
        Folder that keeps this fit and those within it, given an integer `random_state`.
    verbose : int or bool, default=0
        Print the progress of training if positive; replaces the wrapped net's own setting.

    Attributes
    ----------
    estimator_ : estimator
        The fitted inner estimator.
    net_ : skorch net
        The quantized net, for prediction. Its weights are the values of the codes, and with
        `activations` its module is an ``IntegerModule``.
    quantized_ : dict of QuantizedTensor
        The integers of each weight matrix, by parameter name.
    bits_ : dict of int
        Bits of each weight matrix, by parameter name.
    masks_ : dict of bool Tensor
        What the inner estimator pruned; empty if it did not.
    classes_ : ndarray of shape (n_classes,)
        Only for classifiers: the labels.
    n_features_in_, feature_names_in_ : int, ndarray of shape (n_features,)

    Raises
    ------
    ValueError
        If the data, the module or the combination of parameters has no meaning.

    Notes
    -----
    Quantized are the weight matrices of linear, convolutional, recurrent and attention layers,
    shared ones once.

    References
    ----------
    .. [1] B. Jacob et al., "Quantization and training of neural networks for efficient
       integer-arithmetic-only inference", CVPR 2018.
    .. [2] S. Han et al., "Deep compression", ICLR 2016.
    .. [3] E. Frantar et al., "GPTQ", ICLR 2023.
    .. [4] G. Hinton et al., "Distilling the knowledge in a neural network", 2015.

    Examples
    --------
    >>> import torch
    >>> from skorch import NeuralNetClassifier
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.model_selection import cross_val_score
    >>> from torch import nn
    >>> from skcompress import QuantizedNet
    >>> class MLP(nn.Sequential):
    ...     def __init__(self, hidden=64):
    ...         super().__init__(nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 10))
    >>> net = NeuralNetClassifier(
    ...     MLP, criterion=nn.CrossEntropyLoss, optimizer=torch.optim.Adam, lr=0.01,
    ...     max_epochs=10, train_split=None)
    >>> X, y = load_digits(return_X_y=True)
    >>> quantized = QuantizedNet(net, bits=4, random_state=0)
    >>> scores = cross_val_score(quantized, X / 16, y, cv=3)
    >>> bool(scores.mean() > 0.85)
    True
    """

    quantizes = True
    parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "bits": [Options(Integral, {1, 2, 3, 4, 5, 6, 7, 8, 16}), StrOptions({"auto"})],
        "format": [StrOptions(set(FORMATS))],
        "granularity": [
            StrOptions({"tensor", "channel"}),
            Interval(Integral, 2, None, closed="left"),
            None,
        ],
        "scale": [Interval(Real, TINY, HUGE, closed="both"), None],
        "rounding": [StrOptions({"nearest", "reconstruct"})],
        "float_bits": [Interval(Integral, 10, 32, closed="both")],
        "activations": [StrOptions({"dynamic", "static"}), None],
        "batch_norm": [StrOptions({"recalibrate", "fold", "keep"})],
        "retrain_epochs": [Interval(Integral, 0, None, closed="left")],
        "retrain_lr": [Interval(Real, 0, None, closed="neither"), None],
        "distill": [Interval(Real, 0, 1, closed="both")],
        "distill_temperature": [Interval(Real, 0, None, closed="neither"), None],
        "max_bytes": [Interval(Integral, 1, None, closed="left"), None],
        "max_loss": [Interval(Real, 0, None, closed="left"), None],
    }
    refusals: ClassVar[tuple[Refusal, ...]] = REFUSALS

    def __init__(
        self,
        estimator: Any,
        *,
        bits: int | str = 8,
        format: str = "symmetric",
        granularity: str | int | None = None,
        scale: float | None = None,
        rounding: str = "nearest",
        float_bits: int = 32,
        activations: str | None = None,
        batch_norm: str = "recalibrate",
        retrain_epochs: int = 0,
        retrain_lr: float | None = None,
        distill: float = 0.0,
        distill_temperature: float | None = None,
        max_bytes: int | None = None,
        max_loss: float | None = None,
        random_state: int | np.random.RandomState | None = None,
        n_threads: int | None = None,
        memory: Any = None,
        verbose: int | bool = 0,
    ) -> None:
        self.estimator = estimator
        self.bits = bits
        self.format = format
        self.granularity = granularity
        self.scale = scale
        self.rounding = rounding
        self.float_bits = float_bits
        self.activations = activations
        self.batch_norm = batch_norm
        self.retrain_epochs = retrain_epochs
        self.retrain_lr = retrain_lr
        self.distill = distill
        self.distill_temperature = distill_temperature
        self.max_bytes = max_bytes
        self.max_loss = max_loss
        self.random_state = random_state
        self.n_threads = n_threads
        self.memory = memory
        self.verbose = verbose

    def _check_module(self, net: NeuralNet, data: Data) -> None:
        weight_matrices(net.module_)
        if self.retrain_epochs:
            check_last_batch(net, data.X, len(data.y))
        if self.distill:
            check_taught(net, data)
        if self.rounding == "reconstruct":
            second_moments(net, first_rows(data), remedy="Set rounding='nearest'.")
        if self.activations is not None:
            check_products(net, data)
        if self.batch_norm == "fold":
            fold(net, data)  # the probe is there to be tried
        if self.max_bytes is not None:
            check_size(self, net)

    def _compress(self, net: NeuralNet, data: Data, seed: int) -> None:
        self.masks_ = dict(getattr(self.estimator_, "masks_", {}))
        if self.batch_norm == "fold":
            fold(net, data)
        self.bits_ = self._widths(net, data)
        weights = weight_matrices(net.module_)
        self.quantized_ = round_layers(
            net,
            evenly_spaced(data, CALIBRATION_ROWS),
            lambda name, moment: self._quantize(name, weights[name], self.bits_[name], moment),
            self.rounding == "reconstruct",
        )
        if self.retrain_epochs:
            self.quantized_ = self._retrain(net, data, stage_seed(seed, "retrain"))
        set_weights(net, self.quantized_)
        if self.batch_norm == "recalibrate":
            recalibrate(net, data)
        if self.float_bits < 32:
            round_floats(net, self.quantized_, self.float_bits)
        if self.activations is not None:
            ranges = None
            if self.activations == "static":
                ranges = {n: widened(*ends) for n, ends in input_ranges(net, data).items()}
            net.module_ = IntegerModule(net.module_, self.quantized_, ranges)

    def _widths(self, net: NeuralNet, data: Data) -> dict[str, int]:
        """Return the bits of each layer."""
        weights = weight_matrices(net.module_)
        if self.bits != "auto":
            return dict.fromkeys(weights, int(self.bits))
        widths = tuple(bits for bits in FORMATS[self.format].widths if bits <= 8)
        return allocate(
            net,
            evenly_spaced(data, CALIBRATION_ROWS),
            lambda name, bits: self._quantize(name, weights[name], bits),
            widths,
            self.max_bytes,
            self.max_loss,
        )

    def _quantize(
        self, name: str, weight: Tensor, bits: int, moment: Tensor | None = None
    ) -> QuantizedTensor:
        return quantize(
            weight,
            bits=bits,
            format=self.format,
            granularity=self.granularity,
            scale=self.scale,
            mask=self.masks_.get(name),
            moment=moment,
        )

    def _retrain(self, net: NeuralNet, data: Data, seed: int) -> Quantized:
        """Train with rounded weights."""
        seed_generators(seed)
        hook = StraightThrough(net, self.quantized_)
        teacher = dense_net(self.estimator_)
        with hook.shared_gradients():
            retrain(
                net,
                taught_by(teacher, data, self.distill, self.distill_temperature),
                epochs=self.retrain_epochs,
                lr=self.retrain_lr,
                after_step=hook,
                verbose=int(self.verbose),
            )
        return hook.result()
