#!/usr/bin/env python3
"""Turns the data of four packages into benchmarks' files in their public formats.

    make benchmark-data            or
    python3 tests/python/benchmark_data.py PACKAGES SAMPLE OUTPUT

Writes, in OUTPUT:

- ts50_q3.fasta: three states of the residues of TS50's 50 chains, as MDAnalysis has them of DSSP.
  Without a split: for cross-validation.
- ts50_contacts.jsonl: positions of their beta carbons, in angstrom; of alpha carbons for glycine and
  for two residues whose beta carbon is not resolved. The sequence is that of the resolved residues:
  gaps in a chain are closed.
- localisation.fasta: 13 places in the cell, in the homology-reduced split of p-scldata.
- cr6261.csv: affinity of 2,048 variants of an antibody to influenza's haemagglutinin H1.
- solubility.fasta (SOLpro) and disorder.fasta (1: in a long disordered region).
- pretraining.fasta: sequences for pre-training, none of which is in what is measured.

The last three benchmarks are published without a split: a fifth of them is for tests, and a tenth of
the rest for validation, by the SHA-256 of the seed and the sequence. Counts are checked.
"""

import collections
import csv
import gzip
import hashlib
import io
import json
import pathlib
import sys
import tarfile
import zipfile

SEED = 7
# A sequence with as long a stretch of one that is measured is not for pre-training.
STRETCH = 30
# Pairs that are nearer in the sequence are no contacts.
SEPARATION = 6
TOUCHING = 8.0

LETTERS = dict(
    ALA="A", ARG="R", ASN="N", ASP="D", CYS="C", GLN="Q", GLU="E", GLY="G", HIS="H", ILE="I",
    LEU="L", LYS="K", MET="M", PHE="F", PRO="P", SER="S", THR="T", TRP="W", TYR="Y", VAL="V",
)

HELD_OUT = set()


def main():
    packages, sample, output = map(pathlib.Path, sys.argv[1:])
    ts50(tarfile.open(next(packages.glob("mdanalysistests-*.tar.gz"))), output)
    trained = localisation(tarfile.open(next(packages.glob("p_scldata-*.tar.gz"))), output)
    cr6261(zipfile.ZipFile(next(packages.glob("ewht-*.whl"))), output)
    trained += labelled(zipfile.ZipFile(next(packages.glob("aaanalysis-*.whl"))), output)
    trained += [sequence for _, sequence in fasta(gzip.open(sample, "rt"))]
    pretraining(trained, output)


def ts50(archive, output):
    members = {member.name: member for member in archive if "/data/dssp/" in member.name}
    states, positions = [], []
    residues = touching = 0
    for name, member in sorted(members.items()):
        if not name.endswith(".pdb.dssp"):
            continue
        chain = name.rsplit("/", 1)[-1].removesuffix(".pdb.dssp")
        line = archive.extractfile(member).read().decode().split()[0]
        pdb = archive.extractfile(members[name.removesuffix(".dssp") + ".gz"]).read()
        sequence, points = structure(gzip.decompress(pdb).decode())
        assert len(sequence) == len(line) and set(line) <= set("HE-"), chain
        states.append((f"{chain} TARGET={line.replace('-', 'C')}", sequence))
        record = dict(id=chain, primary=sequence, tertiary=points)
        record["valid_mask"] = [point is not None for point in points]
        positions.append(json.dumps(record, separators=(",", ":")) + "\n")
        residues += len(sequence)
        touching += contacts(points)
        HELD_OUT.add(sequence)
    check("TS50: chains, residues, contacts", (len(states), residues, touching), (50, 6860, 14091))
    write_fasta(output / "ts50_q3.fasta", states)
    (output / "ts50_contacts.jsonl").write_text("".join(positions))


def structure(pdb):
    """The sequence, and the position that stands for each residue."""
    residues = {}
    for line in pdb.splitlines():
        if line.startswith("ATOM"):
            atoms = residues.setdefault(line[21:27], (LETTERS[line[17:20]], {}))[1]
            atoms[line[12:16].strip()] = [float(line[at : at + 8]) for at in (30, 38, 46)]
    points = []
    for letter, atoms in residues.values():
        points.append(atoms.get("CA" if letter == "G" else "CB", atoms.get("CA")))
    return "".join(letter for letter, _ in residues.values()), points


def contacts(points):
    count = 0
    for i, first in enumerate(points):
        for second in points[i + SEPARATION :]:
            if first and second:
                squares = sum((a - b) ** 2 for a, b in zip(first, second))
                count += squares**0.5 < TOUCHING
    return count


