"""One worker of a run as `tfgen.train` makes it, which leaves its weights: worker.py OUT FLAGS."""

import sys

import numpy as np

from tfgen import commands, hparams, run, train
from tfgen.training import loop, strategies


def main(out, *argv):
    name, hp, options = hparams.parse(["", *argv], train.Options)
    strategy = strategies.make(options.strategy)
    data = commands.load_data(hp, options.data_dir, options.on_bad_image)
    with strategy.scope():
        model = hparams.load_system(name).build(hp, data.spec)
        run_dir = run.RunDir(options.run_dir)
        run_dir.create(hparams.to_flagfile(name, hp))
        intervals = loop.Intervals(
            log=options.log_every_steps,
            validate=options.validate_every_steps,
            checkpoint=options.checkpoint_every_steps,
        )
        loop.train(model, data, hp, run_dir, intervals=intervals)
    np.savez(out, **{name: v.numpy() for name, v in model.state_variables().items()})


if __name__ == "__main__":
    main(*sys.argv[1:])
