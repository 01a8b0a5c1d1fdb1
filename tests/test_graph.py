import gc
import logging
import weakref

import pytest
import torch
from torch import nn

from skcompress import graph as graphs
from skcompress.graph import module_inputs, run, trace, trace_once
from tests.pruning_modules import MLP, MODULES, Attention, Tied, build, classifier, rows


class Forward(nn.Module):
    """A module that runs a function on its input."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, X):
        return self.function(X)


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(3, 4), nn.Linear(5, 4)

    def forward(self, a, b):
        return torch.relu(self.left(a)) - self.right(b)


def replay(graph, *args, **kwargs):
    """Walk a graph with the tensors themselves."""
    with torch.no_grad():
        (output,) = graph.walk(args, kwargs, lambda name, tensor: tensor, run)
    return output


@pytest.mark.parametrize("name", MODULES)
def test_walking_a_graph_runs_the_module(name):
    """A graph of two rows, walked with more rows, gives what the module gives."""
    module = build(name)
    graph = trace(module, (rows(name, 2),), {})
    more = rows(name, 5)
    torch.testing.assert_close(replay(graph, more), module(more), rtol=1e-12, atol=1e-12)


def test_a_graph_reads_the_module_as_it_is():
    """Weights that change after tracing count, since criteria score while a net trains."""
    module, X = build("mlp"), rows("mlp")
    graph = trace(module, (X,), {})
    before = replay(graph, X)
    with torch.no_grad():
        module.first.weight.mul_(2)
    assert not torch.allclose(replay(graph, X), before)
    torch.testing.assert_close(replay(graph, X), module(X))


def test_shared_parameters_have_their_first_name():
    """A tied weight is bound under one name, the one of ``named_parameters``."""
    graph, names = trace(Tied(), (torch.rand(2, 6),), {}), []
    graph.walk((torch.rand(2, 6),), {}, lambda name, t: names.append(name) or t, run)
    assert names.count("first.weight") == 2
    assert "second.weight" not in names
    assert names.count(None) == 1
    assert list(graph.parameter_nodes.values()).count("first.weight") == 2


def test_constants_have_no_name():
    """A tensor made in ``forward`` belongs to no module."""
    module = Forward(lambda X: X * torch.tensor([1.0, 2.0]))
    graph, names = trace(module, (torch.rand(2, 2),), {}), []
    graph.walk((torch.rand(2, 2),), {}, lambda name, t: names.append(name) or t, run)
    assert names == [None, None]


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_keyword_inputs_in_any_order(order):
    """Dict inputs reach the arguments they name."""
    inputs = {"a": torch.rand(2, 3), "b": torch.rand(2, 5)}
    inputs = {name: inputs[name] for name in order}
    module = TwoInputs()
    graph = trace(module, (), inputs)
    torch.testing.assert_close(replay(graph, **inputs), module(**inputs))


def test_dead_operations_are_left_out():
    """The averaged weights of attention, which nobody reads, are not in the graph."""
    graph = trace(Attention(need_weights=True), (torch.rand(2, 5, 4),), {}).program.graph
    means = [node for node in graph.nodes if str(node.target).startswith("aten.mean")]
    assert len(means) == 1  # over time


def test_in_place_operations_stay():
    """Code that writes into a tensor is not dead, though nobody reads what it returns."""

    def forward(X):
        X = X.clone()
        X[:, 0] = 3.0
        X.add_(1)
        return X * 2

    graph = trace(Forward(forward), (torch.rand(2, 3),), {})
    X = torch.rand(4, 3)
    torch.testing.assert_close(replay(graph, X), forward(X))


@pytest.mark.parametrize("kind", ["lstm", "gru", "rnn"])
def test_recurrent_operations_keep_their_names(kind):
    """Stand-ins are used while tracing only."""
    graph = trace(build(kind), (rows(kind),), {}).program.graph
    targets = [str(node.target) for node in graph.nodes]
    expected = {"rnn": "aten.rnn_tanh.input"}.get(kind, f"aten.{kind}.input")
    assert expected in targets
    assert not any("skcompress" in target for target in targets)


def test_long_sequences_take_one_operation():
    """The size of a graph does not grow with the length of a sequence."""
    sizes = {
        len(trace(build("lstm"), (torch.rand(2, n, 4).double(),), {}).program.graph.nodes)
        for n in (3, 200)
    }
    assert len(sizes) == 1


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("fast_path", [True, False])
def test_tracing_leaves_no_trace(training, fast_path):
    """The mode of each submodule and torch's switch for fused attention are restored."""
    module = build("mlp, batch norm").train(training)
    module.layers[3].train(not training)
    modes = [m.training for m in module.modules()]
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(fast_path)
    try:
        trace(module, (rows("mlp"),), {})
        assert torch.backends.mha.get_fastpath_enabled() == fast_path
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
    assert [m.training for m in module.modules()] == modes
    assert module.layers[1].num_batches_tracked == 0


