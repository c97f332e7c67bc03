//! Each public format is read as its owner means it.

use super::super::{Contacts, Target};
use super::*;

fn splits(dataset: &Dataset) -> Vec<Option<Split>> {
    let examples = dataset.examples.iter();
    examples.map(|example| example.split.clone()).collect()
}

/// Targets of residues as letters, `.` where there is none.
fn letters(dataset: &Dataset) -> Vec<String> {
    let letter = |state: &Option<u16>| {
        state.map_or(".", |state| dataset.classes[usize::from(state)].as_str())
    };
    let text = |target: &Target| match target {
        Target::ResidueClasses(states) => states.iter().map(letter).collect(),
        other => panic!("{other:?}"),
    };
    let examples = dataset.examples.iter();
    examples.map(|example| text(&example.target)).collect()
}

fn values(dataset: &Dataset) -> Vec<f64> {
    let value = |target: &Target| match target {
        Target::Value(value) => *value,
        other => panic!("{other:?}"),
    };
    let examples = dataset.examples.iter();
    examples.map(|example| value(&example.target)).collect()
}

fn classes(dataset: &Dataset) -> Vec<&str> {
    let class = |target: &Target| match target {
        Target::Class(class) => usize::from(*class),
        other => panic!("{other:?}"),
    };
    let examples = dataset.examples.iter();
    examples
        .map(|example| dataset.classes[class(&example.target)].as_str())
        .collect()
}

#[test]
fn biotrainer_has_labels_and_masks_in_its_headers() {
    let text = "\
>a TARGET=HEE SET=train MASK=110
SEQ
>b SET=val TARGET=EE

S
E
>c TARGET=EH SET=casp12
se
>d SET=pred
SEQ
";
    let (dataset, counts) = preset("q3", &[("all.fasta", text)]);
    assert_eq!(dataset.classes, ["E", "H"]);
    assert_eq!(letters(&dataset), ["HE.", "EE", "EH"].map(String::from));
    let casp12 = Some(Split::Test("CASP12".into()));
    assert_eq!(
        splits(&dataset),
        [Some(Split::Train), Some(Split::Validation), casp12]
    );
    assert_eq!(dataset.examples[2].sequence, "SE");
    assert_eq!(dataset.examples[1].place.line, 3);
    assert_eq!((counts.read, counts.without_set), (4, 1));
}

#[test]
fn biotrainer_before_1_0_has_labels_and_masks_in_further_files() {
    let made = Made::new(&[
        ("sequences.fasta", ">a\nSEQ\n>b\nWE\n>c\nNCE\n>other\nSEQ\n"),
        (
            "labels.fasta",
            ">c SET=test VALIDATION=False\nCDC\n>a SET=train VALIDATION=False\nDVC\n\
             >b SET=train VALIDATION=True\nDD\n",
        ),
        ("mask.fasta", ">a\n011\n>b\n11\n>c\n110\n"),
    ]);
    let files = Files {
        labels: Some(made.path("labels.fasta")),
        mask: Some(made.path("mask.fasta")),
        ..made.files(&["sequences.fasta"])
    };
    let mut wanted = reading(Kind::ResidueClasses);
    assert_eq!(
        made.error(&files, &wanted),
        "sequences.fasta:3: `b` is of class `D`, which no training protein has: add some that \
         are, or leave this one out"
    );
    fs::write(made.path("mask.fasta"), ">a\n111\n>b\n11\n>c\n110\n").unwrap();
    let (dataset, counts) = super::super::read(&files, &wanted).unwrap();
    assert_eq!(letters(&dataset), ["DVC", "DD", "CD."].map(String::from));
    assert_eq!(
        splits(&dataset),
        [Some(Split::Train), Some(Split::Validation), test()]
    );
    assert_eq!((counts.read, counts.unlabelled), (4, 1));
    wanted.max_length = Some(2);
    let error = made.error(&files, &wanted);
    let expected = "no protein of sequences.fasta is for training";
    assert!(error.starts_with(expected), "{error}");
}

