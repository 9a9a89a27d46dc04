"""One contender of `tools.bench` in a process of its own: reads orders, works, waits.

    python -m tools.bench.worker '{"contender": "tfgen", "work": "iwae", "k": 1, "threads": 2,
                                   "images": "PATH.npy"}'

Each line on standard input, {"steps": n}, is answered by one on standard output, {"seconds": s,
...}. Between two orders the process sleeps on the pipe, so that only one contender works at a time.
"""

import importlib
import json
import os
import resource
import sys
import time
from collections.abc import Sequence
from typing import Any

from tools.bench.work import UNROLLED_STEPS, Run

# Name -> module (of the order's work), its function of the order, and the function's settings.
CONTENDERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "tfgen": ("{work}_tf", "tfgen", {}),
    "tfgen_jit": ("{work}_tf", "tfgen", {"jit": True}),
    "tfgen_bf16": ("{work}_tf", "tfgen", {"precision": "mixed_bfloat16"}),
    "torch": ("{work}_torch", "train", {}),
    "torch_compile": ("{work}_torch", "train", {"compiled": True}),
    "torch_bf16": ("{work}_torch", "train", {"bfloat16": True}),
    "torch_compile_bf16": ("{work}_torch", "train", {"compiled": True, "bfloat16": True}),
    "keras": ("{work}_tf", "keras_plain", {}),
    "tfgen_2_replicas": ("{work}_tf", "tfgen", {"replicas": 2}),
    "zuko": ("{work}_torch", "zuko", {}),
    "nflows": ("{work}_torch", "nflows", {}),
    "gemm_tf": ("gemms", "by_tensorflow", {}),
    "gemm_torch": ("gemms", "by_torch", {}),
    "tfgen_constant": ("{work}_tf", "tfgen", {"constant": True}),
    "tfgen_pipeline": ("{work}_tf", "tfgen_pipeline", {}),
    "feature_matching": ("{work}_tf", "tfgen", {"feature_matching_layer": "features"}),
    "label_smoothing": ("{work}_tf", "tfgen", {"positive_label": 0.9}),
    "historical_averaging": ("{work}_tf", "tfgen", {"historical_average_weight": 0.01}),
    "minibatch_discrimination": ("{work}_tf", "tfgen", {"minibatch_kernels": 100}),
    "unrolled": ("{work}_tf", "tfgen", {"system": "unrolled", "unrolled_steps": UNROLLED_STEPS}),
}


def make(order: dict[str, Any]) -> tuple[Run, dict[str, Any]]:
    """The contender that an order names, ready to run, and facts about it."""
    module, function, settings = CONTENDERS[order["contender"]]
    found = importlib.import_module(f"tools.bench.{module.format(work=order['work'])}")
    return getattr(found, function)(order, **settings)


def serve(argv: Sequence[str]) -> int:
    """Answers orders until standard input ends; an error is an answer too."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not lie among the answers

    def answer(message: dict[str, Any]) -> None:
        print(json.dumps(message), file=answers, flush=True)

    try:
        run, facts = make(json.loads(argv[1]))
        answer(facts)
        for line in sys.stdin:
            steps = json.loads(line)["steps"]
            begun = time.process_time()
            found = run(steps)
            found["cpu_ms"] = round(1000.0 * (time.process_time() - begun) / steps, 4)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            answer({**found, "peak_mib": round(peak, 1)})
    except Exception as error:
        answer({"error": f"{type(error).__name__}: {error}".splitlines()[0]})
        raise
    answers.close()
    sys.stderr.flush()
    # TensorFlow's threads can wait for each other for ever when the interpreter goes away.
    os._exit(0)


def main(argv: Sequence[str]) -> int:
    """Serves; PyTorch and plain Keras without the environment that tfgen's commands set up."""
    name = json.loads(argv[1])["contender"]
    if "torch" in name or name in ("zuko", "nflows"):
        import torch

        # As TensorFlow does: most weights of 50 samples are subnormal, and slow a product tenfold.
        torch.set_flush_denormal(True)
        return serve(argv)
    if name == "keras":
        return serve(argv)
    from tfgen import commands

    return commands.execute(serve, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
