"""Writes tables as other programs do, for the tests that read them.

    write_tables.py DIRECTORY

expected.tsv has the ids and sequences that every table under tables/ holds, in its order. What the
other directories hold, the tests say.
"""

import base64
import random
import sys
from pathlib import Path

import pandas
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.orc as orc
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as encryption

ROWS = 1500
LETTERS = "ACDEFGHIKLMNPQRSTVWYXBOUZ"


class Keys(encryption.KmsClient):
    """Hides keys in no way."""

    def __init__(self, _):
        super().__init__()

    def wrap_key(self, key, _):
        return base64.b64encode(key)

    def unwrap_key(self, key, _):
        return base64.b64decode(key)


def main(root: Path) -> None:
    rng = random.Random(8)

    def draw() -> str:
        return "".join(rng.choices(LETTERS, k=rng.randint(1, 120)))

    # Some are repeated, so that dictionaries pay.
    few = [draw() for _ in range(50)]
    sequences = [rng.choice(few) if rng.random() < 0.3 else draw() for _ in range(ROWS)]
    ids = [f"P{number:05}" for number in range(ROWS)]
    root.mkdir(parents=True, exist_ok=True)
    lines = (f"{id}\t{sequence}\n" for id, sequence in zip(ids, sequences))
    (root / "expected.tsv").write_text("".join(lines))

    tables = root / "tables"
    tables.mkdir(exist_ok=True)
    table = pa.table({"id": ids, "sequence": sequences})

    # Codecs, versions and encodings, each with several groups and pages.
    small = {"row_group_size": 400, "data_page_size": 2000}
    codecs = ["none", "snappy", "gzip", "brotli", "lz4", "zstd"]
    for codec in codecs:
        pq.write_table(table, tables / f"{codec}.parquet", compression=codec, **small)
        pq.write_table(
            table, tables / f"{codec}_v2.parquet", compression=codec, data_page_version="2.0", **small
        )
    pq.write_table(table, tables / "default.parquet")
    pq.write_table(
        table, tables / "mixed.parquet", compression={"id": "gzip", "sequence": "brotli"}, **small
    )
    for encoding in ["PLAIN", "DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY"]:
        columns = {"id": encoding, "sequence": encoding}
        name = tables / f"{encoding.lower()}.parquet"
        pq.write_table(table, name, use_dictionary=False, column_encoding=columns)
    pq.write_table(table, tables / "checksums.parquet", write_page_checksum=True)
    pq.write_table(table, tables / "no_schema.parquet", store_schema=False)
    pq.write_table(table, tables / "no_statistics.parquet", write_statistics=False)

    # Every type that text may have.
    types = {
        "string": pa.string(),
        "large_string": pa.large_string(),
        "string_view": pa.string_view(),
        "binary": pa.binary(),
        "large_binary": pa.large_binary(),
        "binary_view": pa.binary_view(),
    }
    for name, kind in types.items():
        columns = {"id": pa.array(ids, kind), "sequence": pa.array(sequences, kind)}
        pq.write_table(pa.table(columns), tables / f"{name}.parquet")
    for name, kind in [("string", pa.string()), ("large_string", pa.large_string())]:
        columns = [pa.array(column, kind).dictionary_encode() for column in (ids, sequences)]
        columns = pa.table(columns, ["id", "sequence"])
        pq.write_table(columns, tables / f"dictionary_of_{name}.parquet")

    # Other columns before, between and behind.
    columns = {
        "embedding": pa.array([[1.5, 2.5]] * ROWS),
        "taxon": pa.array([{"id": 9606, "sequence": "human"}] * ROWS),
        "Accession": ids,
        "date": pa.array([0] * ROWS, pa.date32()),
        "Sequence": sequences,
        "length": [len(sequence) for sequence in sequences],
        "nothing": pa.nulls(ROWS),
    }
    pq.write_table(pa.table(columns), tables / "between_others.parquet")

    # As pandas does it.
    frame = pandas.DataFrame({"id": ids, "sequence": sequences})
    frame.to_parquet(tables / "pandas.parquet")
    frame.set_index("id").to_parquet(tables / "pandas_index.parquet")
    frame.assign(x=1).sample(frac=1, random_state=1).sort_index().to_parquet(
        tables / "pandas_kept_index.parquet", index=True
    )
    frame.astype("category").to_parquet(tables / "pandas_category.parquet")
    frame.astype(object).to_parquet(tables / "pandas_object.parquet")
    frame.to_csv(tables / "pandas.csv")
    frame.to_csv(tables / "pandas.tsv.gz", sep="\t", index=False)

    # Numbers, nulls and blanks as ids.
    named = root / "ids"
    named.mkdir(exist_ok=True)
    four = ["MKL", "MKV", "MKA", "MKC"]
    numbers = [7, None, -3, 12345678]
    for kind in ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]:
        kind_of = pa.type_for_alias(kind)
        least = 0 if kind.startswith("u") else -128
        fits = [n if n is None or least <= n < 128 else 99 for n in numbers]
        columns = {"id": pa.array(fits, kind_of), "seq": four}
        pq.write_table(pa.table(columns), named / f"{kind}.parquet")
    decimals = pa.array(numbers, pa.int64()).cast(pa.decimal128(22, 0))
    pq.write_table(pa.table({"id": decimals, "seq": four}), named / "decimal.parquet")
    # An integer column with a gap is one of floats to pandas.
    frame = pandas.DataFrame({"id": numbers, "seq": four})
    frame.to_parquet(named / "pandas_float.parquet")
    texts = {
        "text": pa.array(["a", None, " \t", "d"]),
        "blank": pa.array(["a", "", "\u00a0", "d"]),
        "category": pa.array(["a", None, "", "d"]).dictionary_encode(),
        "large": pa.array(["a", None, "", "d"], pa.large_string()),
        "nulls": pa.nulls(4),
        "dates": pa.array([1, 2, 3, 4], pa.date32()),
        "lists": pa.array([["a"], ["b"], ["c"], ["d"]]),
    }
    for name, column in texts.items():
        pq.write_table(pa.table({"id": column, "seq": four}), named / f"{name}.parquet")
    columns = {"id": [1, 2, 3, 4], "accession": ["P1", "P2", "P3", "P4"], "seq": four}
    pq.write_table(pa.table(columns), named / "number_and_text.parquet")
    uuids = [bytes([200 + n] * 16) for n in range(4)]
    fixed = pa.array([sequence.encode() for sequence in four], pa.binary(3))
    columns = {"id": pa.array(uuids, pa.binary(16)), "seq": fixed}
    pq.write_table(pa.table(columns), named / "fixed.parquet")

    # What is not read.
    refused = root / "refused"
    refused.mkdir(exist_ok=True)
    feather.write_feather(table, refused / "lz4.feather")
    with pa.ipc.new_stream(refused / "stream.arrow", table.schema) as stream:
        stream.write_table(table)
    orc.write_table(table, refused / "table.orc")
    pq.write_table(pa.table({"id": ids, "sequence": list(range(ROWS))}), refused / "numbers.parquet")
    lists = [list(sequence) for sequence in sequences]
    pq.write_table(pa.table({"id": ids, "sequence": lists}), refused / "lists.parquet")
    pq.write_table(pa.table({"id": ids, "peptide": sequences}), refused / "peptide.parquet")
    pq.write_table(table.slice(0, 0), refused / "zero_rows.parquet")
    factory = encryption.CryptoFactory(Keys)
    connection = encryption.KmsConnectionConfig()
    for name, plain in [("encrypted", False), ("encrypted_column", True)]:
        how = encryption.EncryptionConfiguration(
            footer_key="footer", column_keys={"column": ["sequence"]}, plaintext_footer=plain
        )
        properties = factory.file_encryption_properties(connection, how)
        with pq.ParquetWriter(
            refused / f"{name}.parquet", table.schema, encryption_properties=properties
        ) as writer:
            writer.write_table(table)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
