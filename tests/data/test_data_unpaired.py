"""Two domains without pairs: each in its own order, in folders, as data sets, by TFDS."""

import itertools
import os

import numpy as np
import pytest
from PIL import Image

from tests.data.streams import whole
from tfgen import data
from tfgen.data import source
from tfgen.jitter import Jitter


def batches_of(loaded, count, **arguments):
    return list(itertools.islice(loaded.train(seed=3, **arguments).as_numpy_iterator(), count))


def take(loaded, count, **arguments):
    batches = batches_of(loaded, count, **arguments)
    return {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for key, value in found.items():
        np.testing.assert_array_equal(value, expected[key])


def write(folder, numbers, mode="RGB", size=(6, 4)):
    """Images of one colour each, their number."""
    folder.mkdir(parents=True)
    for number in numbers:
        colour = (number, 0, 0) if mode == "RGB" else number
        Image.new(mode, size, colour).save(folder / f"{number:03}.png")


@pytest.fixture
def root(tmp_path):
    """Folders as of CycleGAN: 30 and 13 to train, 4 and 7 to test."""
    write(tmp_path / "trainA", range(30))
    write(tmp_path / "trainB", range(100, 113), mode="L")
    write(tmp_path / "testA", range(50, 54))
    write(tmp_path / "testB", range(150, 157), mode="L")
    return tmp_path


def load(name, **arguments):
    arguments = {"image_range": "uint8", "needs": ("a", "b")} | arguments
    return data.load(name, **arguments)


@pytest.mark.parametrize("limit", [source.MEMORY_LIMIT_BYTES, 0])
def test_folders_of_two_domains(root, limit, monkeypatch):
    monkeypatch.setattr(source, "MEMORY_LIMIT_BYTES", limit)
    loaded = load(f"unpaired:{root}")
    spec = loaded.spec
    assert spec.shapes == {"a": (4, 6, 3), "b": (4, 6, 1)}  # grey where all of a domain are
    assert spec.num_classes is None
    assert spec.test_size == 7
    test = whole(loaded, "test")
    np.testing.assert_array_equal(test["a"][:, 0, 0, 0], [50, 51, 52, 53, 50, 51, 52])
    np.testing.assert_array_equal(test["b"][:, 0, 0, 0], range(150, 157))
    # Validation is taken out of the folders for training.
    for key, numbers in (("a", range(30)), ("b", range(100, 113))):
        parts = [set(whole(loaded, s)[key][:, 0, 0, 0]) for s in ("train", "validation")]
        assert not parts[0] & parts[1]
        assert parts[0] | parts[1] == set(numbers)


def test_each_domain_has_its_own_epochs(root):
    loaded = load(f"unpaired:{root}")
    sizes = [len(set(whole(loaded, "train")[key][:, 0, 0, 0])) for key in ("a", "b")]
    assert loaded.spec.train_size == max(sizes)
    stream = take(loaded, 4 * max(sizes), batch_size=1)
    orders = []
    for key, size in zip(("a", "b"), sizes, strict=True):
        numbers = stream[key][:, 0, 0, 0][: 3 * size].reshape(3, size)
        for epoch in numbers:  # a permutation of its own domain
            assert sorted(epoch) == sorted(numbers[0])
            assert len(set(epoch)) == size
        assert not np.array_equal(numbers[0], numbers[1])
        orders.append(numbers)


def test_domains_of_one_size_are_not_in_step(data_dir):
    loaded = load("unpaired:digits,digits", data_dir=data_dir)
    batch = take(loaded, 1, batch_size=1000)
    assert np.mean(batch["label_a"] == batch["label_b"]) < 0.2
    np.testing.assert_array_equal(whole(loaded, "test")["a"], whole(loaded, "test")["b"])


@pytest.mark.parametrize("name", ["folders", "unpaired:digits,placed_digits", "recolored_digits"])
@pytest.mark.parametrize("limit", [source.MEMORY_LIMIT_BYTES, 0])
def test_resume_and_shares(root, data_dir, name, limit, monkeypatch):
    if limit == 0 and name == "recolored_digits":
        return  # needs its rows by index
    monkeypatch.setattr(source, "MEMORY_LIMIT_BYTES", limit)
    name = f"unpaired:{root}" if name == "folders" else name
    loaded = load(name, data_dir=data_dir, image_range="symmetric",
                  jitter=Jitter(resize=(10, 12), crop=(8, 8), flip=True))  # fmt: skip
    assert loaded.spec.shapes["a"][:2] == loaded.spec.shapes["b"][:2] == (8, 8)
    unbroken = take(loaded, 20, batch_size=4)
    resumed = take(loaded, 7, batch_size=4, start_step=13)
    assert_same(resumed, {key: value[52:] for key, value in unbroken.items()})
    assert_same(take(loaded, 40, batch_size=2, replicas=2), unbroken)
    parts = [batches_of(loaded, 20, batch_size=2, worker=w, workers=2) for w in (0, 1)]
    joined = {
        key: np.concatenate([part[i][key] for i in range(20) for part in parts]) for key in unbroken
    }
    assert_same(joined, unbroken)


def test_crops_of_the_domains_differ(data_dir):
    loaded = load("unpaired:digits,digits", data_dir=data_dir)
    cropped = load("unpaired:digits,digits", data_dir=data_dir, jitter=Jitter(crop=(4, 4)))
    plain, part = (take(of, 1, batch_size=200) for of in (loaded, cropped))
    places = {}
    for key in ("a", "b"):
        places[key] = [
            [
                (top, left)
                for top, left in itertools.product(range(5), repeat=2)
                if np.array_equal(image[top : top + 4, left : left + 4], crop)
            ]
            for image, crop in zip(plain[key], part[key], strict=True)
        ]
        assert all(places[key])
    same = [set(a) & set(b) for a, b in zip(places["a"], places["b"], strict=True)]
    assert np.mean([bool(s) for s in same]) < 0.2  # 1 of 25 by chance, more where crops are blank


def test_names_and_folders_in_any_mixture(root, data_dir):
    loaded = load(f"unpaired:digits,{root}/trainB", data_dir=data_dir, image_size=5)
    assert loaded.spec.shapes == {"a": (5, 5, 1), "b": (5, 5, 1)}  # one has no labels
    assert loaded.spec.train_size == 1397
    train = whole(loaded, "train")
    assert 100 <= train["b"].min() <= train["b"].max() <= 112
    loaded = load("unpaired:digits,placed_digits", data_dir=data_dir, jitter=Jitter((16, 16)))
    assert loaded.spec.shapes["label_b"] == ()
    assert loaded.spec.num_classes == 10
    assert load(f"unpaired:folder:{root}/trainA,{root}/trainB").spec.shapes["a"] == (4, 6, 3)


def test_both_domains_come_in_range(data_dir):
    loaded = load("unpaired:digits,digits", data_dir=data_dir, image_range="symmetric")
    batch = whole(loaded, "test")
    assert loaded.spec.dtypes["a"] == loaded.spec.dtypes["b"] == "float32"
    for key in ("a", "b"):
        assert (batch[key].min(), batch[key].max()) == (-1.0, 1.0)
    binary = load("unpaired:digits,digits", data_dir=data_dir, image_range="binary")
    batch = whole(binary, "test")
    assert set(np.unique(batch["a"])) == {0.0, 1.0}
    assert not np.array_equal(batch["a"], batch["b"])  # noise of their own
    with pytest.raises(data.DataError, match="^Binarization 'fixed' is for data sets whose images "
                       "are under 'image'. Received: 'unpaired:digits,digits'; "):  # fmt: skip
        load("unpaired:digits,digits", data_dir=data_dir, image_range="binary",
             binarization="fixed")  # fmt: skip


def test_tfds_sets_of_two_domains(tmp_path):
    import tensorflow_datasets as tfds

    class ToyDomains(tfds.core.GeneratorBasedBuilder):
        """As cycle_gan has them: images of several sizes, splits trainA to testB."""

        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(None, None, 3)),
                "label": tfds.features.ClassLabel(names=["A", "B"]),
            }
            return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            counts = {"trainA": 60, "trainB": 25, "testA": 3, "testB": 5}
            return {split: self._generate_examples(split, n) for split, n in counts.items()}

        def _generate_examples(self, split, count):
            for i in range(count):
                value = i + (100 if split[-1] == "B" else 0)
                image = np.full((8 + i % 2, 8, 3), value, np.uint8)
                yield i, {"image": image, "label": split[-1]}

    where = os.fspath(tmp_path)
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    ToyDomains(data_dir=where).download_and_prepare(download_config=config)
    loaded = load("toy_domains", data_dir=where, jitter=Jitter(resize=(6, 7), crop=(5, 5)))
    spec = loaded.spec
    # The last 2% of each train split are for validation.
    assert (spec.train_size, spec.validation_size, spec.test_size) == (59, 1, 5)
    assert spec.shapes == {"a": (5, 5, 3), "b": (5, 5, 3), "label_a": (), "label_b": ()}
    test = whole(loaded, "test")
    np.testing.assert_array_equal(np.sort(test["b"][:, 0, 0, 0]), 100 + np.arange(5))
    assert set(test["a"][:, 0, 0, 0]) == {0, 1, 2}
    np.testing.assert_array_equal(test["label_a"], np.zeros(5))
    np.testing.assert_array_equal(test["label_b"], np.ones(5))
    batch = take(loaded, 12, batch_size=5)
    assert batch["a"].max() < 60
    assert batch["b"].min() >= 100
    with pytest.raises(data.DataError, match="differ in size .* give one with --image_size.$"):
        load("toy_domains", data_dir=where)


