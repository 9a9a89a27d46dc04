"""A masked autoregressive flow by tfgen."""

from typing import Any

import keras
import tensorflow as tf

from tfgen.bijectors.flow import AutoregressiveFlow
from tfgen.data.pipeline import Plan, Table
from tfgen.models.flow import maf
from tfgen.training import optimizers
from tools.bench import training
from tools.bench.work import MAF_BATCH, MAF_BLOCKS, MAF_HIDDEN, MAF_RATE, MAF_SIZE, Run, vectors


def tfgen(order: dict[str, Any], **flags: Any) -> tuple[Run, dict[str, Any]]:
    """`flow.maf` without batch norm, which the others do not have, trained by its own function."""
    del order  # there is one size
    hp = maf.HParams(batch_size=MAF_BATCH, **flags)
    keras.config.set_dtype_policy(hp.precision)
    flow = AutoregressiveFlow(MAF_SIZE, blocks=MAF_BLOCKS, hidden_units=MAF_HIDDEN)
    model = maf.MAF(flow, (MAF_SIZE,), l2=0.0)
    model.compile(optimizers.Adam(MAF_RATE), **hp.compile_options())
    table = Table.of({"point": tf.constant(vectors())})
    stream = table.train(Plan(table.size, MAF_BATCH, 0, 0, 1, 0, 1), lambda rows, _: rows)
    return training.runner(model, iter(stream), hp, "loss"), training.VERSIONS
