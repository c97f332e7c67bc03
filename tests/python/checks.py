"""Shared by the checks of exported models: the expected tokenizer, and how logits are compared."""

import random
import sys

import numpy as np

RESIDUES = "ALGVSREDTIPKFQNYMHWCXBOUZ"
FIRST_RESIDUE, SENTINELS, VOCABULARY = 3, 116, 144
TOLERANCE = 1e-5


def check(condition, message):
    if not condition:
        sys.exit(f"{sys.argv[0]}: {message}")


def check_logits(what, expected, found):
    error = np.abs(expected - found).max() / np.abs(expected).max()
    check(error <= TOLERANCE, f"{what}: logits differ by {error:.1e} of the largest, more than {TOLERANCE:.0e}")
    return error


def random_batch():
    generator = np.random.default_rng(0)
    rows, inputs, targets = 3, 48, 24
    batch = {
        "input_ids": generator.integers(FIRST_RESIDUE, VOCABULARY, (rows, inputs)),
        "attention_mask": np.ones((rows, inputs)),
        "decoder_input_ids": generator.integers(FIRST_RESIDUE, VOCABULARY, (rows, targets)),
        "labels": generator.integers(FIRST_RESIDUE, VOCABULARY, (rows, targets)),
    }
    return {name: value.astype(np.int32) for name, value in batch.items()}


def check_tokenizer(directory):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(directory)
    identifiers = {letter: FIRST_RESIDUE + place for place, letter in enumerate(RESIDUES)}
    identifiers |= {f"<extra_id_{i}>": VOCABULARY - 1 - i for i in range(SENTINELS)}
    identifiers |= {"<pad>": 0, "</s>": 1, "<unk>": 2}
    check(tokenizer.get_vocab() == identifiers, f"{directory}: the tokenizer's vocabulary is another")
    check(len(tokenizer) == VOCABULARY, f"{directory}: the tokenizer has {len(tokenizer)} tokens")
    special = (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id, tokenizer.mask_token_id)
    check(special == (0, 1, 2, VOCABULARY - 1), f"{directory}: pad, eos, unk and mask are {special}")

    generator = random.Random(0)
    for _ in range(1000):
        names = generator.choices([*RESIDUES, "<extra_id_0>", "<extra_id_115>"], k=generator.randrange(1, 200))
        expected = [identifiers[name] for name in names]
        text = "".join(names)
        check(tokenizer(text).input_ids == [*expected, 1], f"{directory}: other ids for {text}")
        check(tokenizer(names, is_split_into_words=True).input_ids == [*expected, 1], f"{directory}: other ids for {names}")
        check(tokenizer(text, add_special_tokens=False).input_ids == expected, f"{directory}: other ids for {text} alone")
        check(tokenizer.decode(expected) == text, f"{directory}: {text} comes back as {tokenizer.decode(expected)}")
    batch = tokenizer(["MKV", "MJ V*"], padding=True)
    check(batch["input_ids"] == [[19, 14, 6, 1, 0], [19, 2, 6, 2, 1]], f"{directory}: a batch is {batch['input_ids']}")
    check(set(batch) == {"input_ids", "attention_mask"}, f"{directory}: the tokenizer returns {sorted(batch)}")