def localisation(archive, output):
    def data(name):
        names = [member for member in archive.getnames() if member.endswith("/data/" + name)]
        return archive.extractfile(names[0]).read().decode()

    places = json.loads(data("labels.json"))["index_to_label"]
    entries = json.loads(data("entries.json"))
    splits = json.loads(data("splits.json"))
    rows = {row["entry"]: row for row in csv.DictReader(io.StringIO(data("scl2205.csv")))}
    records, trained = [], []
    for split, name in (("trn", "train"), ("vld", "val"), ("tst", "test")):
        for index in splits[split]:
            row = rows[entries[str(index)]]
            place = places[row["scl"]].replace(" ", "_")
            records.append((f"{row['entry']} SET={name} TARGET={place}", row["seq"]))
            if name == "train":
                trained.append(row["seq"])
            else:
                HELD_OUT.add(row["seq"])
    sets = tuple(len(splits[split]) for split in ("trn", "vld", "tst"))
    check("localisation: classes, train, val, test", (len(places), *sets), (13, 15183, 1260, 2631))
    write_fasta(output / "localisation.fasta", records)
    return trained


def cr6261(archive, output):
    text = archive.read("ewht/example_data/cr6261_h1_mean.csv").decode()
    rows = list(csv.DictReader(io.StringIO(text)))
    sets = split([row["mutated_sequence"] for row in rows])
    with open(output / "cr6261.csv", "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["sequence", "target", "set", "validation"])
        for row in rows:
            name = sets[row["mutated_sequence"]]
            part = "test" if name == "test" else "train"
            writer.writerow([row["mutated_sequence"], row["fitness"], part, name == "val"])
    HELD_OUT.update(sets)
    check("CR6261: variants", (len(sets),), (2048,))
    print("  ", count(sets[row["mutated_sequence"]] for row in rows))


def labelled(archive, output):
    trained = []
    for table, name, expected in (
        ("SEQ_SOLUBLE", "solubility", 17408),
        ("AA_LDR", "disorder", 342),
    ):
        text = archive.read(f"aaanalysis/_data/benchmarks/{table}.tsv").decode()
        rows = list(csv.DictReader(io.StringIO(text), delimiter="\t"))
        check(f"{name}: proteins", (len(rows),), (expected,))
        # What is there twice is kept once, and left out where the labels differ.
        labels = collections.defaultdict(set)
        for row in rows:
            labels[row["sequence"]].add(row["label"].replace(",", ""))
        sets = split(sequence for sequence, found in labels.items() if len(found) == 1)
        records, done = [], set()
        for row in rows:
            sequence = row["sequence"]
            if sequence in sets and sequence not in done:
                done.add(sequence)
                (label,) = labels[sequence]
                records.append((f"{row['entry']} SET={sets[sequence]} TARGET={label}", sequence))
        write_fasta(output / f"{name}.fasta", records)
        twice = sum(len(found) > 1 for found in labels.values())
        print(f"   {len(records)} different, {twice} left out with two labels;", count(sets.values()))
        HELD_OUT.update(sequence for sequence, part in sets.items() if part != "train")
        trained += [sequence for sequence, part in sets.items() if part == "train"]
    return trained


def split(sequences):
    """The set of each sequence."""

    def key(sequence):
        return hashlib.sha256(f"{SEED} {sequence}".encode()).digest()

    ordered = sorted(set(sequences), key=key)
    tests = len(ordered) // 5
    validation = (len(ordered) - tests) // 10
    names = ["test"] * tests + ["val"] * validation
    names += ["train"] * (len(ordered) - len(names))
    return dict(zip(ordered, names))


def pretraining(sequences, output):
    stretches = set()
    for sequence in HELD_OUT:
        stretches.update(hash(piece) for piece in pieces(sequence))
    kept = [one for one in dict.fromkeys(sequences) if stretches.isdisjoint(map(hash, pieces(one)))]
    write_fasta(output / "pretraining.fasta", [(f"p{at}", one) for at, one in enumerate(kept)])
    different = len(set(sequences))
    residues = sum(map(len, kept))
    print(f"pre-training: {len(kept)} of {different} sequences, {residues} residues; the others have")
    print(f"   a stretch of {STRETCH} residues of one of {len(HELD_OUT)} that are measured")


def pieces(sequence):
    """All stretches, or the whole of a shorter sequence."""
    return (sequence[at : at + STRETCH] for at in range(max(1, len(sequence) - STRETCH + 1)))


def fasta(file):
    header, parts = None, []
    for line in file:
        if line.startswith(">"):
            if header is not None:
                yield header, "".join(parts)
            header, parts = line[1:].strip(), []
        else:
            parts.append(line.strip())
    if header is not None:
        yield header, "".join(parts)


def write_fasta(path, records):
    path.write_text("".join(f">{header}\n{sequence}\n" for header, sequence in records))


def count(names):
    counts = collections.Counter(names)
    return ", ".join(f"{name} {counts[name]}" for name in ("train", "val", "test"))


def check(what, found, expected):
    print(f"{what}: {', '.join(f'{number:,}' for number in found)}")
    if found != expected:
        sys.exit(f"{what}: expected {expected} and found {found}: is it another version?")


main()
