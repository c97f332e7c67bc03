#!/usr/bin/env python3
"""Compiles our step and its peers' for a TPU slice, and prints their cycles as a table.

    make bench-tpu

Every program is compiled by the same libtpu, one after the other. Cycles are the compiler's
estimates, and for kernels its schedules. What chips send is in none of them.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
CLOCK, PEAK = 1.05e9, 275e12

# A slice with 32 sequences a chip: layers of encoder and decoder, rows, the peers that compile in
# minutes, and how ours is laid out. Hugging Face's model does not loop over its layers.
DEPTHS = {
    "shallow": ("v4-8", 4, 2, 128, ["flax", "plain", "tuned", "kernels"], {"sharding.fsdp": 4}),
    "ankh-large": ("v4-64", 48, 24, 1024, ["plain", "tuned", "kernels"], {"sharding.fsdp": 32}),
}
NAMES = {
    "flax": "Hugging Face's Flax T5, everything recomputed",
    "plain": "JAX, everything recomputed",
    "tuned": "JAX, attention's derivative by hand, its operands and results saved",
    "kernels": "JAX, attention by Pallas kernels, its operands and results saved",
}


def run(command, environment):
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=HERE.parent, env=os.environ | environment)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))} failed with exit code {done.returncode}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def peer(name, slice_, encoder, decoder, rows, target):
    layers = ["--encoder-layers", encoder, "--decoder-layers", decoder]
    sizes = ["--slice", slice_, "--batch", rows, "--target-length", target]
    command = [sys.executable, HERE / "peers_tpu.py", "--peer", name, *map(str, sizes + layers)]
    found = run(command, {"TPU_LIBRARY_PATH": str(HERE.parent / "plugins/tpu/libtpu.so")})
    return found["cycles"], found["kernel_cycles"], found["peak_bytes"], found["compile_seconds"]


def ours(slice_, encoder, decoder, rows, target, settings):
    settings = settings | {
        "model.encoder_layers": encoder,
        "model.decoder_layers": decoder,
        "train.batch_size": rows,
        "data.target_length": target,
    }
    command = ["target/debug/pretrain", "plan", "--slice", slice_, "--config", "ankh-large", "--json"]
    for key, value in settings.items():
        command += ["--set", f"{key}={value}"]
    plan = run(command, {})
    kernels = sum(kernel["cycles"] for kernel in plan["profile"]["kernels"])
    compiled = plan["compiled"]["seconds"]
    return (plan["estimate"]["cycles"], kernels, plan["memory"]["peak"], compiled), plan["model_flops"]


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--depth", nargs="+", choices=DEPTHS, default=["shallow"])
    arguments.add_argument("--target-length", type=int, default=256)
    arguments = arguments.parse_args()
    for depth in arguments.depth:
        slice_, encoder, decoder, rows, peers, layout = DEPTHS[depth]
        shape = (slice_, encoder, decoder, rows, arguments.target_length)
        full = {"sharding.fsdp": 1, "train.remat": "full"}
        saved = {"train.remat": "named", "train.gradient_accumulation": 2} | layout
        results = {NAMES[name]: peer(name, *shape) for name in peers}
        results["ours, everything recomputed"], flops = ours(*shape, full)
        results["ours, results of products saved, in two parts"], _ = ours(*shape, saved)
        chips = int(slice_.split("-")[1]) // 2
        print(f"{encoder} + {decoder} layers, {rows} rows of 512 + {arguments.target_length} on {slice_}\n")
        print("| | M cycles | of these kernels | MFU | peak, GiB | compiled in, s |\n|---|---|---|---|---|---|")
        for name, (cycles, kernels, peak, seconds) in results.items():
            mfu = 100 * flops / (cycles / CLOCK * chips * PEAK)
            memory = f"{peak / 2**30:.1f}" if peak else "-"
            print(f"| {name} | {cycles / 1e6:.1f} | {kernels / 1e6:.1f} | {mfu:.1f} % | {memory} | {seconds:.0f} |")
        print(flush=True)


main()
