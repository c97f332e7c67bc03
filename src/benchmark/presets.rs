//! The public benchmarks by name: what each predicts, and the files it has.

use super::dataset::{Field, Kind, Reading, States};

/// A public benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preset {
    /// As it is given on the command line.
    pub name: &'static str,
    /// What is predicted, in a few words.
    pub about: &'static str,
    /// What is predicted.
    pub kind: Kind,
    /// Where TAPE's JSON has the label.
    pub field: Option<Field>,
    /// What becomes of states of residues.
    pub states: States,
    /// Its files, as published.
    pub files: &'static str,
    /// Its test sets by name. None: one set, `test`.
    pub tests: &'static [&'static str],
}

impl Preset {
    /// The preset of a name.
    pub fn named(name: &str) -> Option<&'static Preset> {
        PRESETS.iter().find(|preset| preset.name == name)
    }

    /// How its files are read.
    pub fn reading(&self, max_length: Option<usize>) -> Reading {
        Reading {
            kind: self.kind,
            field: self.field,
            states: self.states,
            tests: self.tests.iter().map(|&name| name.to_owned()).collect(),
            max_length,
        }
    }
}

/// Test sets of NetSurfP-2.0, and CASP14, which came after it.
const STRUCTURE_TESTS: &[&str] = &["CASP12", "CASP14", "CB513", "TS115"];

const SECONDARY_STRUCTURE: Preset = Preset {
    name: "q3",
    about: "secondary structure in three states (NetSurfP-2.0)",
    kind: Kind::ResidueClasses,
    field: Some(Field::SecondaryStructure),
    states: States::Three,
    files: "secondary_structure_{train,valid,casp12,casp14,cb513,ts115}.json",
    tests: STRUCTURE_TESTS,
};

const VALUE: Preset = Preset {
    name: "binding",
    about: "binding of a protein's variants, such as an antibody's",
    kind: Kind::SequenceValue,
    field: Some(Field::Target),
    states: States::AsWritten,
    files: "a table of FLIP or ProteinGym",
    tests: &[],
};

const CLASS: Preset = Preset {
    name: "deeploc",
    about: "where in the cell a protein is (DeepLoc, ten classes)",
    kind: Kind::SequenceClasses,
    field: Some(Field::Class),
    states: States::AsWritten,
    files: "one FASTA file, such as FLIP's mixed_soft.fasta",
    tests: &["setHARD"],
};

/// All presets, in the order in which they are listed.
pub const PRESETS: &[Preset] = &[
    SECONDARY_STRUCTURE,
    Preset {
        name: "q8",
        about: "secondary structure in DSSP's eight states (NetSurfP-2.0)",
        states: States::AsWritten,
        ..SECONDARY_STRUCTURE
    },
    Preset {
        name: "disorder",
        about: "residues without a fixed structure",
        field: Some(Field::Disorder),
        states: States::AsWritten,
        files: "one FASTA file, a digit for each residue in TARGET= (1: disordered)",
        tests: &[],
        ..SECONDARY_STRUCTURE
    },
    Preset {
        name: "contacts",
        about: "pairs of residues under 8 angstrom apart (ProteinNet)",
        kind: Kind::Contacts,
        field: Some(Field::Tertiary),
        states: States::AsWritten,
        files: "proteinnet_{train,valid,test}.json",
        tests: &["CASP12", "CASP14"],
    },
    Preset {
        name: "fold",
        about: "the fold of a domain (remote homology, 1,195 classes)",
        field: Some(Field::FoldLabel),
        files: "remote_homology_{train,valid,test_fold_holdout,...}.json",
        tests: &[
            "test_fold_holdout",
            "test_superfamily_holdout",
            "test_family_holdout",
        ],
        ..CLASS
    },
    CLASS,
    Preset {
        name: "solubility",
        about: "whether a protein is soluble when expressed",
        files: "one FASTA file, TARGET=0 or TARGET=1",
        tests: &[],
        ..CLASS
    },
    Preset {
        name: "fluorescence",
        about: "brightness of green fluorescent protein's variants",
        field: Some(Field::LogFluorescence),
        files: "fluorescence_{train,valid,test}.json",
        ..VALUE
    },
    Preset {
        name: "stability",
        about: "stability of small designed proteins",
        field: Some(Field::StabilityScore),
        files: "stability_{train,valid,test}.json",
        ..VALUE
    },
    Preset {
        name: "gb1",
        about: "binding of variants of protein G's domain B1 (FLIP)",
        files: "one table, such as two_vs_rest.csv",
        ..VALUE
    },
    Preset {
        name: "thermostability",
        about: "melting temperatures in degrees Celsius (FLIP, Meltome atlas)",
        files: "one table, such as mixed_split.csv",
        ..VALUE
    },
    VALUE,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_find_their_presets() {
        for preset in PRESETS {
            assert_eq!(Preset::named(preset.name), Some(preset));
        }
        assert_eq!(Preset::named("q4"), None);
    }
}
