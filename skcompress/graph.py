"""One description of a module's operations: a traced list that others interpret.

``torch.export`` records the operations of a forward pass in evaluation mode, whatever Python
code ran them. Each reader walks the same list with values of its own: real activations for
criteria, unit labels for the removal of units.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from typing import Any
from weakref import WeakKeyDictionary

import torch
from skorch import NeuralNet
from skorch.dataset import unpack_data
from skorch.utils import to_device
from torch import nn
from torch.export import Dim, ExportedProgram, ShapesCollection
from torch.export.graph_signature import InputKind
from torch.fx import Node
from torch.fx.experimental.symbolic_shapes import is_concrete_int
from torch.utils._pytree import tree_leaves

from .stubs import recurrent_stubs, restore_recurrent

Apply = Callable[[Node, list[Any], dict[str, Any]], Any]


class Graph:
    """The operations that a module performs, in order.

    Parameters
    ----------
    program : torch.export.ExportedProgram
        The recorded operations.
    module : torch.nn.Module
        The module that was traced; its tensors are read when the graph is walked.
    """

    def __init__(self, program: ExportedProgram, module: nn.Module) -> None:
        self.program = program
        self.module = module
        self.names = _first_names(module)

    def walk(self, args: tuple, kwargs: dict[str, Any], bind: Callable, apply: Apply) -> Any:
        """Interpret the operations with values of the caller's kind.

        Parameters
        ----------
        args, kwargs
            Inputs as the module's ``forward`` takes them.
        bind : callable
            ``bind(name, tensor)`` gives the value of the parameter or buffer `name`; a shared
            one has its first name. For inputs and constants `name` is None.
        apply : callable
            ``apply(node, args, kwargs)`` gives the value of an operation.

        Returns
        -------
        outputs : tuple
            The values that the module returns.
        """
        values: dict[Node, Any] = {}
        given = iter(tree_leaves((args, kwargs)))
        specs = {spec.arg.name: spec for spec in self.program.graph_signature.input_specs}
        for node in self.program.graph.nodes:
            if node.op == "placeholder":
                spec = specs[node.name]
                is_input = spec.kind == InputKind.USER_INPUT
                tensor = next(given) if is_input else self._tensor(spec.target)
                values[node] = bind(self.names.get(spec.target), tensor)
                continue
            node_args = torch.fx.node.map_arg(node.args, lambda n: values[n])
            node_kwargs = torch.fx.node.map_arg(node.kwargs, lambda n: values[n])
            if node.op == "output":
                return node_args[0]
            values[node] = apply(node, list(node_args), dict(node_kwargs))
        raise AssertionError("a graph ends in an output")

    def _tensor(self, name: str) -> torch.Tensor:
        if name not in self.names:
            return self.program.constants[name]
        owner, _, attribute = name.rpartition(".")
        return getattr(self.module.get_submodule(owner), attribute)

    @property
    def parameter_nodes(self) -> dict[str, str]:
        """Qualified parameter or buffer name, the first of a shared one, by its placeholder."""
        specs = self.program.graph_signature.input_specs
        return {s.arg.name: self.names[s.target] for s in specs if s.target in self.names}


def _first_names(module: nn.Module) -> dict[str | None, str]:
    """Map every name of a parameter or buffer to the first name of the same tensor."""
    named = [
        *module.named_parameters(remove_duplicate=False),
        *module.named_buffers(remove_duplicate=False),
    ]
    first: dict[int, str] = {}
    return {name: first.setdefault(id(tensor), name) for name, tensor in named}


def trace(
    module: nn.Module, args: tuple, kwargs: dict[str, Any], *, any_batch: bool = True
) -> Graph:
    """Record the operations of a module.

    Parameters
    ----------
    module : torch.nn.Module
        Any module that ``torch.export`` takes: no control flow on values of tensors.
    args, kwargs
        A batch of at least two rows, as ``forward`` takes it.
    any_batch : bool
        Whether the graph is to be walked with other numbers of rows, which takes longer to record.

    Raises
    ------
    ValueError
        If the module cannot be traced; the message carries torch's reason.

    Examples
    --------
    >>> import torch
    >>> from skcompress.graph import trace
    >>> graph = trace(torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.ReLU()),
    ...               (torch.zeros(2, 3),), {})
    >>> [node.name for node in graph.program.graph.nodes if node.op == "call_function"]
    ['linear', 'relu']
    """
    return Graph(_export(module, args, kwargs, any_batch), module)


# A gradual schedule asks many times for the operations of the same module.
_PROGRAMS: WeakKeyDictionary[nn.Module, dict[Any, ExportedProgram]] = WeakKeyDictionary()


def trace_once(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> Graph:
    """Trace like :func:`trace`, but remember the operations as long as the module lives."""
    inputs = tree_leaves((args, kwargs))
    layers = repr(module), tuple(p.shape for p in module.parameters())
    key = layers, tuple((x.shape[1:], x.dtype) for x in inputs)
    n_rows = tuple(len(x) for x in inputs)
    programs = _PROGRAMS.setdefault(module, {})
    program = programs.get((key, None)) or programs.get((key, n_rows))
    if program is None:
        program = _export(module, args, kwargs, any_batch=True)
        programs[key, None if takes_any_batch(program) else n_rows] = program
    return Graph(program, module)


def takes_any_batch(program: ExportedProgram) -> bool:
    """Tell whether the number of rows is free; ``len(x)`` in a forward pass fixes it."""
    names = program.graph_signature.user_inputs
    inputs = [node.meta["val"] for node in program.graph.nodes if node.name in names]
    return not any(is_concrete_int(x.shape[0]) for x in inputs)


def _export(
    module: nn.Module, args: tuple, kwargs: dict[str, Any], any_batch: bool
) -> ExportedProgram:
    training = {name: m.training for name, m in module.named_modules()}
    fast_path = torch.backends.mha.get_fastpath_enabled()
    shapes = ShapesCollection()
    for tensor in tree_leaves((args, kwargs)):
        shapes[tensor] = {0: Dim.AUTO}
    try:
        module.eval()
        # The fused inference kernels of attention hide the operations behind one opaque call.
        torch.backends.mha.set_fastpath_enabled(False)
        with warnings.catch_warnings(), torch.no_grad(), recurrent_stubs(), _silent():
            # torch.export warns about its own use of recurrent layers' flat weights.
            warnings.simplefilter("ignore")
            dynamic = shapes.dynamic_shapes(module, args, kwargs) if any_batch else None
            program = torch.export.export(
                module, args, kwargs, dynamic_shapes=dynamic, strict=False
            )
    except Exception as error:
        raise ValueError(
            f"{type(module).__name__} cannot be traced by torch.export, which this needs to know"
            f" how its layers are connected: {error}"
        ) from error
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
        for name, submodule in module.named_modules():
            submodule.training = training[name]
    restore_recurrent(program.graph)
    # What nobody reads, such as the averaged weights of attention, asks for nothing.
    program.graph.eliminate_dead_code()
    return program


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keep torch from printing the graph of a failed trace: the error says what is wrong."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(disabled)


def module_inputs(net: NeuralNet, batch: Any) -> tuple[tuple, dict[str, Any]]:
    """Split a batch of a net's iterator into the arguments of its module's ``forward``."""
    Xi, _ = unpack_data(batch)
    Xi = to_device(Xi, net.device)
    return ((), dict(Xi)) if isinstance(Xi, dict) else ((Xi,), {})


def run(node: Node, args: list[Any], kwargs: dict[str, Any]) -> Any:
    """Perform an operation on tensors."""
    return node.target(*args, **kwargs)  # type: ignore[operator]
