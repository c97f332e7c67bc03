//! Files of other people's habits: every record is kept or counted, and none is given another's
//! residues.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;

use ankh_data::format::Reason;
use ankh_data::prepare::input::{Input, RecordRef};
use ankh_data::{Error, Manifest, PrepareOptions, prepare};
use ankh_storage::Location;
use proptest::prelude::*;

/// A record as it is given: id, line, sequence, fault.
type Given = (String, u64, String, Option<Reason>);

fn read_in(bytes: &[u8], block: usize) -> Result<(Vec<Given>, Option<String>), Error> {
    let reader = std::io::Cursor::new(bytes.to_vec());
    let mut input = Input::from_reader("input", Box::new(reader))?.with_block_bytes(block);
    let mut records = vec![];
    while let Some(block) = input.next_block()? {
        let before = records.len() as u64;
        block.for_each(&mut |record: RecordRef<'_>| {
            let sequence = String::from_utf8_lossy(record.sequence).into_owned();
            records.push((record.id.into(), record.line, sequence, record.fault));
            Ok(())
        })?;
        assert_eq!(records.len() as u64, before + block.records());
    }
    Ok((records, input.warning()))
}

fn read(bytes: &[u8]) -> Vec<Given> {
    read_in(bytes, 1 << 20).unwrap().0
}

fn error(bytes: &[u8]) -> String {
    read_in(bytes, 1 << 20).unwrap_err().to_string()
}

fn given(id: &str, line: u64, sequence: &str) -> Given {
    (id.into(), line, sequence.into(), None)
}

/// Those files, prepared.
fn prepared(files: &[(&str, &[u8])]) -> Result<Manifest, Error> {
    let directory = tempfile::tempdir().unwrap();
    let inputs: Vec<Location> = files
        .iter()
        .map(|(name, bytes)| {
            let path = directory.path().join(name);
            fs::write(&path, bytes).unwrap();
            path.into()
        })
        .collect();
    let output = directory.path().join("out").into();
    prepare(&inputs, &output, &PrepareOptions::default(), &mut |_| {})
}

const A: &str = "MKTAYIAKQRQISFVKSHFS";
const B: &str = "GAVLIPFMWSTCYNQDEKRH";

#[test]
fn a_header_is_seen_behind_what_nobody_sees() {
    for unseen in [" ", "\t", "\u{feff}", "\u{a0}", " \u{200b}\u{2028}\u{3000}"] {
        let text = format!(">a0\n{A}\n{unseen}>b0\n{B}\n>b1\n{A}\n");
        let expected = [given("a0", 1, A), given("b0", 3, B), given("b1", 5, A)];
        for block in [1, 30, 1 << 20] {
            assert_eq!(
                read_in(text.as_bytes(), block).unwrap().0,
                expected,
                "{unseen:?}"
            );
        }
    }
    // The no-break space of Latin-1, which is no Unicode.
    assert_eq!(read(b">a0\nMK\n\xa0>b0\nGA\n").len(), 2);
    // At the beginning of the file as well.
    assert_eq!(
        read("\u{a0}\n \u{feff}>a0\nMK\n".as_bytes()),
        [given("a0", 2, "MK")]
    );
}

#[test]
fn every_kind_of_line_end_ends_a_line() {
    for end in ["\n", "\r\n", "\r", "\r\r\n"] {
        let text = [">a0 the first", A, ">b0", B, A, ""].join(end);
        let ids: Vec<_> = read(text.as_bytes())
            .into_iter()
            .map(|r| (r.0, r.2, r.3))
            .collect();
        let expected = [
            ("a0".into(), A.into(), None),
            ("b0".into(), format!("{B}{A}"), None),
        ];
        assert_eq!(ids, expected, "{end:?}");
        for table in ["id,sequence", "id\tsequence"] {
            let delimiter = &table[2..3];
            let rows = [
                table,
                &format!("p0{delimiter}{A}"),
                &format!("p1{delimiter}{B}"),
                "",
            ];
            let records = read(rows.join(end).as_bytes());
            assert_eq!(records, [given("p0", 2, A), given("p1", 3, B)], "{end:?}");
        }
    }
    // Files that were put together, each with its own.
    let text = format!(">a\r{A}\r>b\n{B}\n>c\r\n{A}\r\n>d\r{B}\r\n");
    let lines = [("a", 1, A), ("b", 3, B), ("c", 5, A), ("d", 7, B)];
    assert_eq!(
        read(text.as_bytes()),
        lines.map(|(id, line, s)| given(id, line, s))
    );
}

