//! What can be wrong with the values of settings: whoever owns settings reports their problems
//! here.

use std::borrow::Cow;
use std::fmt;

/// One thing that is wrong with a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The dotted key to change.
    pub key: Cow<'static, str>,
    /// What is wrong: the value found and the rule it breaks.
    pub message: String,
    /// What to do, where `message` does not say it.
    pub advice: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.key, self.message)?;
        match &self.advice {
            Some(advice) => write!(f, ": {advice}"),
            None => Ok(()),
        }
    }
}

/// The problems found so far. Each check adds one where its setting breaks a rule.
#[derive(Debug, Default)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    /// Adds a problem unless the setting `holds`.
    pub fn unless(&mut self, holds: bool, key: &'static str, message: String, advice: String) {
        if !holds {
            self.0.push(Problem {
                key: key.into(),
                message,
                advice: Some(advice),
            });
        }
    }

    /// A count of 1 or more.
    pub fn positive(&mut self, key: &'static str, value: impl Into<Count>) {
        let Count(value) = value.into();
        self.unless(value > 0, key, "is 0".into(), "set it to 1 or more".into());
    }

    /// A count of at most `most`.
    pub fn at_most(&mut self, key: &'static str, value: usize, most: usize) {
        self.unless(
            value <= most,
            key,
            format!("is {value}"),
            format!("set it to {most} or less"),
        );
    }

    /// A finite number above 0.
    pub fn positive_number(&mut self, key: &'static str, value: f64) {
        let holds = value.is_finite() && value > 0.0;
        self.unless(
            holds,
            key,
            format!("is {value}"),
            "set it to a number above 0".into(),
        );
    }

    /// A finite number, 0 or above.
    pub fn not_negative(&mut self, key: &'static str, value: f64) {
        let holds = value.is_finite() && value >= 0.0;
        self.unless(
            holds,
            key,
            format!("is {value}"),
            "set it to 0 or a number above".into(),
        );
    }

    /// A number from 0 to below 1.
    pub fn share(&mut self, key: &'static str, value: f64) {
        let holds = (0.0..1.0).contains(&value);
        self.unless(
            holds,
            key,
            format!("is {value}"),
            "set it to a number from 0 to below 1".into(),
        );
    }
}

/// A count of either width.
pub struct Count(u64);

impl From<u64> for Count {
    fn from(value: u64) -> Self {
        Self(value)
    }
}

impl From<usize> for Count {
    fn from(value: usize) -> Self {
        Self(value as u64)
    }
}
