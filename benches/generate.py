#!/usr/bin/env python3
"""Compares greedy generation with PyTorch's T5 in transformers, on this machine's CPU: `make
bench-generate`.

Both generate 256 tokens for each of some prompts of 120 tokens, with a cache of keys and values, in
float32, on all cores. The weights are random; transformers writes them and both read them. The two
take turns.
"""

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import torch
from transformers import T5Config, T5ForConditionalGeneration

MODELS = {
    "small": {"d_model": 256, "d_ff": 1024, "num_layers": 6, "num_decoder_layers": 3, "num_heads": 4},
    "base-quarter": {"d_model": 768, "d_ff": 3072, "num_layers": 12, "num_decoder_layers": 6, "num_heads": 12},
}
INPUT = 120
TOKENS = 256


def model(shape):
    config = T5Config(
        vocab_size=144,
        d_kv=64,
        relative_attention_num_buckets=64,
        dropout_rate=0.0,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        decoder_start_token_id=0,
        **shape,
    )
    torch.manual_seed(0)
    return T5ForConditionalGeneration(config).eval()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--ours", default="target/debug/examples/token_time")
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--models", default=",".join(MODELS))
    options = parser.parse_args()
    for name in options.models.split(","):
        theirs = model(MODELS[name])
        prompts = [[3 + (7 * i + 3 * row) % 20 for i in range(INPUT - 1)] + [1] for row in range(options.rows)]
        inputs = torch.tensor(prompts)
        with tempfile.TemporaryDirectory() as directory:
            theirs.save_pretrained(directory)
            rounds = []
            for _ in range(options.rounds):
                start = time.perf_counter()
                with torch.no_grad():
                    theirs.generate(inputs, do_sample=False, max_new_tokens=TOKENS, min_new_tokens=TOKENS)
                seconds = time.perf_counter() - start
                command = [options.ours, str(Path(directory)), str(options.rows), "1"]
                found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
                rounds.append((seconds, found))
        ratios = [seconds / found["seconds_of_256"] for seconds, found in rounds]
        median = lambda key: statistics.median(found[key] for _, found in rounds)
        print(
            f"{name}: {options.rows} x {TOKENS} tokens: transformers {statistics.median(s for s, _ in rounds):.2f} s, "
            f"ours {median('seconds_of_256'):.2f} s, ratio {statistics.median(ratios):.2f} "
            f"({min(ratios):.2f} to {max(ratios):.2f}); a token at 10: {1e3 * median('token_seconds_at_10'):.2f} ms, "
            f"at 200: {1e3 * median('token_seconds_at_200'):.2f} ms; compiled in {median('compile_seconds'):.1f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
