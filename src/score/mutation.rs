//! Substitutions as ProteinGym writes them: `A24G`, several joined by colons.

use std::fmt;

use super::Fault;

/// A residue in the place of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mutation {
    /// What the wild type has, a capital letter.
    pub from: u8,
    /// Where, counted from 0.
    pub position: usize,
    /// What the variant has.
    pub to: u8,
}

/// What stands for the wild type itself in the column of mutations.
const WILD_TYPE: &str = "WT";

/// The letter as a capital, if it is a residue. Every vocabulary has the same letters.
pub fn residue(letter: u8) -> Option<u8> {
    let known = ankh_data::Tokenizer::ankh().residue_id(letter).is_some();
    known.then(|| letter.to_ascii_uppercase())
}

/// The residues of a sequence in capitals.
pub fn residues(sequence: &str) -> Result<Vec<u8>, Fault> {
    let sequence = sequence.trim();
    let one = |(place, letter): (usize, char)| {
        let known = u8::try_from(letter).ok().and_then(residue);
        known.ok_or(Fault::UnknownResidue {
            letter,
            place: place + 1,
        })
    };
    let found: Vec<u8> = sequence
        .chars()
        .enumerate()
        .map(one)
        .collect::<Result<_, _>>()?;
    match found.is_empty() {
        true => Err(Fault::NoResidues),
        false => Ok(found),
    }
}

impl Mutation {
    /// The mutations of a variant, in the order of their positions; none of `WT`.
    pub fn parse_all(text: &str) -> Result<Vec<Mutation>, Fault> {
        let text = text.trim();
        if text.eq_ignore_ascii_case(WILD_TYPE) {
            return Ok(vec![]);
        }
        let mut mutations = text
            .split(':')
            .map(|mutation| Mutation::parse(mutation.trim()))
            .collect::<Result<Vec<_>, _>>()?;
        mutations.sort_by_key(|mutation| mutation.position);
        let twice = |pair: &&[Mutation]| pair[0].position == pair[1].position;
        match mutations.windows(2).find(twice) {
            Some(pair) => Err(Fault::Twice {
                position: pair[0].position + 1,
            }),
            None => Ok(mutations),
        }
    }

    fn parse(text: &str) -> Result<Mutation, Fault> {
        let malformed = || Fault::NotAMutation {
            text: text.to_owned(),
        };
        let mut letters = text.chars();
        let (from, to) = (letters.next(), letters.next_back());
        let (from, to) = from.zip(to).ok_or_else(malformed)?;
        let digits = letters.as_str();
        if from.is_ascii_digit() || to.is_ascii_digit() {
            return Err(malformed());
        }
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(malformed());
        }
        let position: usize = digits.parse().map_err(|_| malformed())?;
        let letter = |letter: char| {
            let known = u8::try_from(letter).ok().and_then(residue);
            known.ok_or_else(|| Fault::UnknownResidueIn {
                letter,
                mutation: text.to_owned(),
            })
        };
        Ok(Mutation {
            from: letter(from)?,
            position: position.checked_sub(1).ok_or_else(malformed)?,
            to: letter(to)?,
        })
    }

    /// Those that make `variant` of `wild_type`, which has the same length.
    pub fn between(wild_type: &[u8], variant: &[u8]) -> Vec<Mutation> {
        let pairs = wild_type.iter().zip(variant).enumerate();
        let changed = pairs.filter(|(_, (from, to))| from != to);
        changed
            .map(|(position, (&from, &to))| Mutation { from, position, to })
            .collect()
    }

    /// The variant of a wild type that has the mutations' residues.
    pub fn apply(mutations: &[Mutation], wild_type: &[u8]) -> Result<Vec<u8>, Fault> {
        let mut variant = wild_type.to_vec();
        for mutation in mutations {
            let length = wild_type.len();
            let place = variant.get_mut(mutation.position);
            let place = place.ok_or(Fault::Outside {
                mutation: *mutation,
                length,
            })?;
            if *place != mutation.from {
                let found = char::from(*place);
                return Err(Fault::OtherWildType {
                    mutation: *mutation,
                    found,
                });
            }
            *place = mutation.to;
        }
        Ok(variant)
    }

    /// The wild type of a variant.
    pub fn undo(mutations: &[Mutation], variant: &[u8]) -> Result<Vec<u8>, Fault> {
        let mut wild_type = variant.to_vec();
        for mutation in mutations {
            let length = variant.len();
            let place = wild_type.get_mut(mutation.position);
            let place = place.ok_or(Fault::Outside {
                mutation: *mutation,
                length,
            })?;
            if *place != mutation.to {
                let found = char::from(*place);
                return Err(Fault::OtherVariant {
                    mutation: *mutation,
                    found,
                });
            }
            *place = mutation.from;
        }
        Ok(wild_type)
    }
}

impl fmt::Display for Mutation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, to) = (char::from(self.from), char::from(self.to));
        write!(f, "{from}{}{to}", self.position + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mutations_are_undone_by_what_made_them() {
        let wild_type = residues("mktaya").unwrap();
        let mutations = Mutation::parse_all("A6G:m1V: T3T").unwrap();
        let variant = Mutation::apply(&mutations, &wild_type).unwrap();
        assert_eq!(variant, b"VKTAYG");
        assert_eq!(Mutation::undo(&mutations, &variant).unwrap(), wild_type);
        let changed = Mutation::between(&wild_type, &variant);
        let texts: Vec<String> = changed.iter().map(Mutation::to_string).collect();
        assert_eq!(texts, ["M1V", "A6G"]);
        assert_eq!(Mutation::parse_all("wt").unwrap(), []);
    }

    #[test]
    fn what_is_no_mutation_says_why() {
        let problem = |text: &str| Mutation::parse_all(text).unwrap_err().to_string();
        for text in [
            "",
            "A",
            "AG",
            "24G",
            "A24",
            "A0G",
            "A-1G",
            "A2.5G",
            "A1G:",
            "A99999999999999999999G",
        ] {
            let found = problem(text);
            assert!(found.contains("is no mutation"), "{text}: {found}");
        }
        assert!(problem("A24J").contains("`J` in A24J is no residue"));
        assert!(problem("A24*").contains("`*` in A24* is no residue"));
        assert!(problem("A2é").contains("`é`"));
        assert!(problem("A2G:K3L:A2C").contains("position 2"));
    }
}
