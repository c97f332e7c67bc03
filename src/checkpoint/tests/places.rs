//! Stores to test: on a disk, and in a bucket of a server on loopback.

use std::time::Duration;

use ankh_storage::{Location, Storage, StorageOptions};

use super::super::Store;
use super::servers::{Faults, Proxy, S3, server};

/// A store of checkpoints, and its files.
pub struct Place {
    pub store: Store,
    files: Storage,
    /// What stands between the store and its server.
    pub proxy: Option<Proxy>,
    _root: Option<tempfile::TempDir>,
}

/// A store on a disk.
pub fn place() -> Place {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path().join("run/checkpoints"));
    Place {
        files: Storage::open(store.directory(), &StorageOptions::default()).unwrap(),
        store,
        proxy: None,
        _root: Some(root),
    }
}

/// One of each kind.
pub fn places() -> [Place; 2] {
    [place(), in_bucket(Faults::none(), 30)]
}

/// A store in a bucket on the way to which requests fail, with so many attempts at each.
pub fn in_bucket(faults: Faults, attempts: u32) -> Place {
    let s3 = S3::server();
    let proxy = Proxy::before(s3.address, faults);
    let location = s3.bucket().join("run/checkpoints");
    let options = StorageOptions {
        timeout: Duration::from_millis(2000),
        attempts,
        settings: server::environment(proxy.address),
        ..StorageOptions::default()
    };
    Place {
        store: Store::with(&location, &options).unwrap(),
        files: Storage::open(&location, &directly()).unwrap(),
        proxy: Some(proxy),
        _root: None,
    }
}

/// The way to the server on which nothing fails.
fn directly() -> StorageOptions {
    StorageOptions {
        settings: server::environment(S3::server().address),
        ..StorageOptions::default()
    }
}

impl Place {
    /// The store of another process, whose requests do not fail.
    pub fn directly(&self) -> Store {
        Store::with(self.store.directory(), &directly()).unwrap()
    }

    /// The names of all files, hidden ones too.
    pub fn names(&self) -> Vec<String> {
        let entries = self.files.list("").unwrap().into_iter();
        entries.map(|entry| entry.name).collect()
    }

    pub fn read(&self, file: &str) -> Vec<u8> {
        self.files.read(file).unwrap().into()
    }

    pub fn write(&self, file: &str, contents: &[u8]) {
        self.files.write(file, contents).unwrap();
    }

    pub fn delete(&self, file: &str) {
        self.files.delete(file).unwrap();
    }

    /// Fails where there is a file of anything but these steps, or a step without files.
    #[track_caller]
    pub fn expect_nothing_but(&self, steps: &[u64]) {
        let names = self.names();
        let directory = |location: &Location| format!("{}/", location.name());
        let of = steps
            .iter()
            .map(|step| directory(&self.store.directory_of(*step)));
        let of: Vec<String> = of.collect();
        let is_of = |name: &String| of.iter().any(|step| name.starts_with(step));
        assert!(names.iter().all(is_of), "{names:?}");
        for step in of {
            assert!(names.iter().any(|name| name.starts_with(&step)), "{step}");
            let left_over = names.iter().find(|name| name.contains("lists"));
            assert_eq!(left_over, None, "{step}");
        }
    }
}
