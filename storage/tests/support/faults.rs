//! A proxy that makes requests fail, as networks and servers under load do.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::random::Random;

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The server says to come back later.
    Unavailable,
    /// The connection is reset: in the middle of the answer, or, of a request with a body, before
    /// it is read.
    Reset,
    /// The connection is closed in the middle of the answer, after the request was carried out.
    Short,
    /// The answer comes a few bytes at a time.
    Slow,
    /// The server says that this is not allowed.
    Forbidden,
}

impl Fault {
    /// Those that pass.
    pub const PASSING: [Fault; 4] = [Fault::Unavailable, Fault::Reset, Fault::Short, Fault::Slow];
}

/// How many requests fail, and how.
#[derive(Clone, Debug)]
pub struct Faults {
    pub seed: u64,
    /// Of all requests.
    pub share: f64,
    /// One of these, each as often.
    pub kinds: Vec<Fault>,
    /// The number of the first request that may fail.
    pub first: u64,
}

impl Faults {
    pub fn none() -> Faults {
        Faults::of(0, 0.0)
    }

    /// All that pass.
    pub fn of(seed: u64, share: f64) -> Faults {
        Faults {
            seed,
            share,
            kinds: Fault::PASSING.to_vec(),
            first: 0,
        }
    }

    /// All that pass, such that some of the first requests meet one.
    pub fn hitting(share: f64, hits: usize, requests: u64) -> Faults {
        let hits_of = |faults: &Faults| (0..requests).filter_map(|i| faults.at(i)).count();
        let mut all = (0..).map(|seed| Faults::of(seed, share));
        let found = all.find(|faults| hits_of(faults) >= hits);
        found.expect("seeds do not end")
    }

    /// What happens to the request of a number.
    fn at(&self, number: u64) -> Option<Fault> {
        let mut random = Random::of(self.seed, number);
        let hit = random.unit() < self.share && number >= self.first;
        hit.then(|| self.kinds[random.below(self.kinds.len())])
    }

    /// The same, from the request of this number on.
    pub fn from(self, first: u64) -> Faults {
        Faults { first, ..self }
    }

    /// This one, always.
    pub fn always(fault: Fault) -> Faults {
        Faults {
            seed: 0,
            share: 1.0,
            kinds: vec![fault],
            first: 0,
        }
    }
}

/// Stands before a server.
pub struct Proxy {
    pub address: SocketAddr,
    state: Arc<State>,
}

struct State {
    server: SocketAddr,
    faults: Mutex<Faults>,
    /// First lines of requests, each with what happened.
    log: Mutex<Vec<(String, Option<Fault>)>>,
    ended: AtomicBool,
}

impl Proxy {
    pub fn before(server: SocketAddr, faults: Faults) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            server,
            faults: Mutex::new(faults),
            log: Mutex::default(),
            ended: AtomicBool::new(false),
        });
        let serving = state.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                if serving.ended.load(Ordering::Relaxed) {
                    return;
                }
                let state = serving.clone();
                // A client that goes away ends its connection only.
                thread::spawn(move || stream.and_then(|stream| state.serve(stream)));
            }
        });
        Proxy { address, state }
    }

    pub fn set(&self, faults: Faults) {
        *self.state.faults.lock().unwrap() = faults;
    }

    /// The first lines of the requests so far.
    pub fn requests(&self) -> Vec<String> {
        let log = self.state.log.lock().unwrap();
        log.iter().map(|(request, _)| request.clone()).collect()
    }

    /// How many requests met a fault.
    pub fn met(&self, fault: Fault) -> usize {
        let log = self.state.log.lock().unwrap();
        log.iter().filter(|(_, met)| *met == Some(fault)).count()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.ended.store(true, Ordering::Relaxed);
        // Wakes the thread that waits for connections.
        let _ = TcpStream::connect(self.address);
    }
}

impl State {
    /// One request, and its answer or what becomes of it.
    fn serve(&self, mut client: TcpStream) -> io::Result<()> {
        let head = peek_head(&client)?;
        let first = String::from_utf8_lossy(&head);
        let first = first.lines().next().unwrap_or("").to_owned();
        let body = content_length(&head);
        let fault = self.draw(first);
        if fault == Some(Fault::Reset) {
            // What is left unread when a socket is closed makes it a reset.
            if body == 0 {
                let answer = self.forward(&head)?;
                client.write_all(&answer[..answer.len() / 2])?;
                // The client has to see some of it first.
                thread::sleep(Duration::from_millis(5));
            }
            return Ok(());
        }
        let mut request = vec![0; head.len() + body];
        client.read_exact(&mut request)?;
        match fault {
            Some(Fault::Unavailable) => client.write_all(&refusal(
                "503 Slow Down",
                "SlowDown",
                "Reduce your request rate.",
            )),
            Some(Fault::Forbidden) => {
                client.write_all(&refusal("403 Forbidden", "AccessDenied", "Access Denied"))
            }
            Some(Fault::Short) => {
                let answer = self.forward(&request)?;
                let end = head_end(&answer).unwrap_or(0);
                client.write_all(&answer[..end + (answer.len() - end) * 2 / 3])?;
                client.shutdown(Shutdown::Both)
            }
            Some(Fault::Slow) => {
                let answer = self.forward(&request)?;
                let end = head_end(&answer).unwrap_or(0);
                let (fast, rest) = answer.split_at((answer.len() + end) / 2);
                // Of an answer without body, the head is slow.
                let (fast, rest) = if rest.is_empty() {
                    (rest, fast)
                } else {
                    (fast, rest)
                };
                let (dribble, rest) = rest.split_at(rest.len().min(40));
                client.write_all(fast)?;
                for byte in dribble.chunks(1) {
                    client.write_all(byte)?;
                    thread::sleep(Duration::from_millis(25));
                }
                client.write_all(rest)
            }
            Some(Fault::Reset) | None => client.write_all(&self.forward(&request)?),
        }
    }

    fn draw(&self, request: String) -> Option<Fault> {
        let mut log = self.log.lock().unwrap();
        let faults = self.faults.lock().unwrap();
        let fault = faults.at(log.len() as u64);
        log.push((request, fault));
        fault
    }

    /// The server's answer, head and body. Each connection carries one request.
    fn forward(&self, request: &[u8]) -> io::Result<Vec<u8>> {
        let mut server = TcpStream::connect(self.server)?;
        let line = request.windows(2).position(|two| two == b"\r\n");
        let (line, rest) = request.split_at(line.map_or(0, |end| end + 2));
        server.write_all(line)?;
        server.write_all(b"Connection: close\r\n")?;
        server.write_all(rest)?;
        let mut answer = Vec::new();
        server.read_to_end(&mut answer)?;
        Ok(answer)
    }
}

/// A request's head, which stays to be read.
fn peek_head(client: &TcpStream) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; 1 << 16];
    loop {
        let count = client.peek(&mut buffer)?;
        if let Some(end) = head_end(&buffer[..count]) {
            buffer.truncate(end);
            return Ok(buffer);
        }
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        thread::sleep(Duration::from_millis(1));
    }
}

fn head_end(bytes: &[u8]) -> Option<usize> {
    let blank = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    Some(blank + 4)
}

fn content_length(head: &[u8]) -> usize {
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    let value = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"));
    value.map_or(0, |value| value.trim().parse().unwrap())
}

fn refusal(status: &str, code: &str, message: &str) -> Vec<u8> {
    let body = format!(
        "<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
    );
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
    .into_bytes()
}
