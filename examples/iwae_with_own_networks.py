"""An IWAE of your own encoder and decoder, trained by Keras' plain `compile` and `fit`."""

import keras
from sklearn.datasets import load_digits

from tfgen.models.vae.iwae import IWAE

images = (load_digits().images[..., None] > 8).astype("float32")  # [1797, 8, 8, 1] in {0, 1}

dense, flatten, reshape = (
    keras.layers.Dense,
    keras.layers.Flatten(),
    keras.layers.Reshape((8, 8, 1)),
)
encoder = keras.Sequential([keras.Input((8, 8, 1)), flatten, dense(64, "tanh"), dense(2 * 8)])
decoder = keras.Sequential([keras.Input((8,)), dense(64, "tanh"), dense(64), reshape])
model = IWAE(encoder, decoder, k=5)
model.compile(keras.optimizers.Adam(3e-3), seed=1)
history = model.fit(images, batch_size=100, epochs=10, verbose=2)

model.save("iwae.keras")
restored = keras.saving.load_model("iwae.keras")
print("samples:", restored.sample(16, seed=0).shape, "bound:", -history.history["loss"][-1], "nats")
