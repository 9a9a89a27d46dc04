"""Whether what a graph computes, as TensorFlow has optimised it, depends on how threads run.

Functions of TensorFlow run stateful operations as the program has them, but its optimiser of graphs
can drop the edge that says so: a variable is then read before or after it moves. And `AddN` begins
its sum with the first of its inputs whose memory no one else still reads. Either is seen on one run
in many.
"""

import collections
import itertools
import re
from collections.abc import Callable, Iterator

import tensorflow as tf
from tensorflow.python.eager import context  # no public function has the graphs as they are run

_READ = "ReadVariableOp"
_PASS_ON = ("Identity", "Enter", "Switch", "Merge")
_VIEWS = (*_PASS_ON, "Reshape", "ExpandDims", "Squeeze", "StopGradient", "PreventGradient")
_KEPT = ("Const", _READ, "_Arg")  # Their memory stays in use, whoever reads it.


def graphs_of(run: Callable) -> list[tf.compat.v1.GraphDef]:
    """Graphs of the functions that `run()` calls first, as they are executed."""
    context.enable_run_metadata()
    try:
        run()
        found = context.export_run_metadata().function_graphs
    finally:
        context.disable_run_metadata()
    return [graphs.post_optimization_graph for graphs in found]


def unordered(graph: tf.compat.v1.GraphDef) -> list[tuple[str, str]]:
    """Pairs of accesses to one variable, one of them a write, of which either may come first.

    Whatever takes a variable and does not read it is a write: assignments, fused steps of
    optimisers, calls.
    """
    nodes = {node.name: node for node in graph.node}
    variables = {_owner(nodes, node.input[0]) for node in graph.node if node.op == _READ}
    accesses = collections.defaultdict(list)
    for name, node in nodes.items():
        if node.op not in _PASS_ON:
            for variable in variables & {_owner(nodes, edge) for edge in node.input}:
                accesses[variable, _loop(name)].append(name)
    bits = {name: 1 << i for i, name in enumerate({*itertools.chain(*accesses.values())})}
    before: dict[str, int] = {}  # of each node, the accesses that it waits for
    for name in _in_order(nodes):
        before[name] = 0
        for parent in _inputs(nodes, name):
            before[name] |= before[parent] | bits.get(parent, 0)
    return [
        (a, b)
        for names in accesses.values()
        for a, b in itertools.combinations(names, 2)
        if not (nodes[a].op == nodes[b].op == _READ)
        and not (before[a] & bits[b] or before[b] & bits[a])
    ]


def sums_by_chance(graph: tf.compat.v1.GraphDef) -> list[str]:
    """`AddN`s of which two orders of summation are possible, and may round differently.

    The kernel writes its sum over the first input that it alone still holds, and begins with that
    one. Whether other readers of a tensor are done is a matter of time. (a + b) + c is (b + a) + c.
    """
    nodes = {node.name: node for node in graph.node}
    readers = collections.Counter(
        _memory(nodes, edge)
        for node in graph.node
        if node.op not in _VIEWS
        for edge in node.input
        if not edge.startswith("^")
    )
    found = []
    for node in graph.node:
        if node.op != "AddN":
            continue
        inputs = [_memory(nodes, edge) for edge in node.input if not edge.startswith("^")]
        begins = set()
        for i, tensor in enumerate(inputs):
            if nodes[_name(tensor)].op in _KEPT or inputs.count(tensor) > 1:
                continue
            begins.add(max(i, 1))
            if readers[tensor] == 1:
                break
        else:
            begins.add(1)  # None is free: they are added up as they come.
        if len(begins) > 1:
            found.append(node.name)
    return found


def _memory(nodes: dict, edge: str) -> str:
    """The tensor whose memory an edge shows."""
    while nodes[_name(edge)].op in _VIEWS:
        edge = nodes[_name(edge)].input[0]
    return edge if ":" in edge else f"{edge}:0"


def _name(edge: str) -> str:
    return edge.lstrip("^").split(":")[0]


def _inputs(nodes: dict, name: str) -> Iterator[str]:
    """Names of what a node waits for in the same turn of a loop."""
    parents = map(_name, nodes[name].input)
    return (parent for parent in parents if nodes[parent].op != "NextIteration")


def _owner(nodes: dict, edge: str) -> str:
    """Where a resource comes from, through all that hands it on; of a control edge, nothing."""
    if edge.startswith("^"):
        return ""
    name = _name(edge)
    while nodes[name].op in _PASS_ON and nodes[name].input:
        name = _name(nodes[name].input[0])
    return name


def _loop(name: str) -> str:
    """The innermost loop that a node is in; a loop ends before what comes after it begins."""
    found = re.match(r".*while/body/_\d+/", name)
    return found.group() if found else ""


def _in_order(nodes: dict) -> Iterator[str]:
    """Names, each after those of its inputs."""
    done: set[str] = set()
    for root in nodes:
        stack = [(root, _inputs(nodes, root))]
        while stack:
            name, left = stack[-1]
            parent = next((p for p in left if p not in done), None)
            if parent is not None:
                stack.append((parent, _inputs(nodes, parent)))
                continue
            stack.pop()
            if name not in done:
                done.add(name)
                yield name