/// Ten records whose lines end in CR were lost beside a good file.
#[test]
fn a_file_with_other_line_ends_keeps_its_records_beside_another() {
    let cr: String = (0..10).map(|i| format!(">b{i}\r{A}\r")).collect();
    let good = format!(">a0\n{B}\n");
    let manifest = prepared(&[("cr.fasta", cr.as_bytes()), ("a.fasta", good.as_bytes())]).unwrap();
    assert_eq!((manifest.rows, manifest.report.rejected), (11, 0));
}

#[test]
fn a_header_in_cr_before_residues_in_lf_is_counted() {
    let text = format!(">a one\rMKLV words\n{A}\n>b\n{B}\n");
    let records = read(text.as_bytes());
    let faults: Vec<_> = records.iter().map(|r| (r.0.as_str(), r.3)).collect();
    assert_eq!(faults, [("a", Some(Reason::MixedLineEnds)), ("b", None)]);
}

#[test]
fn a_glued_header_costs_its_neighbor_and_both_are_counted() {
    let text = format!(">a0\n{A}>b0 x>y\n{B}\n>b1\n{A}\n");
    for block in [1, 30, 1 << 20] {
        let (records, _) = read_in(text.as_bytes(), block).unwrap();
        let found: Vec<_> = records.iter().map(|r| (r.0.as_str(), r.1, r.3)).collect();
        let lost = Some(Reason::HiddenHeader);
        assert_eq!(found, [("a0", 1, lost), ("b0", 2, lost), ("b1", 4, None)]);
    }
    let report = prepared(&[("a.fasta", text.as_bytes())]).unwrap().report;
    assert_eq!((report.records, report.rows, report.rejected), (3, 1, 2));
    let words = report.rejects_in_words();
    let expected = "2 a header that does not begin a line (first: a.fasta, line 1, a0: ";
    assert!(words.starts_with(expected), "{words}");
    // A record that was commented out, but not its residues.
    let text = format!(">a0\n{A}\n;>b0\n{B}\n>b1\n{A}\n; x > y\n");
    let faults: Vec<_> = read(text.as_bytes())
        .into_iter()
        .map(|r| r.3.is_some())
        .collect();
    assert_eq!(faults, [true, true, false]);
}

#[test]
fn a_record_without_an_id_is_kept_and_named_by_its_place() {
    let text = format!("> s0 | thing\n{A}\n>\n{B}\n>\u{a0}x\n{A}\n>s1\n{B}\n");
    let ids: Vec<_> = read(text.as_bytes()).into_iter().map(|r| r.0).collect();
    assert_eq!(ids, ["line1", "line3", "line5", "s1"]);
    for (delimiter, blank) in [(",", ""), (",", "\"\""), ("\t", " "), (";", "\u{a0}")] {
        let rows = format!("id,sequence\np0,{A}\n{blank},{B}\n").replace(',', delimiter);
        assert_eq!(
            read(rows.as_bytes()),
            [given("p0", 2, A), given("row2", 3, B)]
        );
    }
    let (space, blank) = (format!("> s0\n{A}\n"), format!("id,sequence\n,{A}\n"));
    let files: [(&str, &[u8]); 2] = [("a.fasta", space.as_bytes()), ("b.csv", blank.as_bytes())];
    let report = prepared(&files).unwrap().report;
    assert_eq!((report.records, report.rows), (2, 2));
}

/// Twenty rows, two of them with a quote that opens a name and does not close.
fn open_quotes(delimiter: &str) -> String {
    let mut text = ["Entry", "Protein names", "Sequence"].join(delimiter) + "\n";
    for (i, sequence) in crate::random_sequences(16, 20, 40..50).iter().enumerate() {
        let quote = if i == 5 || i == 9 { "\"open " } else { "" };
        let name = format!("{quote}name {i}");
        text += &([&format!("p{i}"), &name, sequence.as_str()].join(delimiter) + "\n");
    }
    text
}

