//! Names of axes.

use std::fmt;

/// The name of a mesh axis, or of a dimension of an array (a logical axis).
///
/// Strings do not convert into it. An application gives its names as enums that do, so that a
/// misspelt name does not compile.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AxisName(&'static str);

impl AxisName {
    /// An axis called `name`.
    pub const fn new(name: &'static str) -> AxisName {
        AxisName(name)
    }

    /// The name.
    pub const fn as_str(self) -> &'static str {
        self.0
    }

    pub(crate) fn all(names: &[impl Into<AxisName> + Copy]) -> Vec<AxisName> {
        names.iter().map(|&name| name.into()).collect()
    }
}

impl fmt::Display for AxisName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl fmt::Debug for AxisName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.0)
    }
}
