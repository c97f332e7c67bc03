//! Objects in a bucket, seen as files: requests one at a time. [`super::transfer`] moves what is
//! large.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::StreamExt;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::multipart::MultipartStore;
use object_store::path::Path as Key;
use object_store::{
    ClientConfigKey, ObjectMeta, ObjectStore, ObjectStoreExt, PutPayload, RetryConfig,
};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::cache::Cache;
use crate::error::{Error, Result};
use crate::location::{Address, Service};
use crate::retry::{Attempts, Failure};
use crate::runtime::{self, Awaited};
use crate::version::Version;
use crate::{Entry, Location, StorageOptions};

/// A bucket.
pub(crate) struct Remote {
    pub(crate) store: Box<dyn Store>,
    pub(crate) runtime: Handle,
    pub(crate) options: StorageOptions,
    pub(crate) cache: Option<Cache>,
    /// One for each request that may be under way.
    pub(crate) permits: Semaphore,
    retries: AtomicU64,
    /// The versions of the objects that were looked at.
    versions: Mutex<HashMap<Location, Version>>,
}

/// What the services have in common.
pub(crate) trait Store: ObjectStore + MultipartStore {}

impl<S: ObjectStore + MultipartStore> Store for S {}

impl Remote {
    pub(crate) fn open(location: &Location, options: &StorageOptions) -> Result<Arc<Remote>> {
        let runtime = runtime::start(location)?;
        Ok(Arc::new(Remote {
            store: client(location, options)?,
            runtime,
            cache: options.cache.as_ref().map(Cache::open).transpose()?,
            permits: Semaphore::new(options.concurrency.clamp(1, Semaphore::MAX_PERMITS)),
            options: options.clone(),
            retries: AtomicU64::new(0),
            versions: Mutex::default(),
        }))
    }

    pub(crate) fn retries(&self) -> u64 {
        self.retries.load(Ordering::Relaxed)
    }

    /// Runs something on the runtime and waits for it.
    pub(crate) fn wait<T, F>(self: &Arc<Self>, work: impl FnOnce(Arc<Remote>) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        Awaited::start(&self.runtime, work(self.clone())).wait()
    }

    pub(crate) fn attempts<'a>(
        &'a self,
        action: &'static str,
        location: &'a Location,
    ) -> Attempts<'a> {
        Attempts::new(&self.options, &self.retries, action, location)
    }

    /// The version of an object now.
    pub(crate) fn look(self: &Arc<Self>, location: &Location) -> Result<Version> {
        let at = location.clone();
        let version = self.wait(|remote| async move {
            let key = key(&at)?;
            let attempts = remote.attempts("open", &at);
            let meta = attempts.run(|| remote.store.head(&key)).await;
            match meta {
                Ok(meta) => Ok(Version::of(&meta)),
                Err(error) => Err(remote.without_bucket(error).await),
            }
        })?;
        self.versions().insert(location.clone(), version.clone());
        Ok(version)
    }

    /// The version of an object that was seen last.
    pub(crate) fn version(self: &Arc<Self>, location: &Location) -> Result<Version> {
        let known = self.versions().get(location).cloned();
        match known {
            Some(version) => Ok(version),
            None => self.look(location),
        }
    }

    /// The object is about to change.
    pub(crate) fn forget(&self, location: &Location) {
        self.versions().remove(location);
    }

    pub(crate) fn list(self: &Arc<Self>, root: &Location, prefix: &str) -> Result<Vec<Entry>> {
        let directory = match prefix.rsplit_once('/') {
            Some((directory, _)) => root.join(directory),
            None => root.clone(),
        };
        let root = root.clone();
        self.wait(|remote| async move {
            let (root, prefix) = (key(&root)?, key(&directory)?);
            let mut found: Vec<ObjectMeta> = Vec::new();
            let mut attempts = remote.attempts("list", &directory);
            loop {
                let before = found.len();
                match remote.list_on(&prefix, &mut found).await {
                    Ok(()) => break,
                    Err(failure) => {
                        if found.len() > before {
                            attempts.progressed();
                        }
                        let failure = failure.unwrap_or_else(|| attempts.late());
                        attempts.failed(failure).await?;
                    }
                }
            }
            let name = |object: ObjectMeta| {
                let name = match root.as_ref() {
                    "" => object.location.as_ref(),
                    root => object
                        .location
                        .as_ref()
                        .strip_prefix(root)?
                        .strip_prefix('/')?,
                };
                Some(Entry {
                    name: name.to_owned(),
                    size: object.size,
                })
            };
            Ok(found.into_iter().filter_map(name).collect())
        })
    }

    /// Goes on with a list, page by page; `None` when a page takes too long.
    async fn list_on(
        &self,
        prefix: &Key,
        found: &mut Vec<ObjectMeta>,
    ) -> std::result::Result<(), Option<Failure>> {
        let prefix = Some(prefix).filter(|prefix| !prefix.as_ref().is_empty());
        let mut rest = match found.last() {
            None => self.store.list(prefix),
            Some(last) => self.store.list_with_offset(prefix, &last.location),
        };
        loop {
            let next = tokio::time::timeout(self.options.timeout, rest.next()).await;
            match next.map_err(|_| None)? {
                None => return Ok(()),
                Some(Ok(object)) => found.push(object),
                Some(Err(error)) => return Err(Some(error.into())),
            }
        }
    }

    /// The first parts of the keys below a directory that have several.
    pub(crate) fn directories(self: &Arc<Self>, root: &Location) -> Result<Vec<String>> {
        let root = root.clone();
        self.wait(|remote| async move {
            let prefix = key(&root)?;
            let prefix = Some(&prefix).filter(|prefix| !prefix.as_ref().is_empty());
            let attempts = remote.attempts("list", &root);
            let list = || remote.store.list_with_delimiter(prefix);
            let found = attempts.run(list).await?.common_prefixes.into_iter();
            Ok(found
                .filter_map(|directory| Some(directory.filename()?.to_owned()))
                .collect())
        })
    }

    /// Has the service write an object's bytes to another.
    pub(crate) fn copy(self: &Arc<Self>, from: &Location, to: &Location) -> Result<()> {
        self.forget(to);
        let (from, to) = (from.clone(), to.clone());
        self.wait(|remote| async move {
            let (source, target) = (key(&from)?, key(&to)?);
            let attempts = remote.attempts("copy", &from);
            match attempts.run(|| remote.store.copy(&source, &target)).await {
                Ok(()) => Ok(()),
                Err(error) => Err(remote.without_bucket(error).await),
            }
        })
    }

    /// Writes a small object.
    pub(crate) fn put(self: &Arc<Self>, location: &Location, bytes: Bytes) -> Result<()> {
        self.forget(location);
        let at = location.clone();
        self.wait(|remote| async move {
            let key = key(&at)?;
            let attempts = remote.attempts("write", &at);
            let put = || remote.store.put(&key, PutPayload::from(bytes.clone()));
            match attempts.run(put).await {
                Ok(_) => Ok(()),
                Err(error) => Err(remote.without_bucket(error).await),
            }
        })
    }

    pub(crate) fn delete(self: &Arc<Self>, location: &Location) -> Result<()> {
        self.forget(location);
        let at = location.clone();
        self.wait(|remote| async move {
            let key = key(&at)?;
            let attempts = remote.attempts("delete", &at);
            match attempts.run(|| remote.store.delete(&key)).await {
                Err(Error::NoSuchObject { .. }) => Ok(()),
                result => result,
            }
        })
    }

    /// Tells a missing bucket from a missing object, where the answer did not.
    pub(crate) async fn without_bucket(&self, error: Error) -> Error {
        let Error::NoSuchObject { location } = error else {
            return error;
        };
        let mut list = self.store.list(None);
        let first = tokio::time::timeout(self.options.timeout, list.next()).await;
        let failure = match first {
            Ok(Some(Err(error))) => Some(Failure::from(error)),
            _ => None,
        };
        match failure {
            Some(Failure::NoBucket) => Error::NoSuchBucket { location },
            _ => Error::NoSuchObject { location },
        }
    }

    fn versions(&self) -> MutexGuard<'_, HashMap<Location, Version>> {
        // No code that can panic holds it.
        self.versions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The key of an object.
