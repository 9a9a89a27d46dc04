"""Figures, verdicts and the page are computed from the raw turns; the parts fit together."""

import importlib
import json
import os

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfgen.networks import patchgan, resnet, unet
from tools.bench import contest, figures, page, parts, work, worker
from tools.bench.__main__ import main
from tools.bench.parts import ALL, Comparison, FirstStep, Part

PARTS = [part for part in ALL.values() if isinstance(part, Part)]


def raced(rates: dict[str, list[float]], others: float = 0.0) -> dict:
    """A part's result with these rates, as a run stores it."""
    return {
        "contenders": {
            name: {
                "rates": values, "median": float(np.median(values)), "steps": 10,
                "cpu_ms": [1.0] * len(values), "others": [others] * len(values), "peak_mib": 1.0,
            }
            for name, values in rates.items()
        },
        "repeats": 3, "images": "x",
        "environment": {
            "cpu": "c", "cores_used": 2, "cores_of_machine": 2, "threads": 2, "python": "3",
            "versions": {}, "date": "d",
        },
    }  # fmt: skip


GAN = raced(
    {"tfgen": [6.0, 5.0, 7.0], "tfgen_jit": [3.0] * 3, "tfgen_bf16": [9.0] * 3, "torch": [4.0] * 3}
)


# The work.


def test_products_of_the_iwae_are_the_layers_of_both_networks() -> None:
    encoder = 784 * 200 + 200 * 200 + 200 * 100
    decoder = 50 * 200 + 200 * 200 + 200 * 784
    forward_and_back = 2 * 100 * (3 * encoder - 784 * 200 + 3 * 7 * decoder)
    assert work.flops(work.iwae_step(7)) == forward_and_back


def test_products_of_the_gans() -> None:
    # Forward through D, and through G, by hand; the first layers' gradients to inputs are absent.
    d_first, g_first = 2 * 64 * 196 * 16 * 64, 2 * 64 * 74 * 1024
    d = d_first + 2 * 64 * (49 * 16 * 64 * 128 + 6272 * 1024 + 1024)
    g = g_first + 2 * 64 * (1024 * 6272 + 49 * 128 * 16 * 64 + 196 * 64 * 16)
    of_d = g + 2 * (3 * d - d_first)
    of_g = 3 * g - g_first + 2 * d
    assert work.flops(work.gan_step()) == of_d + of_g
    assert work.flops(work.wgan_gp_step()) == of_d + of_g + 4 * d
    # Two products for each of the three, for real and fake: 9 passes, as much as forward, a step.
    more = work.flops(work.unrolled_step(6)) - work.flops(work.unrolled_step(5))
    assert more == pytest.approx(2 * 9 * d, rel=0.02)


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name)
def test_every_contender_has_a_module_and_a_name(part: Part) -> None:
    for name in part.contenders:
        module, function, _ = worker.CONTENDERS[name]
        module = module.format(work=part.order["work"])
        source = (contest.ROOT / "tools" / "bench" / f"{module}.py").read_text()  # no torch needed
        assert f"\ndef {function}(" in source
        assert name in parts.NAMES or name.startswith("gemm")
    compared = {n for c in part.comparisons for n in (*c.first, *c.second)}
    assert {n for n in compared if n not in part.contenders} <= {"tfgen_constant"}
    measures = {c.measure for c in part.comparisons} | {"share_of_floor"}
    assert {target.measure for target in part.targets} <= measures


@pytest.mark.parametrize("system", ["gan", "wgan_gp"])
def test_gans_have_the_networks_whose_products_are_counted(system: str) -> None:
    gan_tf = importlib.import_module("tools.bench.gan_tf")
    hp = importlib.import_module(f"tfgen.models.gan.{system}").HParams()
    generator, discriminator = gan_tf._networks((28, 28, 1), hp)
    weights = (*generator.weights, *discriminator.weights)
    counted = (*work._GENERATOR, *work._DISCRIMINATOR)
    assert [int(np.prod(v.shape)) for v in weights if v.name == "kernel"] == [
        inputs * outputs for _, inputs, outputs in counted
    ]
    normed = any("batch_normalization" in layer.name for layer in discriminator.layers)
    assert normed == (system == "gan")


