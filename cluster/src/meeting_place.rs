//! Where the hosts find the coordinator: a file in a directory that all of them share, with its
//! address and a secret. Who can read the file may take part.

use std::fs::OpenOptions;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The header in which a host shows the secret.
pub(crate) const SECRET: &str = "x-ankh-secret";

/// The directory in which a coordinator says where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeetingPlace(PathBuf);

/// Where a coordinator is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Invitation {
    pub address: SocketAddr,
    pub secret: Secret,
}

/// What only the hosts of a run know. It is never shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Secret(String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

impl MeetingPlace {
    /// In a directory that all hosts share.
    pub fn of(directory: impl Into<PathBuf>) -> MeetingPlace {
        MeetingPlace(directory.into())
    }

    /// The file.
    pub fn file(&self) -> PathBuf {
        self.0.join("coordinator.json")
    }

    /// Writes the file, whole or not at all, readable for its owner alone.
    pub(crate) fn publish(&self, invitation: &Invitation) -> io::Result<()> {
        match self.write(invitation) {
            // An earlier host 0 has withdrawn its own just now, and the directory.
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.write(invitation),
            written => written,
        }
    }

    fn write(&self, invitation: &Invitation) -> io::Result<()> {
        std::fs::create_dir_all(&self.0)?;
        let new = self.0.join(format!(".coordinator-{}", std::process::id()));
        let _ = std::fs::remove_file(&new);
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(&serde_json::to_vec(invitation)?)?;
        file.sync_all()?;
        std::fs::rename(&new, self.file())
    }

    /// Reads the file.
    pub(crate) fn read(&self) -> io::Result<Invitation> {
        Ok(serde_json::from_slice(&std::fs::read(self.file())?)?)
    }

    /// Removes the file if it is still this one, and the directory if nothing else is in it.
    pub(crate) fn withdraw(&self, invitation: &Invitation) {
        let is_own = |there: Invitation| there.secret == invitation.secret;
        if self.read().is_ok_and(is_own) {
            let _ = std::fs::remove_file(self.file());
            let _ = std::fs::remove_dir(&self.0);
        }
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.0
    }
}

impl Secret {
    /// Draws one from the system's randomness.
    pub fn draw() -> io::Result<Secret> {
        let mut bytes = [0; 32];
        std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        Ok(Secret(ankh_storage::hex(&bytes)))
    }

    /// A number drawn with it, which says nothing of it.
    pub fn number(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.0.hash(&mut hasher);
        hasher.finish()
    }

    /// For the header of a call.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether it is what somebody shows, in a time that does not depend on where they differ.
    pub fn is(&self, shown: &[u8]) -> bool {
        let own = self.0.as_bytes();
        let differences = own.iter().zip(shown).fold(0, |all, (a, b)| all | (a ^ b));
        own.len() == shown.len() && differences == 0
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn an_invitation_is_for_its_owner_and_withdrawn_once() {
        let directory = tempfile::tempdir().unwrap();
        let place = MeetingPlace::of(directory.path().join("deep"));
        assert!(place.read().is_err());
        let invitation = |port| Invitation {
            address: ([127, 0, 0, 1], port).into(),
            secret: Secret::draw().unwrap(),
        };
        let (first, second) = (invitation(1), invitation(2));
        place.publish(&first).unwrap();
        let mode = std::fs::metadata(place.file())
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        place.publish(&second).unwrap();
        place.withdraw(&first);
        assert_eq!(place.read().unwrap().address, second.address);
        place.withdraw(&second);
        assert!(place.read().is_err());
    }

    #[test]
    fn a_secret_is_only_itself() {
        let secret = Secret::draw().unwrap();
        assert!(secret.is(secret.reveal().as_bytes()));
        let other = Secret::draw().unwrap();
        for shown in [other.reveal(), "", &secret.reveal()[1..]] {
            assert!(!secret.is(shown.as_bytes()));
        }
    }
}