#[test]
fn the_names_of_fasta_files_say_the_set_where_headers_do_not() {
    let (dataset, _) = preset(
        "deeploc",
        &[
            (
                "train.fasta",
                ">a TARGET=Nucleus\nSEQ\n>b TARGET=Cytoplasm\nWENCE\n",
            ),
            ("deeploc_setHARD.fasta", ">c TARGET=Nucleus\nSEQV\n"),
        ],
    );
    assert_eq!(dataset.classes, ["Cytoplasm", "Nucleus"]);
    assert_eq!(classes(&dataset), ["Nucleus", "Cytoplasm", "Nucleus"]);
    let hard = Split::Test("setHARD".into());
    assert_eq!(dataset.examples[2].split, Some(hard));
}

#[test]
fn without_any_set_nothing_is_split() {
    let text = ">a TARGET=HEC\nSEQ\n>b TARGET=H\nS\n";
    let (dataset, _) = preset("q3", &[("ts50.fasta", text)]);
    assert_eq!(splits(&dataset), [None, None]);
}

#[test]
fn solubility_and_disorder_have_digits() {
    let text = ">a SET=train TARGET=1\nSEQ\n>b SET=train TARGET=0\nSEV\n>c SET=test TARGET=1\nSE\n";
    let (dataset, _) = preset("solubility", &[("all.fasta", text)]);
    assert_eq!(classes(&dataset), ["1", "0", "1"]);
    let text = ">a SET=train TARGET=100\nSEQ\n>b SET=test TARGET=01 MASK=01\nSE\n";
    let (dataset, _) = preset("disorder", &[("all.fasta", text)]);
    assert_eq!(letters(&dataset), ["100", ".1"].map(String::from));
}

#[test]
fn flip_has_a_column_for_the_set_and_one_for_validation() {
    for name in ["gb1", "thermostability", "binding"] {
        let text = "\
sequence,target,set,validation
SEQ,1.5,train,
SEV,-2,train,True
SEA,3e-1,test,
SEC,4,,
SEQ,5,test,False
";
        let (dataset, counts) = preset(name, &[("two_vs_rest.csv", text)]);
        assert_eq!(values(&dataset), [1.5, -2.0, 0.3, 5.0]);
        assert_eq!(
            splits(&dataset),
            [Some(Split::Train), Some(Split::Validation), test(), test()]
        );
        assert_eq!(dataset.examples[3].place.line, 6);
        assert_eq!((counts.read, counts.without_set, counts.shared), (5, 1, 1));
        assert_eq!(counts.reasons(), "1 of no set");
    }
}

#[test]
fn proteingym_has_scores_and_their_halves_but_no_split() {
    let text = "\
mutant,mutated_sequence,DMS_score,DMS_score_bin

S1A,AEQ,0.5,1
S1V:E2D,VDQ,-0.5,0
S1L,LEQ,,
";
    let (dataset, counts) = preset("binding", &[("dms.csv", text)]);
    assert_eq!((counts.read, counts.unlabelled), (3, 1));
    assert_eq!(values(&dataset), [0.5, -0.5]);
    assert_eq!(dataset.examples[0].place.line, 3);
    assert_eq!(dataset.examples[1].id, "S1V:E2D");
    assert_eq!(splits(&dataset), [None, None]);
    let made = Made::new(&[("dms.csv", text)]);
    let halves = reading(Kind::SequenceClasses);
    let (dataset, _) = super::super::read(&made.files(&["dms.csv"]), &halves).unwrap();
    assert_eq!(classes(&dataset), ["1", "0"]);
}

const STRUCTURES: [(&str, &str); 3] = [
    (
        "secondary_structure_train.json",
        r#"[{"id": "1abc-A", "primary": "SEQWENCE", "protein_length": 8,
             "ss8": [0, 1, 2, 3, 4, 5, 6, 7], "evolutionary": [[0.5], [1]],
             "valid_mask": [true, true, true, true, true, true, true, false]},
            {"id": "2abc-A", "primary": "SEC", "ss3": [2, 2, 2], "ss8": [[7], [-1], [7]]}]"#,
    ),
    (
        "secondary_structure_valid.json",
        "{\"primary\": \"HE\", \"ss3\": \"CE\", \"ss8\": \"TE\"}\n\
         {\"primary\": \"EH\", \"ss3\": \"EC\", \"ss8\": \"ET\"}\n",
    ),
    (
        "secondary_structure_cb513.json",
        r#"[{"primary": "SQ", "ss3": [0, null], "ss8": [1, null]}]"#,
    ),
];