@pytest.mark.parametrize("training", [True, False])
def test_a_failed_trace_restores_the_mode(training, capfd):
    """An exception in ``forward`` does not leave the module in evaluation mode, nor a print."""
    module = Forward(lambda X: X if X.sum() > 0 else -X).train(training)
    fast_path = torch.backends.mha.get_fastpath_enabled()
    with pytest.raises(ValueError, match="cannot be traced"):
        trace(module, (torch.rand(2, 3),), {})
    assert module.training == training
    assert torch.backends.mha.get_fastpath_enabled() == fast_path
    assert capfd.readouterr() == ("", "")
    assert logging.root.manager.disable == logging.NOTSET


def test_control_flow_on_values_is_refused():
    """The error names the module and gives torch's reason."""
    module = Forward(lambda X: X if X.sum() > 0 else -X)
    with pytest.raises(ValueError, match=r"^Forward cannot be traced by torch\.export, .*guard"):
        trace(module, (torch.rand(2, 3),), {})


class TestTraceOnce:
    def test_a_module_is_traced_once(self, monkeypatch):
        """Other numbers of rows and other weights take the same operations."""
        module, calls = build("mlp"), []
        export = graphs._export
        monkeypatch.setattr(graphs, "_export", lambda *a, **k: calls.append(1) or export(*a, **k))
        for n_rows in (4, 7, 1):
            with torch.no_grad():
                module.first.weight.mul_(2)
            X = rows("mlp", n_rows)
            torch.testing.assert_close(replay(trace_once(module, (X,), {}), X), module(X))
        assert len(calls) == 1

    def test_a_forward_that_fixes_the_number_of_rows_is_traced_for_each(self):
        """``len(x)`` is a number to torch.export; the graph must not be used for other rows."""
        module = Forward(lambda X: X.view(len(X), -1) + torch.zeros(len(X), 1))
        for n_rows in (4, 3, 4):
            X = torch.rand(n_rows, 2, 3)
            torch.testing.assert_close(replay(trace_once(module, (X,), {}), X), module(X))

    def test_a_changed_module_is_traced_anew(self):
        """Neither another activation nor another width meets an old list of operations."""
        module = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
        X = torch.rand(5, 3)
        trace_once(module, (X,), {})
        module[1] = nn.Tanh()
        torch.testing.assert_close(replay(trace_once(module, (X,), {}), X), module(X))
        module[0] = nn.Linear(3, 2)
        torch.testing.assert_close(replay(trace_once(module, (X,), {}), X), module(X))

    def test_it_does_not_keep_the_module(self):
        """The memory of a net is free when the net is."""
        module = nn.Sequential(nn.Linear(3, 4))
        trace_once(module, (torch.rand(2, 3),), {})
        reference = weakref.ref(module)
        del module
        gc.collect()
        assert reference() is None


def test_module_inputs():
    """A dict becomes keyword arguments, anything else the only positional one."""
    net, X, y = classifier(MLP).initialize(), torch.rand(2, 6), torch.zeros(2)
    args, kwargs = module_inputs(net, (X, y))
    assert args[0] is X
    assert kwargs == {}
    args, kwargs = module_inputs(net, ({"a": X, "b": y}, y))
    assert args == ()
    assert set(kwargs) == {"a", "b"}
    assert kwargs["a"] is X
