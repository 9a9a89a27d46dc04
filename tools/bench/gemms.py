"""The matrix products of a step alone, by each library: no training step can be faster."""

import time
from collections.abc import Callable
from typing import Any

from tools.bench import work
from tools.bench.work import Product, Run

_TIMES = 20  # products in one call, so that the call itself costs nothing


def _rounds(calls: list[Callable[[], Any]], steps: int) -> dict[str, Any]:
    """Seconds of each product, all of them in turn; their sum is "seconds"."""
    spent, rounds = [0.0] * len(calls), max(1, steps // _TIMES)
    for _ in range(rounds):
        for index, call in enumerate(calls):
            begun = time.perf_counter()
            call()
            spent[index] += time.perf_counter() - begun
    return {"seconds": sum(spent), "each": [s / rounds / _TIMES for s in spent]}


def by_tensorflow(order: dict[str, Any]) -> tuple[Run, dict[str, Any]]:
    """One after the other in one graph."""
    import tensorflow as tf

    def calls(product: Product) -> Callable[[], Any]:
        rows, inputs, outputs = product.rows, product.inputs, product.outputs
        x, w, y = (
            tf.random.normal(shape)
            for shape in ((rows, inputs), (inputs, outputs), (rows, outputs))
        )

        def multiply() -> tf.Tensor:
            if product.kind == "forward":
                return tf.matmul(x, w)
            if product.kind == "of_weights":
                return tf.matmul(x, y, transpose_a=True)
            return tf.matmul(y, w, transpose_b=True)

        @tf.function(autograph=False)
        def chain() -> tf.Tensor:
            corners: list[tf.Tensor] = []
            for _ in range(_TIMES):  # one after the other, and none may be left out
                with tf.control_dependencies(corners[-1:]):
                    corners.append(multiply()[0, 0])
            return tf.add_n(corners)

        return lambda: chain().numpy()

    products = [calls(product) for product, _ in work.step_of(order)]
    return lambda steps: _rounds(products, steps), {"tensorflow": tf.__version__}


def by_torch(order: dict[str, Any]) -> tuple[Run, dict[str, Any]]:
    """Into memory that is there already."""
    import torch

    torch.set_num_threads(order["threads"])

    def calls(product: Product) -> Callable[[], Any]:
        x = torch.randn(product.rows, product.inputs)
        w = torch.randn(product.inputs, product.outputs)
        y = torch.randn(product.rows, product.outputs)
        left, right = {
            "forward": (x, w), "of_weights": (x.T, y), "of_inputs": (y, w.T),
        }[product.kind]  # fmt: skip
        out = torch.empty(left.shape[0], right.shape[1])

        def call() -> None:
            for _ in range(_TIMES):
                torch.mm(left, right, out=out)

        return call

    products = [calls(product) for product, _ in work.step_of(order)]
    return lambda steps: _rounds(products, steps), {"torch": torch.__version__}