#[test]
fn a_quote_in_tsv_is_a_letter() {
    let sequences = crate::random_sequences(16, 20, 40..50);
    let expected: Vec<Given> = (sequences.iter().enumerate())
        .map(|(i, sequence)| given(&format!("p{i}"), i as u64 + 2, sequence))
        .collect();
    assert_eq!(read(open_quotes("\t").as_bytes()), expected);
    // Quotes around whole columns are none of a value.
    let quoted = open_quotes("\t")
        .replace('"', "")
        .replace('\t', "\"\t\"")
        .replace('\n', "\"\n\"");
    let quoted = format!("\"{}", quoted.strip_suffix('"').unwrap());
    assert_eq!(read(quoted.as_bytes()), expected);
}

#[test]
fn a_tab_or_a_line_break_in_a_quoted_column_of_tsv_is_read() {
    let text =
        format!("id\tname\tsequence\np0\t\"a\tb\"\t{A}\np1\t\"two\nlines\"\t{B}\np2\tx\t{A}\n");
    let expected = [given("p0", 2, A), given("p1", 3, B), given("p2", 5, A)];
    assert_eq!(read(text.as_bytes()), expected);
}

#[test]
fn a_quoted_column_that_holds_rows_is_an_error_with_its_line() {
    for delimiter in [",", ";"] {
        let message = error(open_quotes(delimiter).as_bytes());
        let expected =
            "input, line 7: expected the end of a quoted column before the row of line 7";
        assert!(message.starts_with(expected), "{message}");
    }
    // Closed as a quote should be; the first line is no row; only one row is in it.
    for (rows, line) in [
        (format!("p0,\"open,{A}\np1,x,{A}\np2,closed\",{B}\n"), 2),
        (format!("p0,\"open,{A}\np1,closed\",{B}\n"), 2),
        (
            format!("p0,x,{A}\np1,\"one, two,{A}\np2,x,{A}\np3,y\",{B}\n"),
            3,
        ),
        (format!("p0,\"one, two,{A}\np1,x\",{B}\n"), 2),
        (format!("p0,x,\"{A}\np1,x,{B}\np2,x,\"{A}\n"), 2),
        (format!("p0,x,\"{A}\np1,x,{B}\"\n"), 2),
        (format!("\"p0,x,{A}\np1\",x,{B}\n"), 2),
    ] {
        let message = error(format!("id,name,sequence\n{rows}").as_bytes());
        let expected = format!("input, line {line}: expected the end of a quoted column");
        assert!(message.starts_with(&expected), "{rows}{message}");
    }
    // TSV that is read with quotes, as its columns are too few otherwise.
    let message = error(format!("id\tname\tsequence\np0\t\"open\np1\tx\"\t{A}\n").as_bytes());
    assert!(
        message.starts_with("input, line 2: expected the end of"),
        "{message}"
    );
}

#[test]
fn a_description_in_quotes_may_hold_line_breaks() {
    let text = format!(
        "id,description,sequence\np0,\"binds DNA, RNA\nand \"\"others\"\", too\",{A}\np1,x,\"MK\nTA\"\n"
    );
    assert_eq!(
        read(text.as_bytes()),
        [given("p0", 2, A), given("p1", 4, "MKTA")]
    );
    let message = error(b"id,sequence\n\"p\n 0\",MK\n");
    assert!(
        message.starts_with("input, line 2: expected an id"),
        "{message}"
    );
}

#[test]
fn headers_and_marks_within_a_table_are_none_of_its_rows() {
    let text = format!("id,sequence\np0,{A}\n\u{feff}id,sequence\r\n\u{a0}\n\u{feff}p1,{B}\n");
    assert_eq!(
        read(text.as_bytes()),
        [given("p0", 2, A), given("p1", 5, B)]
    );
}