def test_the_iaf_has_the_networks_whose_products_are_counted() -> None:
    iaf_tf = importlib.import_module("tools.bench.iaf_tf")
    hp = iaf_tf.hparams()
    model = iaf_tf.iaf.build(hp, iaf_tf.training.dataset(np.zeros((2, 28, 28, 1)), "binary").spec)
    kernels = sum(int(np.prod(v.shape)) for v in model.trainable_variables if v.name == "kernel")
    first = 784 * 200
    assert work.flops(work.iaf_step()) == 2 * 100 * (3 * kernels - first)


@pytest.mark.parametrize("name", ["pixelcnn", "vqvae"])
def test_convolutions_are_those_whose_products_are_counted(name) -> None:
    module = importlib.import_module(f"tools.bench.{name}_tf")
    spec = module.training.dataset(np.zeros((2, 28, 28, 1)), "binary").spec
    model = getattr(module, name).build(module.hparams(), spec)
    if name == "pixelcnn":
        # What a masked kernel may see: its weights that get a gradient.
        image = tf.cast(tf.random.stateless_uniform([2, 28, 28, 1], [0, 1]) > 0.5, tf.float32)
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model.log_prob(image))
        kernels = [v for v in model.trainable_variables if v.name.endswith("kernel")]
        gradients = tape.gradient(loss, [v.value for v in kernels])
        weights = sorted(int(np.count_nonzero(g)) for g in gradients)
    else:
        parts = (model.encoder, model.decoder)
        weights = sorted(
            int(np.prod(v.shape)) for p in parts for v in p.weights if v.name == "kernel"
        )
        weights = sorted([*weights, model.num_codes * work.VQVAE_SIZE])
    counted = [
        product.inputs * product.outputs
        for product, times in work.step_of({"work": name})
        for _ in range(times)
        if product.kind == "forward"
    ]
    assert sorted(counted) == weights


@pytest.mark.parametrize("system", work.TRANSLATION_SIDES)
def test_translations_have_the_networks_whose_products_are_counted(system) -> None:
    """One pass of a generator and of a discriminator, by the sizes of Keras' own layers."""
    side = work.TRANSLATION_SIDES[system]
    if system == "cyclegan":
        networks = resnet.resnet(3, 3, blocks=work.RESNET_BLOCKS), patchgan.discriminator(3)
        counted = work._resnet(side), work._patchgan(side, 3)
    else:
        networks = unet.unet(3, 3), patchgan.discriminator(6)
        counted = work._unet(), work._patchgan(side, 6)
    for network, layers in zip(networks, counted, strict=True):
        flops = sum(2 * rows * inputs * outputs for rows, inputs, outputs in layers)
        assert flops == _convolution_flops(network, side)


def _convolution_flops(network: keras.Model, side: int) -> int:
    """Of one image, by running it: each kernel meets each place of the smaller map."""
    total = 0

    def counting(layer, call):
        def counted(x, *args, **kwargs):
            nonlocal total
            y = call(x, *args, **kwargs)
            small = min((x, y), key=lambda t: t.shape[1])
            total += 2 * small.shape[1] * small.shape[2] * int(np.prod(layer.kernel.shape))
            return y

        return counted

    kinds = (keras.layers.Conv2D, keras.layers.Conv2DTranspose)
    for layer in network.layers:
        if isinstance(layer, kinds):
            layer.call = counting(layer, layer.call)
    image = tf.zeros([1, side, side, network.inputs[0].shape[-1]])
    network([image, tf.constant([0, 0])] if len(network.inputs) == 2 else image)
    return total


# Figures.


def test_the_fastest_of_each_side_are_compared_by_medians() -> None:
    found = figures.figures({"gan": GAN})["gan"]
    assert found["over_torch_eager"] == {
        "of": "tfgen", "over": "torch", "value": 1.5, "least": 1.25, "most": 1.75
    }  # fmt: skip
    assert found["best_over_best"]["value"] == 2.25
    assert found["over_own_float32"]["value"] == 1.5
    assert "floor" not in found