def message_of(name, **arguments):
    with pytest.raises(data.DataError) as caught:
        load(name, **arguments).train(8, seed=0)
    return str(caught.value)


def test_errors(root, tmp_path, data_dir):
    assert message_of("unpaired:a,b,c") == (
        "unpaired: takes one folder with trainA and trainB, or two folders or data sets with a "
        "comma between them. Received: unpaired:a,b,c"
    )
    assert message_of("unpaired:digits,").endswith("Received: unpaired:digits,")
    assert message_of("unpaired:digits,ring8", data_dir=data_dir) == (
        "What pairs or domains are made of needs 'image'; data set 'ring8' has point, label."
    )
    assert message_of("unpaired:digits,/no/where", data_dir=data_dir) == (
        "folder:/no/where is not a folder."
    )
    assert message_of(f"unpaired:digits,{root}/trainA", data_dir=data_dir) == (
        f"The domains of data set 'unpaired:digits,{root}/trainA' differ in size: images of a are "
        "8x8, of b 6x4; give one size with --image_size or --resize."
    )
    (tmp_path / "empty").mkdir()
    assert message_of(f"unpaired:{root}/trainA,{tmp_path}/empty").startswith(
        f"folder:{tmp_path}/empty holds no images (.png "
    )
    assert message_of("unpaired:dijits,digits", data_dir=data_dir).startswith(
        "Unknown data set 'dijits': did you mean 'digits'?"
    )
    for file in (root / "trainB").iterdir():
        file.unlink()
    assert message_of(f"unpaired:{root}") == (
        f"unpaired:{root} holds no images in trainB; it needs folders trainA and trainB, or name "
        "two folders or data sets: unpaired:A,B."
    )
    for number in range(2):
        Image.new("L", (6, 4)).save(root / "trainB" / f"{number}.png")
    assert message_of(f"unpaired:{root}") == (
        f"unpaired:{root}, domain B, holds 2 readable images for training; with validation taken "
        "out of them, they must be at least 3."
    )
    for number in range(2, 6):
        Image.new("L", (6, 4)).save(root / "trainB" / f"{number}.png")
    assert message_of(f"unpaired:{root}") == (
        "A global batch of 8 does not fit the 5 training examples of domain b; give a batch size "
        "of at most 5."
    )
    with pytest.raises(data.DataError, match="has no key 'image', it has a, b; data sets known"):
        load(f"unpaired:{root}", needs=("image",))
    with pytest.raises(data.DataError, match="known to have 'a': recolored_digits, "
                       "recolored_mnist, unpaired:A,B.$"):  # fmt: skip
        load("digits", data_dir=data_dir)


def test_bad_files_are_skipped(root):
    before = load(f"unpaired:{root}").spec
    (root / "trainA" / "zzz.png").write_text("no image")
    after = load(f"unpaired:{root}").spec
    assert (after.train_size, after.validation_size) == (before.train_size, before.validation_size)
    with pytest.raises(data.DataError, match="^Bad image '.*trainA/zzz.png': not an image that"):
        load(f"unpaired:{root}", on_bad_image="fail")