#[test]
fn comments_may_come_before_the_first_header() {
    let a3m = format!("#20\t1\n# another\n\n>101\n{A}\n#20,20\t1,1\n>102\n{B}\n");
    assert_eq!(
        read(a3m.as_bytes()),
        [given("101", 4, A), given("102", 7, B)]
    );
    let table = format!("# made by hand, a sequence, twice\nid,sequence\np0,{A}\n");
    assert_eq!(read(table.as_bytes()), [given("p0", 3, A)]);
    // The header itself may look like one.
    let table = format!("# version 1\n#id\tsequence\np0\t{A}\n");
    assert_eq!(read(table.as_bytes()), [given("p0", 3, A)]);
    // An alignment of another kind is still told.
    let message = error(b"# STOCKHOLM 1.0\n\nseq1  MKT-A\n//\n");
    assert!(
        message.contains("line 3: expected a FASTA header"),
        "{message}"
    );
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::stream::encode_all(bytes, 1).unwrap()
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new(vec![], 1);
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// The block of no bytes that ends what bgzip writes.
const BGZIP_END: &[u8] =
    b"\x1f\x8b\x08\x04\0\0\0\0\0\xff\x06\0BC\x02\0\x1b\0\x03\0\0\0\0\0\0\0\0\0";

#[test]
fn what_stands_behind_compressed_data_is_left_and_told() {
    let sequences = crate::random_sequences(22, 300, 10..200);
    let records: Vec<String> = (sequences.iter().enumerate())
        .map(|(i, sequence)| format!(">id{i}\n{sequence}\n"))
        .collect();
    let (one, two) = (records[..100].concat(), records[100..].concat());
    let (one, two) = (one.as_bytes(), two.as_bytes());
    let skipped = [b"\x5e\x2a\x4d\x18\x03\0\0\0abc", &zstd(two)[..]].concat();
    for (kind, data) in [
        ("gzip", [gzip(one), gzip(two)].concat()),
        ("gzip", [&gzip(one)[..], &gzip(two), BGZIP_END].concat()),
        ("zstd", [zstd(one), skipped].concat()),
        ("xz", [xz(one), xz(two)].concat()),
    ] {
        let behind = |more: &[u8], block| read_in(&[&data[..], more].concat(), block);
        let (expected, warning) = behind(b"", 1 << 20).unwrap();
        assert_eq!((expected.len(), warning), (300, None));
        for (more, told) in [
            (
                vec![0; 509],
                format!("509 zeros behind its {kind} data were left"),
            ),
            (
                vec![0; 300_001],
                format!("300001 zeros behind its {kind} data were left"),
            ),
            (
                b"# checksum 1234\n".to_vec(),
                format!(
                    "16 bytes behind its {kind} data, which begin with \"# checksum 1234\\n\", were left"
                ),
            ),
            (
                [vec![0; 509], b"end".to_vec()].concat(),
                format!("512 bytes behind its {kind} data, which begin with \"end\", were left"),
            ),
        ] {
            for block in [100, 1 << 20] {
                let (records, warning) = behind(&more, block).unwrap();
                assert_eq!(records, expected);
                assert_eq!(warning.as_deref(), Some(&told[..]));
            }
        }
        // Data behind zeros is data.
        let padded = [&data[..], &[0; 512], &data].concat();
        assert_eq!(read_in(&padded, 1 << 20).unwrap().0.len(), 600);
        // But what ends before its data does is an error, at the end as well.
        for keep in [
            data.len() + 1,
            data.len() + data.len() / 2,
            2 * data.len() - 1,
        ] {
            let twice = [&data[..], &data].concat();
            let error = read_in(&twice[..keep], 1 << 20).unwrap_err();
            assert!(
                matches!(error, Error::Truncated { .. }),
                "{kind}, {keep}: {error}"
            );
        }
    }
}

#[test]
fn a_file_with_zeros_behind_is_prepared_with_a_warning() {
    let stored = [gzip(format!(">a0\n{A}\n").as_bytes()), vec![0; 100]].concat();
    let manifest = prepared(&[("padded.fasta.gz", &stored)]).unwrap();
    assert_eq!(manifest.rows, 1);
    assert_eq!(manifest.source[0].bytes, stored.len() as u64);
    let expected = "padded.fasta.gz: 100 zeros behind its gzip data were left";
    assert_eq!(manifest.report.warnings, [expected]);
}

#[test]
fn nucleotides_are_left_out_where_named_and_told_where_not() {
    let seqres = format!(
        ">1d23_A mol:na length:10  DNA\nCGATCGATCG\n>101m_A mol:protein length:20  X\n{A}\n\
         >4tna_A mol:na length:20  TRNA\nGCGGAUUUAXXCUCAGUUGG\n"
    );
    let dna: String = (0..200)
        .map(|i| format!(">read{i}\nACGTNACGTTAGCATTACAGGCTA\n"))
        .collect();
    let proteins: String = crate::random_sequences(18, 150, 30..60)
        .iter()
        .enumerate()
        .map(|(i, sequence)| format!(">p{i}\nM{sequence}\n"))
        .collect();
    let mixed = format!("{proteins}>r\nACGUUUUUUUUUUUUUUUUUUUUUUUU\n>s\nACGT\n");
    let files: [(&str, &[u8]); 4] = [
        ("seqres.txt", seqres.as_bytes()),
        ("reads.fasta", dna.as_bytes()),
        ("proteins.fasta", proteins.as_bytes()),
        ("mixed.fasta", mixed.as_bytes()),
    ];
    let report = prepared(&files).unwrap().report;
    let left_out: Vec<_> = report.rejects.iter().map(|r| (r.reason, r.count)).collect();
    assert_eq!(left_out, [(Reason::NucleicAcid, 2)]);
    assert_eq!(
        (report.records, report.rows),
        (3 + 200 + 150 + 152, 1 + 200 + 150 + 152)
    );
    let told: Vec<_> = report
        .warnings
        .iter()
        .map(|w| w.split(" have no").next().unwrap())
        .collect();
    let expected = ["reads.fasta: 100.0 % of its sequences (200 of 200)"];
    assert_eq!(told, expected);
    assert_eq!(report.nucleotides["mixed.fasta"].records, 1);
    assert!(!report.nucleotides.contains_key("proteins.fasta"));
}

#[test]
fn a_directory_stands_for_the_sequence_files_below_it() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("data");
    fs::create_dir_all(root.join("b/.cache")).unwrap();
    let write = |name: &str, text: &str| fs::write(root.join(name), text).unwrap();
    write("z.fasta", ">z\nMKL\n");
    write("b/two.FA", ">two\nMKL\n");
    write("b/.cache/three.fa", ">three\nMKL\n");
    write("a.csv", "id,sequence\na,MKL\n");
    write("README.md", "nothing");
    write("._z.fasta", "\0\0");
    std::os::unix::fs::symlink(&root, root.join("b/back")).unwrap();
    let run = |input: &std::path::Path, output: &std::path::Path| {
        let options = PrepareOptions {
            validation_fraction: 0.0,
            ..PrepareOptions::default()
        };
        prepare(&[input.into()], &output.into(), &options, &mut |_| {})
    };
    let expected = ["a.csv", "b/two.FA", "z.fasta"];
    // What was prepared there is no input of the next.
    for output in ["data/out", "data/again"] {
        let manifest = run(&root, &directory.path().join(output)).unwrap();
        let names: Vec<_> = manifest
            .source
            .iter()
            .map(|source| &source.name[..])
            .collect();
        assert_eq!(names, expected, "{output}");
    }
    let empty = directory.path().join("empty");
    fs::create_dir(&empty).unwrap();
    fs::write(empty.join("notes.txt"), "nothing").unwrap();
    let message = run(&empty, &directory.path().join("none"))
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("empty holds no sequence files: expected"),
        "{message}"
    );
    assert!(
        message.contains(".fasta, .fa,") && message.contains(".parquet"),
        "{message}"
    );
}

