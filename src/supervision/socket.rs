//! The launcher's end of the socket: reads its child's signs of life without waiting.

use std::io::{self, ErrorKind, Read};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use super::pulse::Beat;

/// A socket for the signs of life of one child. Dropping it tells the child that its launcher is
/// gone.
pub(super) struct Socket {
    listener: UnixListener,
    stream: Option<UnixStream>,
    /// What was read behind the last whole line.
    rest: Vec<u8>,
}

impl Socket {
    /// Listens at a path where nothing is yet.
    pub fn at(path: &Path) -> io::Result<Socket> {
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        Ok(Socket {
            listener,
            stream: None,
            rest: Vec::new(),
        })
    }

    /// What the child has said since this was last asked.
    pub fn heard(&mut self) -> io::Result<Vec<Beat>> {
        if self.stream.is_none() {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(true)?;
                    self.stream = Some(stream);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        let Some(stream) = &mut self.stream else {
            return Ok(Vec::new());
        };
        let mut bytes = [0; 4096];
        loop {
            match stream.read(&mut bytes) {
                // The child's end of it; how the child ended is seen elsewhere.
                Ok(0) => break,
                Ok(count) => self.rest.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        let whole = self.rest.iter().rposition(|byte| *byte == b'\n');
        let lines: Vec<u8> = self.rest.drain(..whole.map_or(0, |end| end + 1)).collect();
        // A line that the child could not send whole is no sign.
        let beats = lines.split(|byte| *byte == b'\n');
        Ok(beats
            .filter_map(|line| serde_json::from_slice(line).ok())
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::super::pulse::Phase;
    use super::*;

    #[test]
    fn whole_lines_are_heard_and_the_rest_waits() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let mut socket = Socket::at(&path).unwrap();
        assert!(socket.heard().unwrap().is_empty());
        let mut child = UnixStream::connect(&path).unwrap();
        child
            .write_all(b"{\"phase\":\"compiling\"}\ntorn\n{\"phase\":\"tra")
            .unwrap();
        let compiling = Beat {
            phase: Phase::Compiling,
            step: None,
        };
        assert_eq!(socket.heard().unwrap(), [compiling]);
        child.write_all(b"ining\",\"step\":3}\n").unwrap();
        drop(child);
        let step = Beat {
            phase: Phase::Training,
            step: Some(3),
        };
        assert_eq!(socket.heard().unwrap(), [step]);
        assert!(socket.heard().unwrap().is_empty());
    }

    #[test]
    fn the_child_hears_the_launchers_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let mut socket = Socket::at(&path).unwrap();
        let mut accepted = UnixStream::connect(&path).unwrap();
        let mut waiting = UnixStream::connect(&path).unwrap();
        socket.heard().unwrap();
        drop(socket);
        for child in [&mut accepted, &mut waiting] {
            assert!(!matches!(child.read(&mut [0]), Ok(1..)));
        }
    }
}