#[test]
fn tape_has_three_and_eight_states() {
    let (dataset, _) = preset("q8", &STRUCTURES);
    assert_eq!(dataset.classes, ["B", "C", "E", "G", "H", "I", "S", "T"]);
    let expected = ["GHIBEST.", "C.C", "TE", "ET", "H."];
    assert_eq!(letters(&dataset), expected.map(String::from));
    let cb513 = Some(Split::Test("CB513".into()));
    let (train, valid) = (Some(Split::Train), Some(Split::Validation));
    assert_eq!(
        splits(&dataset),
        [train.clone(), train, valid.clone(), valid, cb513]
    );
    let (dataset, _) = preset("q3", &STRUCTURES);
    assert_eq!(dataset.classes, ["C", "E", "H"]);
    let expected = ["HHHEECC.", "CCC", "CE", "EC", "H."];
    assert_eq!(letters(&dataset), expected.map(String::from));
    let lines = dataset.examples.iter().map(|example| example.place.line);
    assert_eq!(lines.collect::<Vec<usize>>(), [1, 4, 1, 2, 1]);
    assert_eq!(dataset.examples[1].id, "2abc-A");
    assert_eq!(dataset.examples[3].id, "secondary_structure_valid#1");
}

#[test]
fn tape_has_folds_and_values() {
    let train = r#"[{"primary": "SEQ", "fold_label": 10}, {"primary": "SE", "fold_label": 9}]"#;
    let test = r#"[{"primary": "QQ", "fold_label": 10}]"#;
    let (dataset, _) = preset(
        "fold",
        &[
            ("remote_homology_train.json", train),
            ("remote_homology_test_fold_holdout.json", test),
        ],
    );
    assert_eq!(dataset.classes, ["9", "10"]);
    assert_eq!(classes(&dataset), ["10", "9", "10"]);
    let holdout = Split::Test("test_fold_holdout".into());
    assert_eq!(dataset.examples[2].split, Some(holdout));
    for (name, field) in [
        ("fluorescence", "log_fluorescence"),
        ("stability", "stability_score"),
    ] {
        let train = format!(r#"[{{"primary": "SEQ", "{field}": [3.5]}}]"#);
        let test = format!(r#"{{"primary": "SEV", "{field}": 1.25}}"#);
        let (dataset, _) = preset(name, &[("x_train.json", &train), ("x_test.json", &test)]);
        assert_eq!(values(&dataset), [3.5, 1.25]);
    }
}

#[test]
fn tape_has_positions_of_residues() {
    let record = r#"{"primary": "SEQWE", "valid_mask": [1, 1, 1, 0, 1],
        "tertiary": [[0, 0, 0], [0, 7.9, 0], [0, 8.0, 0], [0, 1, 0], [null, null, null]]}"#;
    let (dataset, _) = preset("contacts", &[("ts50.json", record)]);
    let expected = Contacts {
        resolved: vec![true, true, true, false, false],
        pairs: vec![(0, 1), (1, 2)],
    };
    assert_eq!(dataset.examples[0].target, Target::Contacts(expected));
}

#[test]
fn letters_that_the_vocabulary_lacks_become_x_and_are_counted() {
    let (dataset, counts) = preset("q3", &[("all.fasta", ">a TARGET=HEC\nSJj\n")]);
    assert_eq!(dataset.examples[0].sequence, "SXX");
    assert_eq!(counts.replaced, 2);
}

#[test]
fn what_is_too_long_is_left_out_and_counted() {
    let made = Made::new(&[("all.fasta", ">a TARGET=HEC\nSEQ\n>b TARGET=HE\nSE\n")]);
    let mut wanted = reading(Kind::ResidueClasses);
    wanted.max_length = Some(2);
    let (dataset, counts) = super::super::read(&made.files(&["all.fasta"]), &wanted).unwrap();
    assert_eq!(dataset.examples.len(), 1);
    assert_eq!((counts.read, counts.too_long), (2, 1));
    wanted.max_length = Some(1);
    let error = made.error(&made.files(&["all.fasta"]), &wanted);
    assert_eq!(error, "none of the 2 proteins can be used: 2 too long");
}