/// What can be odd about a record of FASTA.
#[derive(Clone, Debug)]
struct Odd {
    before: &'static str,
    indent: &'static str,
    glued: bool,
    id: bool,
    description: &'static str,
    end: &'static str,
    width: usize,
    trailing: &'static str,
    length: usize,
}

fn odd() -> impl Strategy<Value = Odd> {
    let before = prop_oneof![
        6 => Just(""),
        4 => prop::sample::select(vec![
            "\n", "\r\n", " \t\n", "\u{a0}\n", "; a > b\n", "# 20 > 1\r\n", "\u{feff}\n\n", "\x0c\n",
        ]),
    ];
    let indent = prop_oneof![
        6 => Just(""),
        4 => prop::sample::select(vec![
            " ", "\t ", "\u{feff}", "\u{a0}", "\u{2028}", "\u{200b}", "\x0b", "                ",
        ]),
    ];
    let description = prop::sample::select(vec![
        "",
        " plain",
        " \"quoted",
        " a > b",
        " a, b; c\td",
        " x\u{a0}y\u{2028}z",
        " >",
        " \u{1}gi|1",
    ]);
    let end = prop_oneof![4 => Just("\n"), 2 => Just("\r\n"), 2 => Just("\r"), 1 => Just("\r\r\n")];
    let trailing = prop_oneof![6 => Just(""), 2 => Just(" "), 1 => Just("\u{a0}")];
    let glued = prop_oneof![9 => Just(false), 1 => Just(true)];
    let id = prop_oneof![4 => Just(true), 1 => Just(false)];
    (
        before,
        indent,
        glued,
        id,
        description,
        end,
        1usize..80,
        trailing,
        1usize..120,
    )
        .prop_map(
            |(before, indent, glued, id, description, end, width, trailing, length)| Odd {
                before,
                indent,
                glued,
                id,
                description,
                end,
                width,
                trailing,
                length,
            },
        )
}

