import pytest
import tensorflow as tf

from tests import ordering


def assigned(handle, value):
    tf.raw_ops.AssignSubVariableOp(resource=handle, value=value)


def stepped(handle, value):
    tf.raw_ops.ResourceApplyGradientDescent(var=handle, alpha=value, delta=value)


@pytest.mark.parametrize("write", [assigned, stepped])
@pytest.mark.parametrize(("kept", "found"), [(True, 0), (False, 1)])
def test_a_write_waits_for_a_read_or_not(write, kept, found):
    with tf.Graph().as_default() as graph:
        handle = tf.raw_ops.VarHandleOp(dtype=tf.float32, shape=[])
        read = tf.raw_ops.ReadVariableOp(resource=handle, dtype=tf.float32)
        used = tf.square(read)
        with tf.control_dependencies([used] if kept else []):
            write(handle, tf.constant(1.0))
    assert len(ordering.unordered(graph.as_graph_def())) == found


def test_reads_need_no_order_and_other_variables_have_their_own():
    with tf.Graph().as_default() as graph:
        one, two = (tf.raw_ops.VarHandleOp(dtype=tf.float32, shape=[]) for _ in range(2))
        for _ in range(2):
            tf.raw_ops.ReadVariableOp(resource=one, dtype=tf.float32)
        tf.raw_ops.AssignVariableOp(resource=two, value=tf.constant(1.0))
    assert ordering.unordered(graph.as_graph_def()) == []


def test_the_next_turn_of_a_loop_is_not_this_one():
    variable = tf.Variable(0.0)

    @tf.function
    def run(steps):
        total = 0.0
        for _ in tf.range(steps):
            total += variable.read_value()
            variable.assign_add(1.0)
        return total

    graphs = ordering.graphs_of(lambda: run(tf.constant(3)))
    main = max(graphs, key=lambda graph: len(graph.node))
    assert {"NextIteration", "ReadVariableOp"} <= {node.op for node in main.node}
    assert ordering.unordered(main) == []
    for node in main.node:  # Without the edge from the read to the write, nothing orders them.
        if node.op == "AssignAddVariableOp":
            kept = [edge for edge in node.input if "ReadVariableOp" not in edge]
            assert len(kept) < len(node.input)
            node.ClearField("input")
            node.input.extend(kept)
    assert len(ordering.unordered(main)) == 1


def sums(*names, once=()):
    """`AddN`s of several orders, in a graph of one over these; those of `once` have one reader."""
    with tf.Graph().as_default() as graph:
        made = {name: tf.square(tf.constant(1.0), name=name) for name in sorted(set(names))}
        for name, tensor in made.items():
            if name not in once:
                tf.exp(tensor)
        tf.add_n([made[name] for name in names], name="total")
    return ordering.sums_by_chance(graph.as_graph_def())


def test_a_sum_that_may_begin_with_its_third_input():
    assert sums("a", "b", "c") == ["total"]
    assert sums("a", "b", "c", once="c") == ["total"]
    assert sums("a", "b", "c", "d", once="d") == ["total"]


def test_a_sum_that_begins_with_its_first_or_second_input():
    assert sums("a", "b") == []
    assert sums("a", "b", "c", once="a") == []
    assert sums("a", "b", "c", once="b") == []
    assert sums("a", "a", "b", "b") == []


def test_memory_is_seen_through_views_and_variables_keep_theirs():
    with tf.Graph().as_default() as graph:
        a, b, c = (tf.square(tf.constant([1.0]), name=name) for name in "abc")
        tf.exp(b)
        tf.exp(c)
        viewed = tf.reshape(tf.identity(a), [1])
        handle = tf.raw_ops.VarHandleOp(dtype=tf.float32, shape=[1])
        read = tf.raw_ops.ReadVariableOp(resource=handle, dtype=tf.float32)
        tf.add_n([viewed, b, c], name="view")
        tf.add_n([read, read, c], name="kept")
    assert ordering.sums_by_chance(graph.as_graph_def()) == ["kept"]
    with graph.as_default():
        tf.exp(a)
    assert ordering.sums_by_chance(graph.as_graph_def()) == ["view", "kept"]
