//! moto's S3 server, one for the tests of a process.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use ankh_storage::Location;

use super::python::{python, workspace};

/// A running server. It ends with this process, since its standard input does.
pub struct S3 {
    pub address: SocketAddr,
    _process: Child,
}

impl S3 {
    /// The server of this process, started by the first call.
    pub fn server() -> &'static S3 {
        static SERVER: OnceLock<S3> = OnceLock::new();
        SERVER.get_or_init(S3::start)
    }

    fn start() -> S3 {
        let mut process = Command::new(python())
            .arg(workspace().join("tests/python/s3_server.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut port = String::new();
        let output = process.stdout.as_mut().unwrap();
        BufReader::new(output).read_line(&mut port).unwrap();
        let port = port.trim().parse().expect("the server prints its port");
        S3 {
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            _process: process,
        }
    }

    /// A new bucket.
    pub fn bucket(&self) -> Location {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("bucket-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let mut stream = TcpStream::connect(self.address).unwrap();
        let request = format!(
            "PUT /{name} HTTP/1.1\r\nHost: {}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            self.address
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        Location::parse(&format!("s3://{name}")).unwrap()
    }
}

/// The environment of a client of an S3 server.
pub fn environment(address: SocketAddr) -> BTreeMap<String, String> {
    let settings = [
        ("AWS_ENDPOINT_URL", format!("http://{address}")),
        ("AWS_ALLOW_HTTP", "true".to_owned()),
        ("AWS_REGION", "us-east-1".to_owned()),
        ("AWS_ACCESS_KEY_ID", "test".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "test".to_owned()),
    ];
    settings
        .map(|(name, value)| (name.to_owned(), value))
        .into()
}