pub(crate) fn key(location: &Location) -> Result<Key> {
    let key = match location.address() {
        Address::Remote { key, .. } => key.as_str(),
        // A remote storage joins names to its own location.
        Address::Local(_) => "",
    };
    Key::parse(key).map_err(|error| Error::Location {
        text: location.to_string(),
        reason: error.to_string(),
    })
}

/// The client of a service, configured as its own tools are. Attempts are counted here, not there.
fn client(location: &Location, options: &StorageOptions) -> Result<Box<dyn Store>> {
    let Address::Remote {
        service, bucket, ..
    } = location.address()
    else {
        return Err(Error::Location {
            text: location.to_string(),
            reason: "it is not remote".to_owned(),
        });
    };
    let retry = RetryConfig {
        max_retries: 0,
        ..RetryConfig::default()
    };
    // Later than the one that counts.
    let timeout = format!("{}ms", 2 * options.timeout.as_millis());
    let wrong = |error: object_store::Error| Error::Request {
        action: "open",
        location: location.clone(),
        reason: error.to_string(),
    };
    match service {
        Service::S3 => {
            let mut builder = AmazonS3Builder::from_env()
                .with_config(AmazonS3ConfigKey::Client(ClientConfigKey::Timeout), timeout);
            for (key, value) in settings::<AmazonS3ConfigKey>(&options.settings, "AWS_")? {
                builder = builder.with_config(key, value);
            }
            let client = builder.with_bucket_name(bucket).with_retry(retry).build();
            Ok(Box::new(client.map_err(wrong)?))
        }
        Service::Google => {
            let mut builder = GoogleCloudStorageBuilder::from_env()
                .with_config(GoogleConfigKey::Client(ClientConfigKey::Timeout), timeout);
            for (key, value) in settings::<GoogleConfigKey>(&options.settings, "GOOGLE_")? {
                builder = builder.with_config(key, value);
            }
            let client = builder.with_bucket_name(bucket).with_retry(retry).build();
            Ok(Box::new(client.map_err(wrong)?))
        }
    }
}

/// Those settings that are a service's.
fn settings<K: FromStr<Err: Display>>(
    settings: &BTreeMap<String, String>,
    prefix: &str,
) -> Result<Vec<(K, String)>> {
    let own = settings.iter().filter(|(name, _)| name.starts_with(prefix));
    own.map(|(name, value)| match name.to_ascii_lowercase().parse() {
        Ok(key) => Ok((key, value.clone())),
        Err(_) => Err(Error::UnknownSetting { name: name.clone() }),
    })
    .collect()
}
