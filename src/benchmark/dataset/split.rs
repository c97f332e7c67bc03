//! The names that files give to the parts of a split.

use super::Split;
use super::error::Fault;

/// The part that a name of a set stands for. `tests` are the names of test sets, in any case.
pub(super) fn of_set(name: &str, tests: &[String]) -> Option<Split> {
    let lower = name.to_ascii_lowercase();
    let known = tests.iter().find(|test| test.eq_ignore_ascii_case(name));
    match lower.as_str() {
        _ if known.is_some() => known.cloned().map(Split::Test),
        "train" | "training" => Some(Split::Train),
        "val" | "valid" | "validation" => Some(Split::Validation),
        _ => {
            let number = lower.strip_prefix("test")?;
            let digits = number.bytes().all(|byte| byte.is_ascii_digit());
            digits.then_some(Split::Test(lower))
        }
    }
}

/// The part that the name of a file stands for: what follows an underscore and is a set, the
/// longest such end. `None` where the name says nothing.
pub(super) fn of_file(stem: &str, tests: &[String]) -> Option<Split> {
    let ends = stem.match_indices('_').map(|(at, _)| &stem[at + 1..]);
    std::iter::once(stem)
        .chain(ends)
        .find_map(|end| of_set(end, tests))
}

/// Moves what is flagged for validation from training to it, as biotrainer and FLIP do.
pub(super) fn with_flag(split: Split, flag: &str, id: &str) -> Result<Split, Fault> {
    let validation = match flag.to_ascii_lowercase().as_str() {
        "true" | "1" => true,
        "" | "false" | "0" | "nan" => false,
        _ => return Err(Fault::NotAFlag { found: flag.into() }),
    };
    match (split, validation) {
        (Split::Test(_), true) => Err(Fault::ValidationOfTest { id: id.into() }),
        (_, true) => Ok(Split::Validation),
        (split, false) => Ok(split),
    }
}

/// The fault of a name that is no set.
pub(super) fn unknown(id: &str, found: &str) -> Fault {
    Fault::NotASet {
        id: id.into(),
        found: found.into(),
        expected: "train, val, test or the name of a test set".into(),
    }
}
