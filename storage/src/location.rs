//! Names of places that hold data: a path, or a URL with the schemes `file`, `gs` and `s3`.
//!
//! A location is parsed once and cannot be wrong later. It knows nothing of whether there is
//! anything.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A file or a directory: local, or in a bucket of Google Cloud Storage or of a server that speaks
/// S3.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Location(Address);

/// Where a location is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Address {
    Local(PathBuf),
    Remote {
        service: Service,
        bucket: String,
        /// Without slashes at its ends; empty for the bucket itself.
        key: String,
    },
}

/// Who keeps the objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Service {
    Google,
    S3,
}

impl Service {
    pub(crate) fn scheme(self) -> &'static str {
        match self {
            Service::Google => "gs",
            Service::S3 => "s3",
        }
    }
}

impl Location {
    /// The location that a text names: `s3://BUCKET/KEY`, `gs://BUCKET/KEY`, `file:PATH` (`%XX` for
    /// special bytes), else a path as it is.
    ///
    /// # Errors
    /// [`Error::Location`] for an empty text, another scheme, a URL without bucket, a key that no
    /// object can have.
    pub fn parse(text: &str) -> Result<Location> {
        let wrong = |reason: String| Error::Location {
            text: text.to_owned(),
            reason,
        };
        if text.is_empty() {
            return Err(wrong("it is empty".to_owned()));
        }
        let Some((scheme, rest)) = split_scheme(text) else {
            return Ok(Location(Address::Local(PathBuf::from(text))));
        };
        let service = match scheme {
            "file" => {
                return file_path(rest)
                    .map(|path| Location(Address::Local(path)))
                    .map_err(wrong);
            }
            "gs" => Service::Google,
            "s3" => Service::S3,
            _ => {
                return Err(wrong(format!(
                    "the scheme {scheme:?} is not known: expected file:PATH, gs://BUCKET/KEY, s3://BUCKET/KEY or a path"
                )));
            }
        };
        let Some(rest) = rest.strip_prefix("//") else {
            return Err(wrong(format!("expected {scheme}://BUCKET/KEY")));
        };
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            return Err(wrong(format!(
                "it names no bucket: expected {scheme}://BUCKET/KEY"
            )));
        }
        if let Some(bad) = bucket.chars().find(|c| !is_of_a_bucket(*c)) {
            return Err(wrong(format!("a bucket's name has no {bad:?}")));
        }
        let key = key.strip_suffix('/').unwrap_or(key);
        if !key.is_empty() && key.split('/').any(str::is_empty) {
            return Err(wrong("a part of its key is empty".to_owned()));
        }
        object_store::path::Path::parse(key).map_err(|error| wrong(error.to_string()))?;
        Ok(Location(Address::Remote {
            service,
            bucket: bucket.to_owned(),
            key: key.to_owned(),
        }))
    }

    /// The same place whatever the working directory becomes: a relative path is taken from the
    /// present one, without looking at what is there. A URL stays as it is.
    pub fn absolute(&self) -> std::io::Result<Location> {
        Ok(match &self.0 {
            Address::Local(path) => Location(Address::Local(std::path::absolute(path)?)),
            Address::Remote { .. } => self.clone(),
        })
    }

    /// What `name` is below this directory. `name` may have several components, with `/`.
    pub fn join(&self, name: &str) -> Location {
        Location(match &self.0 {
            Address::Local(path) => Address::Local(path.join(name)),
            Address::Remote {
                service,
                bucket,
                key,
            } => Address::Remote {
                service: *service,
                bucket: bucket.clone(),
                key: match key.as_str() {
                    "" => name.to_owned(),
                    key => format!("{key}/{name}"),
                },
            },
        })
    }

    /// The directory that this is in; `None` for a bucket or a root.
    pub fn parent(&self) -> Option<Location> {
        Some(Location(match &self.0 {
            Address::Local(path) => {
                path.file_name()?;
                match path.parent() {
                    Some(parent) if parent.as_os_str().is_empty() => Address::Local(".".into()),
                    parent => Address::Local(parent?.to_owned()),
                }
            }
            Address::Remote {
                service,
                bucket,
                key,
            } => {
                if key.is_empty() {
                    return None;
                }
                Address::Remote {
                    service: *service,
                    bucket: bucket.clone(),
                    key: key.rsplit_once('/').map_or("", |(parent, _)| parent).into(),
                }
            }
        }))
    }

    /// The last component; empty where there is none, as in a bucket, or where it is not Unicode.
    pub fn name(&self) -> &str {
        match &self.0 {
            Address::Local(path) => path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or(""),
            Address::Remote { key, .. } => key.rsplit('/').next().unwrap_or(""),
        }
    }

    /// The path, of a local one.
    pub fn local(&self) -> Option<&Path> {
        match &self.0 {
            Address::Local(path) => Some(path),
            Address::Remote { .. } => None,
        }
    }

    /// The service and the bucket of a remote one.
    pub(crate) fn bucket(&self) -> Option<(Service, &str)> {
        match &self.0 {
            Address::Local(_) => None,
            Address::Remote {
                service, bucket, ..
            } => Some((*service, bucket)),
        }
    }

    pub(crate) fn address(&self) -> &Address {
        &self.0
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Address::Local(path) => path.display().fmt(f),
            Address::Remote {
                service,
                bucket,
                key,
            } => {
                let text = match key.as_str() {
                    "" => format!("{}://{bucket}", service.scheme()),
                    key => format!("{}://{bucket}/{key}", service.scheme()),
                };
                f.pad(&text)
            }
        }
    }
}

impl FromStr for Location {
    type Err = Error;

    fn from_str(text: &str) -> Result<Location> {
        Location::parse(text)
    }
}

impl TryFrom<String> for Location {
    type Error = Error;

