"""Masked batches a second from the Parquet that `pretrain prepare` wrote: ours and its peers.

    python benches/data_peers.py DIRECTORY [--seconds 10] [--ours EXAMPLE]

Each peer makes batches of one global batch size from the same files, for the given seconds after
its set-up:

- `pyarrow`: PyArrow reads the files in order. NumPy masks every sequence with Ankh's objective and
  pads it. No shuffle.
- `grain`: Grain shuffles the sequences globally (all in memory), masks them with the same function,
  and packs them first-fit.
- `t5-flax`: the recipe of transformers' `run_t5_mlm_flax.py`, as NumPy. All sequences are
  concatenated and cut into pieces. Each piece gets T5 span corruption with a random noise mask.
  Batches are drawn in random order from memory.

Prints one JSON object a line: who, sequences and input tokens a second, and the share of encoder
positions that are not padding. With `--ours`, this project is measured first: packed, padded, and
packed from pages that do not fit in memory.
"""

import argparse
import itertools
import json
import pathlib
import subprocess
import time

import numpy as np

INPUT, TARGET, BATCH = 512, 256, 1024
EOS, FIRST_SENTINEL = 1, 143  # sentinels descend from here
BY_PAGES = "100000000"  # bytes of memory that the data does not fit
RATE, SPAN = 0.2, 3.0


def files(directory):
    """The training files, in order."""
    manifest = json.loads((directory / "manifest.json").read_text())
    return [directory / f["path"] for f in manifest["files"] if f["split"] == "train"]


def sequences(directory):
    """Every training sequence as an array of token ids, in order."""
    import pyarrow.parquet as pq

    for path in files(directory):
        for batch in pq.ParquetFile(path).iter_batches(columns=["tokens"]):
            for value in batch.column(0):
                yield np.frombuffer(value.as_buffer(), np.uint8)


def mask(tokens, rng):
    """Ankh's objective: a fifth of the residues masked, a sentinel for each unmasked run."""
    tokens = tokens[: INPUT - 1]
    n = len(tokens)
    hidden = np.zeros(n, bool)
    hidden[rng.permutation(n)[: int(RATE * n + 0.5)]] = True
    number = np.cumsum(hidden) - 1
    source = np.where(hidden, FIRST_SENTINEL - number, tokens)
    starts = ~hidden & np.concatenate([[True], hidden[:-1]])
    run = np.cumsum(starts) - 1
    target = np.where(hidden, tokens, FIRST_SENTINEL - run)[hidden | starts]
    return np.append(source, EOS), np.append(target, EOS)


def padded(examples):
    """Examples as arrays `[batch, length]`; also how many input tokens they have."""
    inputs = np.zeros((len(examples), INPUT), np.int32)
    labels = np.full((len(examples), TARGET), -100, np.int32)
    for row, (source, target) in enumerate(examples):
        inputs[row, : len(source)] = source
        labels[row, : len(target)] = target[:TARGET]
    decoder = np.zeros_like(labels)
    decoder[:, 1:] = np.maximum(labels[:, :-1], 0)
    return inputs, labels, decoder, sum(len(source) for source, _ in examples)


def timed(batches, seconds):
    """Takes batches for so many seconds; each is (sequences, tokens, positions)."""
    begin = time.perf_counter()
    total = np.zeros(3)
    for batch in batches:
        total += batch
        if time.perf_counter() - begin > seconds:
            break
    elapsed = time.perf_counter() - begin
    return {
        "sequences_per_second": round(total[0] / elapsed),
        "tokens_per_second": round(total[1] / elapsed),
        "encoder_fill": round(total[1] / total[2], 4),
    }


def by_pyarrow(directory, seconds):
    rng = np.random.default_rng(0)

    def batches():
        rows = sequences(directory)
        while chunk := list(itertools.islice(rows, BATCH)):
            tokens = padded([mask(row, rng) for row in chunk])[3]
            yield len(chunk), tokens, len(chunk) * INPUT

    return timed(batches(), seconds)