/// The text, and what of it can be kept, by place.
fn odd_fasta(records: &[Odd]) -> (Vec<u8>, Vec<Option<String>>) {
    let sequences = crate::random_sequences(records.len() as u64, records.len(), 120..121);
    let mut text = String::new();
    let mut kept: Vec<Option<String>> = vec![];
    for (i, (odd, sequence)) in records.iter().zip(&sequences).enumerate() {
        // No two are one another's beginning.
        let sequence = format!("M{}{}", "AW".repeat(i), &sequence[..odd.length]);
        let glued = odd.glued && i > 0;
        if glued {
            text.truncate(text.trim_end_matches(['\n', '\r']).len());
            kept[i - 1] = None;
        } else {
            text += odd.before;
            text += odd.indent;
        }
        let id = if odd.id {
            format!("id{i}")
        } else {
            String::new()
        };
        // What follows '>' directly would be an id.
        let description = match (odd.id, odd.description) {
            (false, "") => " ",
            (_, description) => description,
        };
        text += &format!(">{id}{description}{}", odd.end);
        for line in sequence.as_bytes().chunks(odd.width) {
            text += &format!(
                "{}{}{}",
                String::from_utf8_lossy(line),
                odd.trailing,
                odd.end
            );
        }
        kept.push((!glued).then_some(sequence));
    }
    (text.into_bytes(), kept)
}

