//! Whatever is wrong with a file is one clear error.

use super::*;

/// The error of files that are read for a kind.
#[track_caller]
fn refuses(kind: Kind, made: &[(&str, &str)], expected: &str) {
    let names: Vec<&str> = made.iter().map(|(name, _)| *name).collect();
    let made = Made::new(made);
    let error = made.error(&made.files(&names), &reading(kind));
    assert_eq!(error, expected);
}

#[track_caller]
fn refuses_fasta(kind: Kind, text: &str, expected: &str) {
    refuses(kind, &[("a.fasta", text)], expected);
}

#[track_caller]
fn refuses_csv(text: &str, expected: &str) {
    refuses(Kind::SequenceValue, &[("a.csv", text)], expected);
}

#[track_caller]
fn refuses_json(kind: Kind, text: &str, expected: &str) {
    refuses(kind, &[("a.json", text)], expected);
}

const RESIDUES: Kind = Kind::ResidueClasses;
const CLASSES: Kind = Kind::SequenceClasses;

#[test]
fn files_that_hold_nothing() {
    refuses_fasta(
        RESIDUES,
        "\n",
        "a.fasta:1: there are no proteins: expected headers such as `>id SET=train TARGET=H`, \
         each above a sequence",
    );
    refuses_csv(
        "sequence,target,set\n",
        "a.csv:1: there are no proteins: expected a header, and a row for each protein",
    );
    for text in ["", "[ ]"] {
        refuses_json(
            RESIDUES,
            text,
            "a.json:1: there are no proteins: expected an array of JSON objects, or one on each \
             line",
        );
    }
    refuses(RESIDUES, &[], "no file of labelled proteins is given");
    let missing = Made::new(&[]);
    let error = missing.error(&missing.files(&["none.csv"]), &reading(CLASSES));
    assert_eq!(error, "cannot read none.csv");
}

#[test]
fn labels_that_are_missing() {
    refuses_fasta(
        RESIDUES,
        ">a TARGET=H\nS\n>b\nSE\n",
        "a.fasta:3: `b` has no label: expected TARGET= in its header, a letter for each residue, \
         or a file of labels",
    );
    refuses_fasta(
        CLASSES,
        ">a TARGET=\nS\n",
        "a.fasta:1: `a` has no label: expected TARGET= in its header",
    );
    refuses_csv(
        "sequence,target,set\nS,1,train\nE,,test\n",
        "a.csv:3: `a.csv:3` has no label: expected one in the column target",
    );
    refuses_json(
        Kind::Contacts,
        "[{\"id\": \"a\", \"primary\": \"SE\"}]",
        "a.json:1: `a` has no label: expected `tertiary`",
    );
    refuses_json(
        RESIDUES,
        r#"{"id": "a", "primary": "SE", "ss8": [-1, -1]}"#,
        "a.json:1: no residue of `a` is labelled: leave the protein out",
    );
}

#[test]
fn labels_that_are_no_labels() {
    for wrong in ["high", "inf", "NaN"] {
        refuses_csv(
            &format!("sequence,target,set\nS,{wrong},train\n"),
            &format!("a.csv:2: the label of `a.csv:2` is `{wrong}`: expected a finite number"),
        );
    }
    refuses_json(
        RESIDUES,
        r#"{"id": "a", "primary": "SE", "ss8": [1, 8]}"#,
        "a.json:1: `8` at position 2 of the labels of `a`: expected the number of a state (ss8: \
         GHIBESTC from 0, ss3: HEC), or below 0 where it is not known",
    );
    let made = Made::new(&[("a.fasta", ">a TARGET=HQ\nSE\n")]);
    let three = Preset::named("q3").unwrap().reading(None);
    assert_eq!(
        made.error(&made.files(&["a.fasta"]), &three),
        "a.fasta:1: `Q` at position 2 of the labels of `a`: expected a state of DSSP (H, G, I, E, \
         B, S, T, P or C)"
    );
}

