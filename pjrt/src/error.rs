//! What can go wrong between ankh and a plugin.

use std::fmt;
use std::path::PathBuf;

use crate::element_type::ElementType;
use crate::platform::Platform;

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong between ankh and a plugin.
#[allow(missing_docs)]
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// No plugin was found for the platform.
    #[error(
        "no PJRT plugin for {platform} found; searched {}; set ANKH_PJRT_PLUGIN to the path of the \
         plugin's library",
        searched.join(", ")
    )]
    NoPlugin {
        platform: Platform,
        searched: Vec<String>,
    },
    /// The plugin's file cannot be read.
    #[error("cannot read the plugin {}: {reason}", path.display())]
    UnreadablePlugin { path: PathBuf, reason: String },
    /// The file is something other than a PJRT plugin.
    #[error("{} is not a PJRT plugin: {reason}", path.display())]
    NotAPlugin { path: PathBuf, reason: String },
    /// The plugin is for another kind of processor.
    #[error("the plugin {} is built for {found}, this machine is {expected}", path.display())]
    WrongArchitecture {
        path: PathBuf,
        found: String,
        expected: &'static str,
    },
    /// The plugin's file is shorter than its own headers say.
    #[error(
        "the plugin {} is truncated: its headers speak of {expected} bytes, the file has {found}; fetch it again",
        path.display()
    )]
    TruncatedPlugin {
        path: PathBuf,
        expected: u64,
        found: u64,
    },
    /// The plugin speaks another major version of the C API.
    #[error("the plugin {} speaks PJRT C API {major}.{minor}, expected {expected_major}.x", path.display())]
    UnsupportedVersion {
        path: PathBuf,
        major: i32,
        minor: i32,
        expected_major: i32,
    },
    /// The plugin is too old to have this function, or leaves it out.
    #[error("the plugin {} (PJRT C API {}.{}) has no {function}", path.display(), version.0, version.1)]
    MissingFunction {
        function: &'static str,
        version: (i32, i32),
        path: PathBuf,
    },
    /// The plugin was built with a longer argument structure than this crate declares.
    #[error(
        "{function}: the plugin is newer than these bindings: it expects {structure} of {expected} bytes and was \
         given {found}; use an older plugin or a newer ankh"
    )]
    StructTooOld {
        function: &'static str,
        structure: String,
        expected: usize,
        found: usize,
    },
    /// The plugin's named values are of a size that they cannot have.
    #[error(
        "the plugin's named value {index} of {length} says that it takes {found} bytes, where {expected} were expected{}; \
         use another version of the plugin",
        if *.index == 0 { " or some more" } else { " as in those before it" }
    )]
    NamedValueSize {
        index: usize,
        length: usize,
        expected: usize,
        found: usize,
    },
    /// The system does not start a thread.
    #[error("cannot start a thread to wake tasks: {reason}")]
    Thread { reason: String },
    /// The plugin reports an error.
    #[error("{function}: {code}: {message}")]
    Pjrt {
        code: Code,
        message: String,
        function: &'static str,
    },
    /// A tensor holds another element type than was asked for.
    #[error("expected a tensor of {expected}, found one of {found}")]
    ElementTypeMismatch {
        expected: ElementType,
        found: ElementType,
    },
    /// A tensor's bytes do not fit its dimensions.
    #[error("a tensor of {element_type} {dims:?} takes {} bytes, found {found}", expected.map_or("too many".into(), |n| n.to_string()))]
    TensorSize {
        element_type: ElementType,
        dims: Vec<i64>,
        expected: Option<usize>,
        found: usize,
    },
    /// The plugin has an element type that this crate does not know.
    #[error("the plugin's element type {0} is not supported")]
    UnsupportedElementType(i32),
    /// The argument lists do not fit the devices.
    #[error(
        "expected {expected} argument lists, one per addressable device of the executable, found {found}"
    )]
    ArgumentLists { expected: usize, found: usize },
    /// The argument lists differ in length between devices.
    #[error("device {device} is given {found} arguments, device 0 {expected}")]
    ArgumentCount {
        device: usize,
        expected: usize,
        found: usize,
    },
    /// Something is used with a client that it does not belong to.
    #[error("{what} belongs to another client")]
    AnotherClient { what: String },
    /// A part of an array reaches outside it, or is not of the shape of what is to be put there.
    #[error("{of} has no part {part}, or not of that shape")]
    Part { part: String, of: String },
    /// The program cannot be decoded as a module.
    #[error("expected a program of format hlo or hlo_with_config, found {format}: {reason}")]
    NotAModule { format: String, reason: String },
}