fn visible(sequence: &str) -> String {
    sequence.chars().filter(char::is_ascii).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_odd_record_of_fasta_is_kept_or_counted(
        records in prop::collection::vec(odd(), 1..12), block in 1usize..3000,
    ) {
        let (text, expected) = odd_fasta(&records);
        let shown = String::from_utf8_lossy(&text);
        let (found, _) = read_in(&text, block).unwrap();
        prop_assert_eq!(found.len(), expected.len(), "{:?}", shown);
        for (place, ((id, line, sequence, fault), expected)) in found.iter().zip(&expected).enumerate() {
            let kept = fault.is_none().then(|| visible(sequence));
            prop_assert_eq!(&kept, expected, "{:?}, record {}", shown, place);
            let named = match records[place].id {
                true => format!("id{place}"),
                false => format!("line{line}"),
            };
            prop_assert_eq!(id, &named, "{:?}", shown);
        }
        prop_assert_eq!(&read_in(&text, 1 << 20).unwrap().0, &found);
        prop_assert_eq!(&read_in(&gzip(&text), block).unwrap().0, &found);
    }

    /// A row of a table: its id may be blank and its name anything.
    #[test]
    fn every_odd_row_of_a_table_is_kept_or_its_line_is_told(
        rows in prop::collection::vec((
            prop::sample::select(vec!["id", "id", "", " ", "\u{a0}", "\u{feff}id", "\"id\""]),
            prop::sample::select(vec![
                "name", "name", "", "\"open", "clo\"se", "close\"", "\"both\"", "\"a,b;c\"", "\"a\tb\"",
                "\"two\nlines\"", "\"a \"\"b\"\"\"", "'", "\"", "\"\"", "\u{a0}", ">x",
            ]),
            prop::sample::select(vec!["", "", "", "\n", " \r\n", "\u{feff}", "HEADER"]),
        ), 1..12),
        delimiter in prop::sample::select(vec![",", ";", "\t"]),
        end in prop::sample::select(vec!["\n", "\r\n", "\r"]),
        block in 1usize..500,
    ) {
        let sequences = crate::random_sequences(7, rows.len(), 30..60);
        let header = ["id", "name", "sequence"].join(delimiter);
        let mut text = header.clone() + end;
        let mut expected = BTreeMap::new();
        for (i, ((id, name, before), sequence)) in rows.iter().zip(&sequences).enumerate() {
            let before = match *before {
                "HEADER" => format!("{header}{end}"),
                before => before.replace('\n', end).replace("\r\r", "\r"),
            };
            let id = id.replace("id", &format!("id{i}"));
            text += &(before + &[&id, *name, sequence].join(delimiter) + end);
            let bare = id.replace(['"', '\u{feff}'], "");
            let bare = if bare.starts_with("id") { bare } else { format!("row{}", i + 1) };
            expected.insert(bare, sequence.clone());
        }
        let whole = read_in(text.as_bytes(), 1 << 20);
        let pieces = read_in(text.as_bytes(), block);
        match (whole, pieces) {
            (Ok((found, _)), Ok((pieces, _))) => {
                prop_assert_eq!(&found, &pieces);
                prop_assert_eq!(found.len(), rows.len(), "{:?}", text);
                for (id, _, sequence, fault) in found {
                    let id = id.replace('\u{feff}', "");
                    prop_assert!(fault.is_none());
                    prop_assert_eq!(Some(&sequence), expected.get(&id), "{:?}", text);
                }
            }
            (Err(whole), Err(pieces)) => {
                prop_assert_eq!(whole.to_string(), pieces.to_string());
                let message = whole.to_string();
                prop_assert!(message.starts_with("input, line "), "{}", message);
                // What cannot be told from rows, or is none.
                let odd = |name: &str| match delimiter {
                    "\t" => name.contains('\n') || name.contains('\t'),
                    _ => name.starts_with('"') || (delimiter == ";" && name.contains(';')),
                };
                prop_assert!(rows.iter().any(|row| odd(row.1)), "{:?}: {}", text, message);
            }
            (whole, pieces) => prop_assert!(false, "{whole:?} {pieces:?}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// What the report, the inputs and the files count is one number.
    #[test]
    fn all_counts_of_odd_files_agree(
        one in prop::collection::vec(odd(), 1..12), two in prop::collection::vec(odd(), 1..12),
    ) {
        let ((first, kept), (second, more)) = (odd_fasta(&one), odd_fasta(&two));
        let all = kept.len() + more.len();
        let kept = kept.iter().chain(&more).flatten().count() as u64;
        match prepared(&[("one.fasta", &first), ("two.fasta", &second)]) {
            Ok(manifest) => {
                let report = &manifest.report;
                prop_assert_eq!(report.records, all as u64);
                prop_assert_eq!((report.rows, report.rejected), (kept, all as u64 - kept));
                prop_assert_eq!(report.rejects.iter().map(|r| r.count).sum::<u64>(), report.rejected);
                prop_assert_eq!(manifest.source.iter().map(|s| s.records).sum::<u64>(), all as u64);
                prop_assert_eq!(manifest.files.iter().map(|f| f.rows).sum::<u64>(), kept);
            }
            Err(error) => {
                prop_assert_eq!(kept, 0);
                let message = error.to_string();
                let expected = format!("none of the {all} records can be used: {all} a header");
                prop_assert!(message.starts_with(&expected), "{}", message);
            }
        }
    }
}