    fn try_from(text: String) -> Result<Location> {
        Location::parse(&text)
    }
}

impl From<Location> for String {
    fn from(location: Location) -> String {
        location.to_string()
    }
}

impl From<PathBuf> for Location {
    fn from(path: PathBuf) -> Location {
        Location(Address::Local(path))
    }
}

impl From<&Path> for Location {
    fn from(path: &Path) -> Location {
        Location(Address::Local(path.to_owned()))
    }
}

impl From<&PathBuf> for Location {
    fn from(path: &PathBuf) -> Location {
        path.as_path().into()
    }
}

impl From<&Location> for Location {
    fn from(location: &Location) -> Location {
        location.clone()
    }
}

/// Cuts a URL at its colon. A path with a colon is one unless it begins with a scheme that is known
/// or goes on with `//`.
fn split_scheme(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once(':')?;
    let letters = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
    let is_scheme =
        scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && scheme.chars().all(letters);
    let is_url = rest.starts_with("//") || matches!(scheme, "file" | "gs" | "s3");
    (is_scheme && is_url).then_some((scheme, rest))
}

fn is_of_a_bucket(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

/// The path of a `file:` URL, after the colon.
fn file_path(rest: &str) -> std::result::Result<PathBuf, String> {
    let path = match rest.strip_prefix("//") {
        None => rest,
        Some(rest) => {
            let start = rest.find('/').unwrap_or(rest.len());
            match &rest[..start] {
                "" | "localhost" => &rest[start..],
                host => {
                    return Err(format!(
                        "a file of the host {host} cannot be read: expected file:///PATH"
                    ));
                }
            }
        }
    };
    if path.is_empty() {
        return Err("it names no path: expected file:PATH".to_owned());
    }
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [first, others @ ..] = rest {
        rest = others;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = rest.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(byte.ok_or("a % in it is not followed by two hexadecimal digits")?);
        rest = &rest[2..];
    }
    String::from_utf8(bytes)
        .map(PathBuf::from)
        .map_err(|_| "its path is not Unicode".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_displayed_parses_to_the_same() {
        for text in [
            "s3://bucket",
            "s3://bucket/a/b.parquet",
            "gs://my_bucket.x/k",
            "data/set",
            "/abs/p",
            ".",
            "a:b",
            "C:x/y",
            "s3://b/with space/ü%20",
        ] {
            let location = Location::parse(text).unwrap();
            assert_eq!(location.to_string(), text);
            assert_eq!(Location::parse(&location.to_string()).unwrap(), location);
            let json = serde_json::to_string(&location).unwrap();
            assert_eq!(serde_json::from_str::<Location>(&json).unwrap(), location);
        }
    }

    #[test]
    fn file_urls_are_paths() {
        for (text, path) in [
            ("file:///a/b", "/a/b"),
            ("file://localhost/a%20b", "/a b"),
            ("file:/a", "/a"),
            ("file:a/b", "a/b"),
        ] {
            assert_eq!(
                Location::parse(text).unwrap().local(),
                Some(Path::new(path))
            );
        }
    }

    #[test]
    fn an_absolute_place_stays_and_a_relative_one_begins_here() {
        for text in [
            "s3://bucket/a/b",
            "gs://bucket",
            "/abs/p",
            "/with/link/../p",
        ] {
            let location = Location::parse(text).unwrap();
            assert_eq!(location.absolute().unwrap(), location, "{text}");
        }
        let here = std::env::current_dir().unwrap();
        for (text, path) in [
            ("data/set", "data/set"),
            ("./data", "data"),
            ("file:a%20b", "a b"),
            // A path that would be taken for a URL when it is written down as it is.
            ("file:s3%3Ax", "s3:x"),
        ] {
            let location = Location::parse(text).unwrap().absolute().unwrap();
            assert_eq!(location.local(), Some(here.join(path).as_path()), "{text}");
            assert_eq!(Location::parse(&location.to_string()).unwrap(), location);
        }
    }

    #[test]
    fn a_directory_has_one_spelling_with_and_without_slash() {
        let location = Location::parse("gs://bucket/dir/").unwrap();
        assert_eq!(location, Location::parse("gs://bucket/dir").unwrap());
        assert_eq!(
            Location::parse("gs://bucket/").unwrap(),
            Location::parse("gs://bucket").unwrap()
        );
    }

    #[test]
    fn joined_names_come_apart_again() {
        for text in ["s3://bucket", "s3://bucket/dir", "dir", "/dir"] {
            let directory = Location::parse(text).unwrap();
            let file = directory.join("train-00000.parquet");
            assert_eq!(file.name(), "train-00000.parquet");
            assert_eq!(file.parent(), Some(directory));
        }
        assert_eq!(Location::parse("s3://bucket").unwrap().parent(), None);
        assert_eq!(
            Location::parse("file").unwrap().parent(),
            Some(Location::parse(".").unwrap())
        );
    }

    #[test]
    fn a_wrong_location_says_what_is_expected() {
        for (text, words) in [
            ("", "empty"),
            (
                "http://host/x",
                "expected file:PATH, gs://BUCKET/KEY, s3://BUCKET/KEY",
            ),
            ("gcs://bucket/x", "\"gcs\""),
            ("s3:bucket/x", "s3://BUCKET/KEY"),
            ("s3:///x", "bucket"),
            ("s3://buck et/x", "' '"),
            ("gs://bucket//x", "empty"),
            ("gs://bucket/../x", ".."),
            ("file://host/x", "host"),
            ("file:", "path"),
            ("file:%zz", "hexadecimal"),
        ] {
            let message = Location::parse(text).unwrap_err().to_string();
            assert!(message.contains(words), "{text}: {message}");
        }
    }
}