#[test]
fn labels_and_masks_of_another_length() {
    refuses_fasta(
        RESIDUES,
        ">a TARGET=HEC\nSEQ\n>b TARGET=HE\nSEQ\n",
        "a.fasta:3: `b` has 2 labels, and its sequence 3 residues: expected as many",
    );
    refuses_fasta(
        RESIDUES,
        ">a TARGET=HEC MASK=11\nSEQ\n",
        "a.fasta:1: `a` has 2 digits in its mask, and its sequence 3 residues: expected as many",
    );
    refuses_fasta(
        RESIDUES,
        ">a TARGET=HEC MASK=1x1\nSEQ\n",
        "a.fasta:1: `x` at position 2 of the mask of `a`: expected 0 or 1",
    );
    refuses_json(
        RESIDUES,
        r#"{"id": "a", "primary": "SE", "ss8": [1, 1], "valid_mask": [1]}"#,
        "a.json:1: `a` has 1 values in its valid_mask, and its sequence 2 residues: expected as \
         many",
    );
    refuses_json(
        Kind::Contacts,
        r#"{"id": "a", "primary": "SE", "tertiary": [[0, 0, 0]]}"#,
        "a.json:1: `a` has 1 positions in its tertiary, and its sequence 2 residues: expected as \
         many",
    );
}

#[test]
fn files_of_labels_and_masks_that_are_not_of_the_sequences() {
    let made = Made::new(&[
        ("a.fasta", ">a\nSE\n>b\nSEQ\n"),
        ("labels.fasta", ">a SET=train\nHE\n\n>b SET=test\nHE\n"),
        ("other.fasta", ">a SET=train\nHE\n>c SET=test\nHE\n"),
        ("twice.fasta", ">a SET=train\nHE\n>a SET=test\nHE\n"),
        ("mask.fasta", ">a\n11\n"),
        ("good.fasta", ">a SET=train\nHE\n>b SET=test\nHEE\n"),
        ("a.csv", "sequence,target,set\nS,1,train\n"),
    ]);
    let with = |labels: &str, mask: Option<&str>| {
        let files = Files {
            labels: Some(made.path(labels)),
            mask: mask.map(|mask| made.path(mask)),
            ..made.files(&["a.fasta"])
        };
        made.error(&files, &reading(RESIDUES))
    };
    assert_eq!(
        with("labels.fasta", None),
        "labels.fasta:4: `b` has 2 labels, and its sequence 3 residues: expected as many"
    );
    assert_eq!(
        with("other.fasta", None),
        "other.fasta:3: `c` is not among the sequences: expected it in a.fasta"
    );
    assert_eq!(
        with("twice.fasta", None),
        "twice.fasta:3: `a` is also at twice.fasta:1: give each protein an id of its own"
    );
    assert_eq!(
        with("good.fasta", Some("mask.fasta")),
        "a.fasta:3: `b` has no mask: expected it in mask.fasta"
    );
    let files = Files {
        labels: Some(made.path("good.fasta")),
        ..made.files(&["a.csv"])
    };
    assert_eq!(
        made.error(&files, &reading(CLASSES)),
        "good.fasta is given beside CSV: separate labels and masks go with FASTA alone"
    );
}

#[test]
fn classes_that_training_does_not_have() {
    refuses_fasta(
        CLASSES,
        ">a SET=train TARGET=x\nS\n>b SET=train TARGET=y\nE\n>c SET=test TARGET=z\nQ\n",
        "a.fasta:5: `c` is of class `z`, which no training protein has: add some that are, or \
         leave this one out",
    );
    refuses_fasta(
        CLASSES,
        ">a TARGET=x\nS\n>b TARGET=x\nE\n",
        "every label is `x`: expected at least two classes",
    );
}

