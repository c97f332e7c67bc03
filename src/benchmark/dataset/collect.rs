//! Labelled sequences become a dataset: letters, lengths, ids, sets and classes are checked here,
//! the same for every format.

use std::collections::{BTreeMap, HashMap, HashSet};

use ankh_data::Tokenizer;

use super::error::{Error, Fault};
use super::{
    Contacts, Counts, Dataset, Example, Files, Kind, Place, Reading, Split, States, Target, states,
};

/// A labelled sequence as a file has it.
pub(super) struct Labelled {
    pub id: String,
    pub sequence: String,
    pub split: Option<Split>,
    pub label: Label,
    pub place: Place,
}

/// A label as a file has it.
pub(super) enum Label {
    States(Vec<Option<char>>),
    Class(String),
    Value(f64),
    Contacts(Contacts),
}

impl Label {
    /// The label of a whole sequence.
    pub fn of(kind: Kind, text: &str, id: &str, place: &Place) -> Result<Label, Error> {
        if let Kind::SequenceClasses = kind {
            return Ok(Label::Class(text.to_owned()));
        }
        match text.parse::<f64>() {
            Ok(value) if value.is_finite() => Ok(Label::Value(value)),
            _ => {
                let (id, found) = (id.to_owned(), text.to_owned());
                Err(Error::at(place, Fault::NotANumber { id, found }))
            }
        }
    }
}

/// Checks that what is per residue is as long as the sequence.
pub(super) fn same_length(
    id: &str,
    what: &'static str,
    found: usize,
    expected: usize,
) -> Result<(), Fault> {
    match found == expected {
        true => Ok(()),
        false => Err(Fault::OtherLength {
            id: id.into(),
            what,
            found,
            expected,
        }),
    }
}

/// Takes what readers find.
pub(super) struct Collector<'a> {
    pub reading: &'a Reading,
    pub counts: Counts,
    examples: Vec<Labelled>,
    places: HashMap<String, Place>,
}

impl<'a> Collector<'a> {
    pub fn new(reading: &'a Reading) -> Self {
        Collector {
            reading,
            counts: Counts::default(),
            examples: Vec::new(),
            places: HashMap::new(),
        }
    }

    /// Checks and takes a sequence, or counts why it is left out.
    pub fn add(&mut self, mut labelled: Labelled) -> Result<(), Error> {
        let place = labelled.place.clone();
        let fault = |fault| Error::at(&place, fault);
        let id = labelled.id.clone();
        if let Some(first) = self.places.insert(id.clone(), place.clone()) {
            return Err(fault(Fault::Duplicate { id, first }));
        }
        let (sequence, replaced) = residues(&id, &labelled.sequence).map_err(fault)?;
        if self
            .reading
            .max_length
            .is_some_and(|most| sequence.len() > most)
        {
            self.counts.too_long += 1;
            return Ok(());
        }
        if let Label::States(states) = &mut labelled.label {
            if let States::Three = self.reading.states {
                states::reduce(&id, states).map_err(fault)?;
            }
            if states.iter().all(Option::is_none) {
                return Err(fault(Fault::NothingLabelled { id }));
            }
        }
        self.counts.replaced += replaced;
        labelled.sequence = sequence;
        self.examples.push(labelled);
        Ok(())
    }

    /// All of it, after the checks that need all of it.
    pub fn finish(self, files: &Files) -> Result<(Dataset, Counts), Error> {
        let mut counts = self.counts;
        if self.examples.is_empty() {
            return Err(Error::NothingLeft {
                read: counts.read,
                reasons: counts.reasons(),
            });
        }
        check_split(&self.examples, files)?;
        counts.shared = shared(&self.examples);
        let classes = classes(&self.examples)?;
        check_classes(&self.examples)?;
        let index: HashMap<&str, u16> = classes.iter().map(String::as_str).zip(0..).collect();
        let indices = |state: char| index[&*state.encode_utf8(&mut [0; 4])];
        let examples = self.examples.into_iter().map(|labelled| Example {
            id: labelled.id,
            sequence: labelled.sequence,
            split: labelled.split,
            target: match labelled.label {
                Label::States(states) => Target::ResidueClasses(
                    states.into_iter().map(|state| state.map(indices)).collect(),
                ),
                Label::Class(class) => Target::Class(index[class.as_str()]),
                Label::Value(value) => Target::Value(value),
                Label::Contacts(contacts) => Target::Contacts(contacts),
            },
            place: labelled.place,
        });
        let examples = examples.collect();
        let kind = self.reading.kind;
        Ok((
            Dataset {
                kind,
                classes,
                examples,
            },
            counts,
        ))
    }
}

