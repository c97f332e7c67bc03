//! When to try again, how long to wait, and what to say in the end.
//!
//! An operation is attempted until it succeeds, fails in a way that waiting cannot mend, or
//! exhausts the patience of [`StorageOptions`]. Between attempts lies a pause that doubles, drawn
//! at random so that many hosts do not come back together.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::{Location, StorageOptions};

/// Why one attempt failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The next attempt may succeed.
    Passing(String),
    /// No credentials could be had; they come from a server of their own, which may be slow to
    /// answer.
    Credentials(String),
    /// No attempt can succeed.
    Lasting(String),
    /// The credentials do not allow it.
    Refused(String),
    /// There is no such object, or no such bucket: the answer does not always say.
    Missing,
    /// There is no such bucket.
    NoBucket,
    /// The object is another than the one that is being read.
    Changed,
}

/// The first pause; the next ones double up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// Attempts to get credentials: where there is no server for them, there will be none.
const CREDENTIAL_ATTEMPTS: u32 = 3;

/// The attempts at one operation.
pub(crate) struct Attempts<'a> {
    options: &'a StorageOptions,
    retries: &'a AtomicU64,
    action: &'static str,
    location: &'a Location,
    start: Instant,
    /// In all, and since there was progress.
    failed: u32,
    stuck: u32,
}

impl<'a> Attempts<'a> {
    pub(crate) fn new(
        options: &'a StorageOptions,
        retries: &'a AtomicU64,
        action: &'static str,
        location: &'a Location,
    ) -> Self {
        Self {
            options,
            retries,
            action,
            location,
            start: Instant::now(),
            failed: 0,
            stuck: 0,
        }
    }

    /// Runs an operation until it succeeds or there is no hope.
    pub(crate) async fn run<T, F>(mut self, mut operation: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = object_store::Result<T>>,
    {
        loop {
            let failure = match tokio::time::timeout(self.options.timeout, operation()).await {
                Ok(Ok(result)) => return Ok(result),
                Ok(Err(error)) => Failure::from(error),
                Err(_) => self.late(),
            };
            self.failed(failure).await?;
        }
    }

    /// An attempt took too long.
    pub(crate) fn late(&self) -> Failure {
        Failure::Passing(format!("no complete answer in {:?}", self.options.timeout))
    }

    /// The attempt that fails next got something done all the same.
    pub(crate) fn progressed(&mut self) {
        self.stuck = 0;
    }

    /// Takes note of a failed attempt, and waits for the time of the next one.
    ///
    /// # Errors
    /// When there is to be no next one.
    pub(crate) async fn failed(&mut self, failure: Failure) -> Result<()> {
        self.failed += 1;
        self.stuck += 1;
        let location = || self.location.clone();
        let (reason, attempts) = match failure {
            Failure::Passing(reason) => (reason, self.options.attempts),
            Failure::Credentials(reason) if self.stuck < CREDENTIAL_ATTEMPTS => {
                (reason, self.options.attempts)
            }
            Failure::Credentials(reason) | Failure::Refused(reason) => {
                return Err(Error::Refused {
                    action: self.action,
                    location: location(),
                    reason,
                });
            }
            Failure::Lasting(reason) => {
                return Err(Error::Request {
                    action: self.action,
                    location: location(),
                    reason,
                });
            }
            Failure::Missing => {
                return Err(Error::NoSuchObject {
                    location: location(),
                });
            }
            Failure::NoBucket => {
                return Err(Error::NoSuchBucket {
                    location: location(),
                });
            }
            Failure::Changed => {
                return Err(Error::Changed {
                    location: location(),
                });
            }
        };
        let pause = pause(self.stuck);
        if self.stuck >= attempts || self.start.elapsed() + pause > self.options.patience {
            let seconds = self.start.elapsed().as_secs_f64();
            return Err(Error::Request {
                action: self.action,
                location: location(),
                reason: format!(
                    "{reason} (given up after {} attempts in {seconds:.1} s)",
                    self.failed
                ),
            });
        }
        self.retries.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

/// Between half and all of the doubled time.
fn pause(failures: u32) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(16));
    let random = RandomState::new().build_hasher().finish() as f64 / u64::MAX as f64;
    doubled.min(LONGEST_PAUSE).mul_f64(0.5 + 0.5 * random)
}

impl From<object_store::Error> for Failure {
    fn from(error: object_store::Error) -> Failure {
        use object_store::Error as E;
        let text = error.to_string();
        let status = status(&text);
        let code = element(&text, "Code").unwrap_or("");
        if code == "NoSuchBucket" {
            return Failure::NoBucket;
        }
        let reason = reason(&error, &text);
        if METADATA_PATHS.iter().any(|path| text.contains(path)) {
            return Failure::Credentials(format!("no credentials were found ({reason})"));
        }
        if reason.contains("URL scheme is not allowed") {
            return Failure::Lasting(format!("{reason}: AWS_ALLOW_HTTP=true allows http"));
        }
        match (&error, status) {
            (E::NotFound { .. }, _) => Failure::Missing,
            (E::PermissionDenied { .. } | E::Unauthenticated { .. }, _) => Failure::Refused(reason),
            (_, Some(408 | 409 | 425 | 429)) => Failure::Passing(reason),
            (_, Some(400)) if PASSING_CODES.contains(&code) => Failure::Passing(reason),
            (_, Some(401 | 403)) => Failure::Refused(reason),
            (_, Some(404)) => Failure::Missing,
            (_, Some(300..400)) => Failure::Lasting(format!("{reason}; {REGION}")),
            (_, Some(400..500)) => Failure::Lasting(reason),
            _ if text.contains("redirect without LOCATION") => Failure::Lasting(REGION.to_owned()),
            (
                E::InvalidPath { .. }
                | E::NotSupported { .. }
                | E::NotImplemented { .. }
                | E::UnknownConfigurationKey { .. },
                _,
            ) => Failure::Lasting(reason),
            _ => Failure::Passing(reason),
        }
    }
}

/// What is asked of the servers that give a machine its credentials.
const METADATA_PATHS: [&str; 3] = [
    "/latest/api/token",
    "/latest/meta-data/",
    "/computeMetadata/v1/",
];

/// Codes of S3 for what went wrong on the way.
const PASSING_CODES: [&str; 4] = [
    "RequestTimeout",
    "IncompleteBody",
    "BadDigest",
    "ExpiredToken",
];

const REGION: &str = "the bucket is in another region: set AWS_REGION to it";

/// What is worth telling of an error: the server's word, or the deepest cause.
fn reason(error: &object_store::Error, text: &str) -> String {
    if let Some((_, answer)) = text.split_once(STATUS) {
        let line = answer.split(['<', '\n']).next().unwrap_or("");
        let line = line.trim_end_matches([' ', ':']);
        return match (element(text, "Code"), element(text, "Message")) {
            (Some(code), Some(message)) => format!("the server answered {line}, {code}: {message}"),
            _ => format!("the server answered {line}"),
        };
    }
    let mut deepest: &dyn std::error::Error = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}

/// How the library introduces a status, such as `503 Service Unavailable`.
const STATUS: &str = "status code: ";

fn status(text: &str) -> Option<u16> {
    text.split_once(STATUS)?.1.get(..3)?.parse().ok()
}

/// The text of an XML element.
fn element<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    Some(rest.split_once(&format!("</{name}>"))?.0)
}