def by_grain(directory, seconds):
    import grain

    class Mask(grain.transforms.RandomMap):
        def random_map(self, row, rng):
            source, target = mask(row, rng)
            return {"inputs": source, "targets": target[:TARGET]}

    rows = list(sequences(directory))
    data = grain.MapDataset.source(rows).shuffle(seed=0).repeat().random_map(Mask(), seed=0).to_iter_dataset()
    packed = grain.experimental.FirstFitPackIterDataset(
        data, length_struct={"inputs": INPUT, "targets": TARGET}, num_packing_bins=64
    )

    def batches():
        for batch in packed.batch(BATCH):
            # Grain gives (features); segment ids count from 1 in each row.
            segments = batch["inputs_segment_ids"]
            yield segments.max(axis=1).sum(), np.count_nonzero(segments), segments.size

    return timed(batches(), seconds)


def noise_mask(length, rng):
    """T5's random spans: as many masked as unmasked pieces, alternating, an unmasked one first."""
    noise = min(max(round(length * RATE), 1), length - 1)
    spans = max(round(noise / SPAN), 1)

    def pieces(total):
        cuts = np.sort(rng.permutation(total - 1)[: spans - 1]) + 1
        return np.diff(np.concatenate([[0], cuts, [total]]))

    lengths = np.stack([pieces(length - noise), pieces(noise)], axis=1).ravel()
    return np.repeat(np.arange(2 * spans) % 2 == 1, lengths)


def corrupted(tokens, hidden):
    """A piece whose masked spans are each one sentinel, `</s>` at its end."""
    starts = hidden & ~np.concatenate([[False], hidden[:-1]])
    with_sentinels = np.where(starts, FIRST_SENTINEL + 1 - np.cumsum(starts), tokens)
    return np.append(with_sentinels[~hidden | starts], EOS)


def lengths_of(length):
    """Input and target tokens that a piece of `length` tokens becomes."""
    noise = round(length * RATE)
    spans = round(noise / SPAN)
    return length - noise + spans + 1, noise + spans + 1


def by_t5_flax(directory, seconds):
    rng = np.random.default_rng(0)
    piece = INPUT
    while lengths_of(piece + 1)[0] <= INPUT:
        piece += 1
    inputs, _ = lengths_of(piece)
    count, parts = 0, []
    for row in sequences(directory):
        count += 1
        parts.append(row)
        parts.append(np.array([EOS], np.uint8))
    tokens = np.concatenate(parts)
    pieces = tokens[: len(tokens) // piece * piece].reshape(-1, piece)
    of_a_piece = count / len(pieces)

    def batches():
        while True:
            order = rng.permutation(len(pieces))
            for first in range(0, len(order) - BATCH + 1, BATCH):
                rows = pieces[order[first : first + BATCH]]
                masks = [noise_mask(piece, rng) for _ in rows]
                padded([(corrupted(r, m), corrupted(r, ~m)) for r, m in zip(rows, masks)])
                yield BATCH * of_a_piece, BATCH * inputs, BATCH * INPUT

    return timed(batches(), seconds)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=pathlib.Path)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--ours", type=pathlib.Path, help="the built example `throughput`")
    arguments = parser.parse_args()
    for how in [["packed"], ["padded"], ["packed", BY_PAGES]] if arguments.ours else []:
        rows, *memory = how
        print(f"this project, {rows}{', read by pages' if memory else ''}", flush=True)
        subprocess.run([arguments.ours, arguments.directory, rows, "0", str(int(arguments.seconds)), *memory], check=True)
    for name, peer in [("pyarrow", by_pyarrow), ("grain", by_grain), ("t5-flax", by_t5_flax)]:
        figures = peer(arguments.directory, arguments.seconds)
        print(json.dumps({"name": name} | figures), flush=True)


if __name__ == "__main__":
    main()