@pytest.mark.parametrize(
    ("form", "value", "least"), [("ratio", 1.5, 1.25), ("time", 1.5, 1.25), ("extra", 0.5, 0.25)]
)
def test_forms(form: str, value: float, least: float) -> None:
    found = figures.compared(GAN, Comparison("x", ("tfgen",), ("torch",), "{}", form))
    assert (found["value"], found["least"]) == (value, least)


def test_a_share_is_what_the_second_does_not_have() -> None:
    found = figures.compared(GAN, Comparison("x", ("tfgen_jit",), ("torch",), "{}", "share"))
    assert found["value"] == 0.25


def test_what_was_not_measured_is_not_compared() -> None:
    assert figures.compared(GAN, Comparison("x", ("keras",), ("torch",), "")) is None
    assert figures.compared({"contenders": {}}, Comparison("x", ("tfgen",), ("torch",), "")) is None


def test_floor_takes_each_product_by_the_faster_library_as_often_as_it_is_made() -> None:
    step = [(work.Product("forward", 10, 10, 10), 3), (work.Product("of_inputs", 5, 5, 5), 1)]
    result = {
        "contenders": {
            "gemm_tf": {"each": [[1.0, 9.0], [2.0, 9.0], [3.0, 9.0]]},
            "gemm_torch": {"each": [[5.0, 4.0]]},
        }
    }
    found = figures.floor(result, step)
    assert found["seconds"] == 3 * 2.0 + 4.0
    assert found["flops"] == 3 * 2000 + 250


def test_what_is_possible_is_the_floor_against_them() -> None:
    result = {"contenders": dict(GAN["contenders"])}
    step = work.gan_step()
    result["contenders"]["gemm_torch"] = {"each": [[0.1 / len(step) / t for _, t in step]]}
    found = figures.figures({"gan": result})["gan"]
    assert found["possible_over_torch_eager"]["value"] == pytest.approx(10 / 4.0)
    assert found["share_of_floor"]["value"] == pytest.approx(0.6)


def test_what_is_possible_to_tensorflow_is_its_own_products_against_them() -> None:
    result = {"contenders": dict(GAN["contenders"])}
    step = work.gan_step()
    for name, seconds in (("gemm_torch", 0.1), ("gemm_tf", 0.2)):
        result["contenders"][name] = {"each": [[seconds / len(step) / t for _, t in step]]}
    found = figures.figures({"gan": result})["gan"]
    assert found["possible_over_torch_eager"]["value"] == pytest.approx(10 / 4.0)
    assert found["tensorflow_floor"]["value"] == pytest.approx(5 / 4.0)


# Targets and the page.


def test_verdicts() -> None:
    def holds(results: dict) -> dict:
        rows = figures.complete(results)["targets"]
        return {(r["part"], r["measure"]): r["holds"] for r in rows}

    slow = raced({"tfgen": [10.0] * 3, "feature_matching": [9.0] * 3, "unrolled": [1.7] * 3})
    found = holds({"gan": GAN, "gan_tricks": slow})
    assert found["gan", "over_torch_eager"] is True
    assert found["gan_tricks", "feature_matching_share"] is False  # 11 %
    assert found["gan_tricks", "unrolled_cost"] is True
    assert found["gan_tricks", "label_smoothing_share"] is None
    assert found["wgan_gp", "over_torch_eager"] is None


def test_no_verdict_where_the_machine_had_other_work() -> None:
    results = figures.complete({"gan": raced({"tfgen": [6.0], "torch": [4.0]}, others=0.5)})
    assert {row["holds"] for row in results["targets"]} == {None}
    assert "**Not valid: gan.**" in page.render(results)


def test_first_steps() -> None:
    result = {**raced({}), "runs": [9.0, 12.0], "median": 10.5, "first_ever": 20.0, "command": "c"}
    del result["contenders"]
    results = figures.complete({"first_step_gan": result, "first_step": {**result}})
    holds = {r["part"]: r["holds"] for r in results["targets"] if r["value"] is not None}
    assert holds == {"first_step": False, "first_step_gan": True}
    assert "* `c`: 10.5 s from the start of the process [9.0, 12.0]" in page.render(results)