impl Error {
    /// The plugin's error code, if the plugin reported the error.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Pjrt { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// An error reported by the plugin, with the case of a short structure told apart.
    pub(crate) fn from_plugin(function: &'static str, code: i32, message: String) -> Self {
        if let Some((structure, expected, found)) = parse_struct_size(&message) {
            return Self::StructTooOld {
                function,
                structure,
                expected,
                found,
            };
        }
        Self::Pjrt {
            code: Code::from_raw(code),
            message,
            function,
        }
    }
}

/// Reads "Unexpected NAME size: expected 88, got 72. ..." as the structure and its two sizes.
fn parse_struct_size(message: &str) -> Option<(String, usize, usize)> {
    let (structure, sizes) = message
        .strip_prefix("Unexpected ")?
        .split_once(" size: expected ")?;
    let (expected, found) = sizes.split_once(", got ")?;
    let digits = found.find(|c: char| !c.is_ascii_digit());
    let found = &found[..digits.unwrap_or(found.len())];
    Some((
        structure.to_owned(),
        expected.parse().ok()?,
        found.parse().ok()?,
    ))
}

/// The kinds of error a plugin reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum Code {
    Cancelled,
    Unknown,
    InvalidArgument,
    DeadlineExceeded,
    NotFound,
    AlreadyExists,
    PermissionDenied,
    ResourceExhausted,
    FailedPrecondition,
    Aborted,
    OutOfRange,
    Unimplemented,
    Internal,
    Unavailable,
    DataLoss,
    Unauthenticated,
}

impl Code {
    fn from_raw(code: i32) -> Self {
        match code {
            1 => Self::Cancelled,
            3 => Self::InvalidArgument,
            4 => Self::DeadlineExceeded,
            5 => Self::NotFound,
            6 => Self::AlreadyExists,
            7 => Self::PermissionDenied,
            8 => Self::ResourceExhausted,
            9 => Self::FailedPrecondition,
            10 => Self::Aborted,
            11 => Self::OutOfRange,
            12 => Self::Unimplemented,
            13 => Self::Internal,
            14 => Self::Unavailable,
            15 => Self::DataLoss,
            16 => Self::Unauthenticated,
            _ => Self::Unknown,
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cancelled => "cancelled",
            Self::Unknown => "unknown error",
            Self::InvalidArgument => "invalid argument",
            Self::DeadlineExceeded => "deadline exceeded",
            Self::NotFound => "not found",
            Self::AlreadyExists => "already exists",
            Self::PermissionDenied => "permission denied",
            Self::ResourceExhausted => "resource exhausted",
            Self::FailedPrecondition => "failed precondition",
            Self::Aborted => "aborted",
            Self::OutOfRange => "out of range",
            Self::Unimplemented => "unimplemented",
            Self::Internal => "internal error",
            Self::Unavailable => "unavailable",
            Self::DataLoss => "data loss",
            Self::Unauthenticated => "unauthenticated",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_structure_is_told_with_both_sizes() {
        let message = "Unexpected PJRT_Client_Create_Args size: expected 88, got 72. Check installed software versions. \
             The framework PJRT API version is 0.81.";
        let error = Error::from_plugin("PJRT_Client_Create", 3, message.to_owned());
        assert!(
            matches!(&error, Error::StructTooOld { structure, expected: 88, found: 72, .. }
                if structure == "PJRT_Client_Create_Args"),
            "{error:?}"
        );
    }

    #[test]
    fn any_other_message_keeps_its_code() {
        let error = Error::from_plugin("PJRT_Client_Compile", 8, "Unexpected heat".to_owned());
        assert_eq!(error.code(), Some(Code::ResourceExhausted));
        assert_eq!(
            error.to_string(),
            "PJRT_Client_Compile: resource exhausted: Unexpected heat"
        );
    }
}
