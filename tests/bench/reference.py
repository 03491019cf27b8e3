"""CloudMask at full size against the same network in TensorFlow, as MLCommons' reference has it; prints rows.

    python -m bench.reference ROUNDS

TensorFlow has a process of its own, which takes its turns when told to: what a run sets up for itself (threads, memory)
is not to be the peer's, nor the other way round.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
from bench.rows import Row, alternate, faster

BATCH, PATCH, CHANNELS, WIDTH = 8, 256, 9, 32
STEPS = 2
"""In each block; blocks take turns."""


def keras_step():
    """One step of the U-Net by Keras: Adam, binary cross-entropy, float32, compiled into a graph."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf
    from keras import Input, Model, layers, losses, optimizers

    threads = len(os.sched_getaffinity(0))
    tf.config.threading.set_intra_op_parallelism_threads(threads)

    def double(x, channels: int):
        for _ in range(2):
            x = layers.Conv2D(channels, 3, padding="same", activation="relu", kernel_initializer="he_normal")(x)
        return x

    x = image = Input((PATCH, PATCH, CHANNELS))
    skips = []
    for k in range(3):
        skips.append(double(x, WIDTH << k))
        x = layers.MaxPooling2D(2)(skips[-1])
    x = double(x, WIDTH << 3)
    for k in (2, 1, 0):
        x = double(layers.Concatenate()([layers.UpSampling2D(2)(x), skips[k]]), WIDTH << k)
    model = Model(image, layers.Conv2D(1, 1, activation="sigmoid")(x))
    assert model.count_params() == 1_948_609
    update, criterion = optimizers.Adam(1e-3), losses.BinaryCrossentropy()
    update.build(model.trainable_variables)
    random = np.random.default_rng(1)
    images = tf.constant(random.standard_normal((BATCH, PATCH, PATCH, CHANNELS), np.float32))
    truth = tf.constant(random.integers(0, 2, (BATCH, PATCH, PATCH, 1)).astype(np.float32))

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            loss = criterion(truth, model(images, training=True))
        update.apply_gradients(
            zip(tape.gradient(loss, model.trainable_variables), model.trainable_variables, strict=True)
        )
        return loss

    return lambda: [float(step()) for _ in range(STEPS)]


def our_step(precision: str):
    """One step of the benchmark as a run does it, on data in memory."""
    from contextlib import nullcontext

    import torch

    from sciml_hpc import benchmarks
    from sciml_hpc.benchmarks.base import SampleField
    from sciml_hpc.config import resolve
    from sciml_hpc.training import optimizer
    from sciml_hpc.training.forward import forward

    (kind,) = benchmarks.classes("cloudmask")
    config, _ = resolve(kind, preset="full")
    fields = (
        SampleField("image", (CHANNELS, PATCH, PATCH), "float32", "1", ""),
        SampleField("mask", (PATCH, PATCH), "uint8", "1", ""),
    )
    benchmark = kind(config.train, fields)
    model = benchmark.model()
    update = optimizer.build(config.train, model)
    batch = {"image": torch.randn(BATCH, *fields[0].shape), "mask": torch.randint(0, 2, (BATCH, PATCH, PATCH)).byte()}
    autocast = torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else nullcontext()

    def step() -> None:
        for _ in range(STEPS):
            update.zero_grad()
            with autocast:
                loss = benchmark.loss(forward(benchmark, model, batch), batch)
            loss.backward()
            update.step()
            float(loss.detach())

    return step


def peer() -> None:
    """TensorFlow's turns: a block of steps for each line read, and a line when it is done."""
    step = keras_step()
    for _ in sys.stdin:
        step()
        print("done", flush=True)


def main(rounds: int) -> None:
    """Print the rows; bf16 takes part where the processor has the instructions (elsewhere it is emulated, slowly)."""
    import torch

    from sciml_hpc.parallel import device as devices
    from sciml_hpc.parallel.world import join

    devices.choose(join())
    kinds = ["fp32", "bf16"] if torch.ops.mkldnn._is_mkldnn_bf16_supported() else ["fp32"]
    command = [sys.executable, "-m", "bench.reference", "peer"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

        def tensorflow() -> None:
            process.stdin.write("\n")
            process.stdin.flush()
            if process.stdout.readline() != "done\n":
                raise RuntimeError("the process with TensorFlow has ended")

        seconds = alternate(rounds, tensorflow=tensorflow, **{kind: our_step(kind) for kind in kinds})
        process.stdin.close()
    rates = {f"{name}_samples_per_s": BATCH * STEPS / float(np.median(spent)) for name, spent in seconds.items()}
    rows = [
        Row(f"CloudMask, full size, {kind}", "reference's network in TensorFlow, fp32",
            faster(seconds[kind], seconds["tensorflow"]), ("≥", {"fp32": 1.0, "bf16": 2.2}[kind]), figures=rates)
        for kind in kinds
    ]  # fmt: skip
    print("ROWS " + json.dumps([vars(row) for row in rows]), flush=True)


if __name__ == "__main__":
    peer() if sys.argv[1] == "peer" else main(int(sys.argv[1]))
