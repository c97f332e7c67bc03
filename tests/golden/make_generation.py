#!/usr/bin/env python3
"""Makes tests/golden/generation: small models, and what PyTorch's T5 of transformers 4.57 generates.

    make goldens                               or, in an environment with PyTorch,
    python3 tests/golden/make_generation.py

For each case, <case>/hf with the weights, and in expected.json 20 prompts, and of each the tokens
by greedy search and by two beam searches, with the scores of the beams. Prompts are encoder inputs.
Tokens are without the decoder's start and up to `</s>`.
"""

import json
from pathlib import Path

import numpy as np
import torch
from transformers import T5Config, T5ForConditionalGeneration

HERE = Path(__file__).resolve().parent / "generation"
# Each case: the output projection, and the activation.
CASES = {"untied": (False, "gated-gelu"), "tied": (True, "gated-silu")}
PROMPTS = 20
GREEDY = 48
SCALE = 1.5
HEAD = {False: 0.4, True: 0.8}
ENDS = {False: 2.5, True: 2.5}
BEAMS = {
    "beams": {"num_beams": 4, "num_return_sequences": 2, "max_new_tokens": 24},
    "early": {
        "num_beams": 3,
        "num_return_sequences": 1,
        "max_new_tokens": 40,
        "early_stopping": True,
        "length_penalty": 0.5,
    },
}


def trimmed(tokens):
    """Without the start token, up to the end."""
    tokens = tokens[1:]
    return tokens[: tokens.index(1) + 1] if 1 in tokens else tokens


def weights(name):
    """Random ones whose logits are close together, but for that of `</s>`, so that beams change
    places and sequences end."""
    tied, activation = CASES[name]
    torch.manual_seed(len(name))
    config = T5Config(
        vocab_size=144,
        d_model=16,
        d_kv=8,
        d_ff=32,
        num_layers=2,
        num_decoder_layers=2,
        num_heads=3,
        relative_attention_num_buckets=64,
        relative_attention_max_distance=128,
        dropout_rate=0.0,
        feed_forward_proj=activation,
        tie_word_embeddings=tied,
        decoder_start_token_id=0,
        pad_token_id=0,
        eos_token_id=1,
    )
    model = T5ForConditionalGeneration(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(SCALE)
        head = model.get_output_embeddings().weight
        head.mul_(HEAD[tied])
        head[1] *= ENDS[tied]
    return model


def case(name):
    model = weights(name)
    model.save_pretrained(HERE / name / "hf")
    random = np.random.default_rng(len(name))
    rows = []
    for i in range(PROMPTS):
        length = 4 + 2 * i
        prompt = [*random.integers(3, 28, length).tolist(), 1]
        inputs = torch.tensor([prompt])
        row = {"prompt": prompt}
        with torch.no_grad():
            row["greedy"] = trimmed(model.generate(inputs, do_sample=False, num_beams=1, max_new_tokens=GREEDY)[0].tolist())
            for key, options in BEAMS.items():
                found = model.generate(
                    inputs, do_sample=False, return_dict_in_generate=True, output_scores=True, **options
                )
                row[key] = [trimmed(tokens) for tokens in found.sequences.tolist()]
                row[f"{key}_scores"] = [round(score, 6) for score in found.sequences_scores.tolist()]
        rows.append(row)
    return rows


def main():
    torch.manual_seed(0)
    cases = {name: case(name) for name in CASES}
    lines = [
        f'  {json.dumps(name)}: [\n' + ",\n".join("    " + json.dumps(row) for row in rows) + "\n  ]"
        for name, rows in cases.items()
    ]
    (HERE / "expected.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
    for name, rows in cases.items():
        ended = sum(1 in row["greedy"] for row in rows)
        lengths = [len(b) for row in rows for b in row["beams"] + row["early"]]
        print(name, "greedy ended", ended, "beam lengths", sorted(lengths))


if __name__ == "__main__":
    main()