/// Capitals of the vocabulary, and how many letters became `X`: `J`, which the vocabulary lacks.
/// Gaps and stops are no residues: labels would no longer be beside theirs.
fn residues(id: &str, text: &str) -> Result<(String, usize), Fault> {
    if text.is_empty() {
        return Err(Fault::NoResidues { id: id.into() });
    }
    let tokenizer = Tokenizer::ankh();
    let mut replaced = 0;
    let mut sequence = String::with_capacity(text.len());
    for (index, letter) in text.chars().enumerate() {
        let capital = letter.to_ascii_uppercase();
        let known = u8::try_from(capital).is_ok_and(|byte| tokenizer.residue_id(byte).is_some());
        match capital {
            capital if known => sequence.push(capital),
            'J' => {
                replaced += 1;
                sequence.push('X');
            }
            _ => {
                return Err(Fault::NotAResidue {
                    id: id.into(),
                    letter,
                    position: index + 1,
                });
            }
        }
    }
    Ok((sequence, replaced))
}

/// Either nothing is of a set, or all is, with something to train and something to test on.
fn check_split(examples: &[Labelled], files: &Files) -> Result<(), Error> {
    let without = examples.iter().find(|example| example.split.is_none());
    if examples.iter().all(|example| example.split.is_none()) {
        return Ok(());
    }
    if let Some(example) = without {
        let id = example.id.clone();
        return Err(Error::at(&example.place, Fault::NoSet { id }));
    }
    let mut splits = examples.iter().filter_map(|example| example.split.as_ref());
    if !splits.clone().any(|split| *split == Split::Train) {
        let files = files.sequences.clone();
        return Err(Error::NoTraining { files });
    }
    if !splits.any(|split| matches!(split, Split::Test(_))) {
        let files = files.sequences.clone();
        return Err(Error::NoTest { files });
    }
    Ok(())
}

/// How many sequences of test sets are in training or validation, letter by letter.
fn shared(examples: &[Labelled]) -> usize {
    let test = |example: &&Labelled| matches!(example.split, Some(Split::Test(_)));
    let fitted = examples
        .iter()
        .filter(|one| one.split.is_some() && !test(one));
    let fitted: HashSet<&str> = fitted.map(|one| one.sequence.as_str()).collect();
    let tested = examples.iter().filter(test);
    tested
        .filter(|one| fitted.contains(one.sequence.as_str()))
        .count()
}

fn for_each_class<'a>(label: &'a Label, each: &mut dyn FnMut(&str)) {
    match label {
        Label::States(states) => {
            let mut states: Vec<char> = states.iter().flatten().copied().collect();
            states.sort_unstable();
            states.dedup();
            states
                .iter()
                .for_each(|state| each(state.encode_utf8(&mut [0; 4])));
        }
        Label::Class(class) => each(class),
        Label::Value(_) | Label::Contacts(_) => {}
    }
}

/// All classes, numbers by value and before words, those in alphabetical order.
fn classes(examples: &[Labelled]) -> Result<Vec<String>, Error> {
    let mut found = BTreeMap::new();
    for example in examples {
        for_each_class(&example.label, &mut |class| {
            let number = class.parse::<u64>().unwrap_or(u64::MAX);
            found.insert((number, class.to_owned()), ());
        });
    }
    let classes: Vec<String> = found.into_keys().map(|(_, class)| class).collect();
    match classes.as_slice() {
        [class] => Err(Error::OneClass {
            class: class.clone(),
        }),
        _ if classes.len() > usize::from(u16::MAX) => Err(Error::TooManyClasses {
            found: classes.len(),
        }),
        _ => Ok(classes),
    }
}

/// Every class of validation and tests is in training, where there is a split.
fn check_classes(examples: &[Labelled]) -> Result<(), Error> {
    let mut trained = HashSet::new();
    let training = |example: &&Labelled| matches!(example.split, Some(Split::Train));
    for example in examples.iter().filter(training) {
        for_each_class(&example.label, &mut |class| {
            if !trained.contains(class) {
                trained.insert(class.to_owned());
            }
        });
    }
    let rest = |example: &&Labelled| example.split.is_some() && !training(example);
    for example in examples.iter().filter(rest) {
        let mut unseen = None;
        for_each_class(&example.label, &mut |class| {
            if !trained.contains(class) {
                unseen.get_or_insert_with(|| class.to_owned());
            }
        });
        if let Some(class) = unseen {
            let id = example.id.clone();
            return Err(Error::at(&example.place, Fault::UnseenClass { id, class }));
        }
    }
    Ok(())
}
