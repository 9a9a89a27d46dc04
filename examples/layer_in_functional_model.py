"""A tfgen layer inside an ordinary functional Keras model: a VAE without any tfgen model."""

import keras
from sklearn.datasets import load_digits

from tfgen.layers.gaussian_sampling import GaussianSampling

images = load_digits().images.reshape(-1, 64).astype("float32") / 16  # [1797, 64] in [0, 1]

x = inputs = keras.Input((64,))
x = keras.layers.Dense(64, "relu")(x)
x = keras.layers.Dense(2 * 8)(x)
x = GaussianSampling(kl_weight=1 / 64, seed=1)(x)  # Keras' loss is a mean over 64 pixels
x = keras.layers.Dense(64, "relu")(x)
model = keras.Model(inputs, keras.layers.Dense(64, "sigmoid")(x))
model.compile("adam", loss="binary_crossentropy")
history = model.fit(images, images, batch_size=100, epochs=10, verbose=2)
print("loss:", history.history["loss"][0], "->", history.history["loss"][-1])
