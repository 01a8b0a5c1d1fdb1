"""One description of a module's operations: a traced list that others interpret.

``torch.export`` records the operations of a forward pass in evaluation mode, whatever Python
code ran them. Each reader walks the same list with values of its own: real activations for
criteria, unit labels for the removal of units.
"""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from skorch import NeuralNet
from skorch.dataset import unpack_data
from skorch.utils import to_device
from torch import nn
from torch.export.graph_signature import InputKind
from torch.fx import Node

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

    def __init__(self, program: torch.export.ExportedProgram, module: nn.Module) -> None:
        self.program = program
        self.module = module

    def walk(self, args: tuple, kwargs: dict[str, Any], bind: Callable, apply: Apply) -> Any:
        """Interpret the operations with values of the caller's kind.

        Parameters
        ----------
        args, kwargs
            Inputs as the module's ``forward`` takes them.
        bind : callable
            ``bind(name, tensor)`` gives the value of an input, for which `name` is None, or of
            the parameter, buffer or constant `name`.
        apply : callable
            ``apply(node, args, kwargs)`` gives the value of an operation.

        Returns
        -------
        outputs : tuple
            The values that the module returns.
        """
        values: dict[Node, Any] = {}
        given = iter(torch.utils._pytree.tree_leaves((args, kwargs)))
        specs = {spec.arg.name: spec for spec in self.program.graph_signature.input_specs}
        for node in self.program.graph.nodes:
            if node.op == "placeholder":
                name = specs[node.name].target
                is_input = specs[node.name].kind == InputKind.USER_INPUT
                tensor = next(given) if is_input else self._tensor(name)
                values[node] = bind(None if is_input else name, tensor)
                continue
            node_args = torch.fx.node.map_arg(node.args, lambda n: values[n])
            node_kwargs = torch.fx.node.map_arg(node.kwargs, lambda n: values[n])
            if node.op == "output":
                return node_args[0]
            values[node] = apply(node, list(node_args), dict(node_kwargs))
        raise AssertionError("a graph ends in an output")

    def _tensor(self, name: str) -> torch.Tensor:
        if name in self.program.constants:
            return self.program.constants[name]
        owner, _, attribute = name.rpartition(".")
        return getattr(self.module.get_submodule(owner), attribute)

    @property
    def parameter_nodes(self) -> dict[str, str]:
        """Qualified parameter or buffer name by the name of its placeholder."""
        specs = self.program.graph_signature.input_specs
        return {spec.arg.name: spec.target for spec in specs if spec.target is not None}


def trace(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> Graph:
    """Record the operations of a module for batches of any size.

    Parameters
    ----------
    module : torch.nn.Module
        Any module that ``torch.export`` takes: no control flow on values of tensors.
    args, kwargs
        A batch of at least two rows, as ``forward`` takes it.

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
    training = {name: m.training for name, m in module.named_modules()}
    fast_path = torch.backends.mha.get_fastpath_enabled()
    try:
        module.eval()
        # The fused inference kernels of attention hide the operations behind one opaque call.
        torch.backends.mha.set_fastpath_enabled(False)
        with warnings.catch_warnings(), torch.no_grad():
            # torch.export warns about its own use of recurrent layers' flat weights.
            warnings.simplefilter("ignore")
            program = torch.export.export(
                module, args, kwargs, dynamic_shapes=_any_batch(args, kwargs)
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
    return Graph(program, module)


def _any_batch(args: tuple, kwargs: dict[str, Any]) -> Any:
    """Mark the first dimension of every input as free."""
    free = {0: torch.export.Dim.AUTO}
    shapes = torch.utils._pytree.tree_map(lambda value: free, (args, kwargs))
    return shapes if kwargs else shapes[0]


def module_inputs(net: NeuralNet, batch: Any) -> tuple[tuple, dict[str, Any]]:
    """Split a batch of a net's iterator into the arguments of its module's ``forward``."""
    Xi, _ = unpack_data(batch)
    Xi = to_device(Xi, net.device)
    return ((), dict(Xi)) if isinstance(Xi, dict) else ((Xi,), {})


def run(node: Node, args: list[Any], kwargs: dict[str, Any]) -> Any:
    """Perform an operation on tensors."""
    return node.target(*args, **kwargs)  # type: ignore[operator]