#[test]
fn ids_that_are_given_twice() {
    refuses_fasta(
        CLASSES,
        ">a TARGET=x\nS\n>a TARGET=y\nE\n",
        "a.fasta:3: `a` is also at a.fasta:1: give each protein an id of its own",
    );
}

#[test]
fn sequences_that_are_none() {
    refuses_fasta(
        CLASSES,
        ">a TARGET=x\n>b TARGET=y\nE\n",
        "a.fasta:1: `a` has no residues",
    );
    for letter in ['-', '*', '1', 'é'] {
        refuses_fasta(
            CLASSES,
            &format!(">a TARGET=x\nSE{letter}\n"),
            &format!(
                "a.fasta:1: `{letter}` at position 3 of `a` is no residue: correct it, or leave \
                 the protein out"
            ),
        );
    }
    refuses_fasta(
        CLASSES,
        "SEQ\n>a TARGET=x\n",
        "a.fasta:1: expected a line that begins with `>`, and found `SEQ`",
    );
    refuses_fasta(
        CLASSES,
        ">a TARGET=x\nS\n> b TARGET=x\nS\n",
        "a.fasta:3: the header has no id: expected a word right after `>`",
    );
}

#[test]
fn sets_that_are_none() {
    refuses_fasta(
        CLASSES,
        ">a SET=other TARGET=x\nS\n",
        "a.fasta:1: `a` is of set `other`: expected train, val, test or the name of a test set",
    );
    refuses_fasta(
        CLASSES,
        ">a SET=test VALIDATION=True TARGET=x\nS\n",
        "a.fasta:1: `a` is of set `test` and for validation too: the figures would be of what the \
         epoch is chosen by",
    );
    refuses_fasta(
        CLASSES,
        ">a SET=train VALIDATION=maybe TARGET=x\nS\n",
        "a.fasta:1: `maybe` is no value of VALIDATION: expected True or False",
    );
    refuses_fasta(
        CLASSES,
        ">a SET=train TARGET=x\nS\n>b TARGET=y\nE\n",
        "a.fasta:3: `b` is of no set, and other proteins are: expected SET=, a column `set`, or a \
         file whose name ends in the set, such as _train.json",
    );
    refuses_fasta(
        CLASSES,
        ">a SET=train TARGET=x\nS\n>b SET=train TARGET=y\nE\n",
        "no protein of a.fasta is for testing: expected some marked `test` by SET=, by the column \
         `set` or by the name of the file",
    );
}

#[test]
fn tables_and_json_that_are_malformed() {
    refuses_csv(
        "sequence,target\nS,1\n",
        "a.csv:1: there is no column set; it has sequence, target",
    );
    refuses_csv(
        "sequence,target,set\nS,1,train\n\nE,2\n",
        "a.csv:4: the row has 2 cells and the header 3: expected as many",
    );
    refuses_json(
        RESIDUES,
        "[{\"primary\": \"SE\", \"ss8\": \"HE\"},\n\n {\"primary\": 5}]",
        "a.json:3: the record is malformed: invalid type: integer `5`, expected a string",
    );
    refuses_json(
        RESIDUES,
        "[{\"primary\": \"SE\", \"ss8\": \"HE\"},\n",
        "a.json:2: the array does not end: the file is cut off",
    );
    refuses_json(
        RESIDUES,
        "[{\"primary\": \"SE\", \"ss8\": \"HE\"}] {}",
        "a.json:1: there is more after the end of the array",
    );
    refuses_json(
        RESIDUES,
        "{\"ss8\": \"HE\"}",
        "a.json:1: the record has no `primary`: expected the sequence there",
    );
    refuses(
        RESIDUES,
        &[("a.csv", "sequence,target,set\n")],
        "a.csv is CSV, which has no classes of residues: expected FASTA or JSON",
    );
    refuses_fasta(
        Kind::Contacts,
        ">a\nS\n",
        "a.fasta is FASTA, which has no contacts: expected JSON with `primary`, `tertiary` and \
         `valid_mask`",
    );
}