def test_a_part_measured_now_leaves_the_others() -> None:
    old, new, failed = raced({"tfgen": [1.0]}), raced({"tfgen": [2.0]}), {"error": "status 1"}
    step = {"runs": [9.0], "median": 9.0}
    found = figures.merged({"first_step": step, "k1": old}, {"gan": failed, "k1": new})
    assert list(found) == ["k1", "gan", "first_step"]
    assert found == {"k1": new, "gan": failed, "first_step": step}


def test_a_failure_does_not_replace_what_was_measured() -> None:
    old = {"k1": raced({"tfgen": [1.0]}), "first_step": {"runs": [9.0], "median": 9.0}}
    nothing = {"contenders": {"tfgen": {"error": "no memory", "others": []}}}
    assert figures.merged(old, {"k1": nothing, "first_step": {"error": "status 1"}}) == old


def test_the_page_says_what_was_measured_failed_or_is_missing() -> None:
    tricks = raced({"tfgen": [10.0], "historical_averaging": [8.0], "unrolled": [1.0]})
    tricks["contenders"]["feature_matching"] = {"others": [], "error": "no memory"}
    text = page.render(figures.complete({"gan": GAN, "gan_tricks": tricks}))
    missing = "k1, k50, wgan_gp, maf, iaf, pixelcnn, vqvae, cyclegan, pix2pix, first_step"
    assert f"Not measured yet: {missing}" in text
    assert "* fastest float32 against eager PyTorch: **1.50** [1.25, 1.75] (tfgen / torch)" in text
    assert "| gan.gan: historical averaging, share of a step | at most 10 % | 25 % |" in text
    assert "* historical averaging costs 25.0 % [25.0, 25.0] of a step" in text
    assert "| unrolled, K = 5 | 1.0 [1.0, 1.0] | 0.10 |" in text
    assert "* a step of K = 5 has 8.1 times the floating point operations" in text
    assert "failed: no memory" in text


def test_the_page_in_the_repository_is_the_one_from_its_file() -> None:
    stored = json.loads((contest.ROOT / "results" / "bench.json").read_text())
    assert stored == json.loads(json.dumps(figures.complete(stored["parts"])))
    assert (contest.ROOT / "BENCH.md").read_text() == page.render(stored)


# The command.


def test_unknown_parts_are_named(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        main(["--only=k2"])
    assert "unknown: k2; known: k1, k50, gan" in capsys.readouterr().err


def test_render_only_measures_nothing(tmp_path) -> None:
    out, where = tmp_path / "b.json", tmp_path / "B.md"
    arguments = ["--render_only", f"--out={out}", f"--page={where}"]
    assert main(arguments) == 1
    out.write_text(json.dumps({"parts": {"gan": GAN}}))
    assert main(arguments) == 0
    assert "## gan.gan" in where.read_text()
    assert json.loads(out.read_text())["figures"]["gan"]["over_torch_eager"]["value"] == 1.5


def test_only_measures_some_parts_and_keeps_the_others(tmp_path, monkeypatch) -> None:
    out, where = tmp_path / "b.json", tmp_path / "B.md"
    kept = raced({"tfgen": [1.0] * 3})
    out.write_text(json.dumps({"parts": {"k1": kept, "gan": raced({"tfgen": [1.0] * 3})}}))
    monkeypatch.setattr(contest, "interleaved", lambda *_, **__: GAN["contenders"])
    monkeypatch.setattr(contest, "make_images", lambda *_: "stub")
    affinity = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    try:
        assert main(["--only=gan", f"--out={out}", f"--page={where}"]) == 0
    finally:
        if affinity:
            os.sched_setaffinity(0, affinity)
    stored = json.loads(out.read_text())["parts"]
    assert stored["k1"] == kept
    assert stored["gan"]["contenders"] == GAN["contenders"]
    assert "## gan.gan" in where.read_text()


def test_a_trial_of_some_contenders_does_not_touch_the_stored_results(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["--only=k1", "--contenders=tfgen"])
    assert "--contenders is for trials: give --out" in capsys.readouterr().err


def test_first_steps_have_their_flagfiles() -> None:
    for part in ALL.values():
        if isinstance(part, FirstStep):
            assert (contest.ROOT / "configs" / f"{part.config}.cfg").exists()
