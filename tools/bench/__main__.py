"""Measures tfgen's speed against PyTorch, plain Keras and the machine; writes the pages on it.

    python -m tools.bench                     all of it, about an hour and a half on a quiet machine
    python -m tools.bench --only=gan,wgan_gp  some parts; the others keep their figures
    python -m tools.bench --render_only       the pages anew from results/bench.json

The figures are ratios of contenders that take turns (A B C A B C ...) on the same two cores, each
in a process of its own that sleeps while others work; medians over the turns. Needs what
requirements-bench.txt lists besides tfgen's own packages.
"""

import argparse
import contextlib
import json
import os
import pathlib
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

from tfgen import run
from tools import objectives_page
from tools.bench import contest, figures, page, worker
from tools.bench.contest import ROOT, THREADS
from tools.bench.parts import ALL, FirstStep, Part

RESULTS = ROOT / "results" / "bench.json"


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tools.bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    comma = lambda text: [part for part in text.split(",") if part]  # noqa: E731
    parser.add_argument("--repeats", type=int, default=5, help="turns of each contender")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a turn")
    parser.add_argument(
        "--only", type=comma, default=list(ALL), help=f"parts, by commas: {', '.join(ALL)}"
    )
    parser.add_argument("--contenders", type=comma, default=[], help="some contenders, by commas")
    parser.add_argument("--data_dir", help="TFDS directory with mnist; default: synthetic images")
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS)
    parser.add_argument("--page", type=pathlib.Path, default=ROOT / "BENCH.md")
    parser.add_argument("--render_only", action="store_true", help="only write the page anew")
    args = parser.parse_args(argv)
    for given, known in ((args.only, ALL), (args.contenders, worker.CONTENDERS)):
        for name in given:
            if name not in known:
                parser.error(f"unknown: {name}; known: {', '.join(known)}")
    if args.repeats < 1:
        parser.error("--repeats must be at least 1")
    if args.contenders and args.out == RESULTS:
        # The ratios of a part are of turns in one run: contenders are not measured one by one.
        parser.error("--contenders is for trials: give --out and --page as well")
    return args


@contextlib.contextmanager
def _work_folder() -> Iterator[pathlib.Path]:
    folder = pathlib.Path(tempfile.mkdtemp(prefix="tfgen_bench_"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _turns(part: Part, images: pathlib.Path, args: argparse.Namespace) -> dict[str, Any]:
    names = [n for n in part.contenders if not args.contenders or n in args.contenders]
    found = contest.interleaved(
        names,
        {**part.order, "images": str(images), "threads": THREADS},
        repeats=args.repeats,
        seconds=args.seconds,
        portion=part.portion,
        logs=images.parent,
    )
    return {"batch_size": part.batch_size, "contenders": found}


def measure(args: argparse.Namespace) -> Iterator[tuple[str, dict[str, Any]]]:
    """The wanted parts, each with its name as soon as it is measured."""
    if hasattr(os, "sched_setaffinity"):  # the same two cores for all, inherited
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
    with _work_folder() as work:
        images, kind = work / "images.npy", ""
        for name, part in ALL.items():
            if name not in args.only:
                continue
            print(f"part {name}", file=sys.stderr)
            if isinstance(part, FirstStep):
                result = contest.first_step(part.config, args.repeats, work)
                result["images"] = part.config.rpartition("_")[2]
            else:
                kind = kind or contest.make_images(images, args.data_dir)
                result = {**_turns(part, images, args), "images": kind}
            yield name, {
                **result, "repeats": args.repeats, "environment": contest.environment(),
            }  # fmt: skip


def _write(parts: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    results = figures.complete(parts)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    run.write_text(args.out, json.dumps(results, indent=1) + "\n")
    run.write_text(args.page, page.render(results))
    return results


def main(argv: Sequence[str]) -> int:
    """Measures the wanted parts, keeps the others, writes the JSON file and the page."""
    args = _parse(argv)
    parts = json.loads(args.out.read_text())["parts"] if args.out.exists() else {}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that workers and folders go
    if not args.render_only:
        for name, result in measure(args):
            parts = figures.merged(parts, {name: result})
            _write(parts, args)  # what was measured is kept, whatever comes
    if not parts:
        print(f"nothing measured yet: no {args.out}", file=sys.stderr)
        return 1
    for row in _write(parts, args)["targets"]:
        verdict = {True: "holds", False: "FAILS", None: "no verdict"}[row["holds"]]
        print(f"{row['text']}: {page.shown(row['value'], row['measure'])}, {verdict}")
    if args.out == RESULTS:
        objectives_page.write()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
