//! Copies of directories that hosts keep for each other, in the memory or on the disks of each.
//!
//! A host that keeps copies serves one call, by which another host sends a directory. It is there
//! under its name only once all of it has come.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use ankh_storage::atomic;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Endpoint, Server as Transport};
use tonic::{Request, Response, Status, Streaming};

use crate::errors::{CopiesError, Ended, SendError, ServeError};
use crate::incoming::{Incoming, admit};
use crate::meeting_place::{SECRET, Secret};
use crate::member::Member;
use crate::wire;
use crate::wire::copies_client::CopiesClient;
use crate::wire::copies_server::{Copies as CopiesService, CopiesServer};
use crate::wire::piece::Kind;

/// The contents of a piece, in bytes.
const PIECE: usize = 1 << 20;

/// Pieces read ahead of what the network takes.
const AHEAD: usize = 4;

/// How long a connection may take.
const CONNECTING: Duration = Duration::from_secs(5);

/// A directory takes at most so long, and a second for each so many of its bytes.
const SENDING: Duration = Duration::from_secs(60);
const SLOWEST: u64 = 8 << 20;

/// The copies that the hosts of a session keep for each other, as one of them sees them. It takes
/// in what others send until this is dropped.
#[derive(Debug)]
pub struct Copies {
    server: Server,
    senders: Vec<CopySender>,
}

/// Sends directories to one host.
#[derive(Clone, Debug)]
pub struct CopySender {
    address: SocketAddr,
    secret: Secret,
}

/// The directory below which those that come are kept.
type Root = Arc<Mutex<Option<PathBuf>>>;

impl Copies {
    /// Listens on an interface, on any free port, and tells the other hosts where; all have to do
    /// the same. Nothing is taken in before [`Copies::keep_in`].
    pub fn start(
        interface: IpAddr,
        member: &Member,
        patience: Duration,
    ) -> Result<Copies, CopiesError> {
        let Some(secret) = member.secret() else {
            return Err(Ended::failed("the hosts have not met").into());
        };
        let server = Server::start(interface, secret.clone())?;
        let addresses = exchange(server.address, member, patience)?;
        let sender = |address| CopySender {
            address,
            secret: secret.clone(),
        };
        Ok(Copies {
            server,
            senders: addresses.into_iter().map(sender).collect(),
        })
    }

    /// Keeps what comes from now on below this directory.
    pub fn keep_in(&self, root: impl Into<PathBuf>) {
        *lock(&self.server.root) = Some(root.into());
    }

    /// What sends to a host.
    ///
    /// # Panics
    /// For a host that there is not.
    pub fn sender(&self, host: usize) -> &CopySender {
        &self.senders[host]
    }
}

/// Tells all hosts where this one listens, and learns it of all, in numbers of 64 bits.
fn exchange(
    own: SocketAddr,
    member: &Member,
    patience: Duration,
) -> Result<Vec<SocketAddr>, Ended> {
    let bits = match own.ip() {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    };
    let gather = |number| member.gather("where copies go", number, patience);
    let high = gather((bits >> 64) as u64)?;
    let low = gather(bits as u64)?;
    let ports = gather(own.port().into())?;
    let address = |((high, low), port): ((u64, u64), u64)| {
        let bits = u128::from(high) << 64 | u128::from(low);
        let port = u16::try_from(port).map_err(|_| Ended::failed(format!("no port: {port}")))?;
        Ok(SocketAddr::new(
            Ipv6Addr::from_bits(bits).to_canonical(),
            port,
        ))
    };
    high.into_iter().zip(low).zip(ports).map(address).collect()
}

#[derive(Debug)]
struct Server {
    address: SocketAddr,
    root: Root,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(interface: IpAddr, secret: Secret) -> Result<Server, ServeError> {
        let address = SocketAddr::new(interface, 0);
        let failed = |source| ServeError::Listen { address, source };
        let listener = std::net::TcpListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(ServeError::Thread)?;
        let root = Root::default();
        let keeper = Keeper {
            secret,
            root: root.clone(),
        };
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new().name("copies".into());
        let thread = thread
            .spawn(move || runtime.block_on(serve(listener, keeper, stopped)))
            .map_err(ServeError::Thread)?;
        Ok(Server {
            address,
            root,
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl CopySender {
    /// Sends a directory of files, which the host keeps under `name`, a relative path, in place of
    /// what is there. Returns once that is done.
    pub fn send(&self, directory: &Path, name: &str) -> Result<(), SendError> {
        let unreadable = |source| SendError::Unreadable {
            path: directory.to_owned(),
            source,
        };
        let mut files = Vec::new();
        list_files(directory, Path::new(""), &mut files).map_err(unreadable)?;
        let bytes: u64 = files.iter().map(|(_, bytes)| bytes).sum();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(SendError::Thread)?;
        let (pieces, sent) = mpsc::channel(AHEAD);
        std::thread::scope(|scope| {
            // Its sender is dropped at its end, by which the other side knows that no more comes.
            let reading = scope.spawn(move || read_pieces(directory, name, files, &pieces));
            let time = SENDING + Duration::from_secs(bytes / SLOWEST);
            let sending = runtime.block_on(async {
                tokio::time::timeout(time, self.transmit(sent))
                    .await
                    .unwrap_or_else(|_| Err(format!("it took more than {} s", time.as_secs())))
            });
            let read = reading.join().unwrap_or(Ok(()));
            // What cannot be read here is why what was sent is not whole.
            read.map_err(unreadable)?;
            sending.map_err(|problem| SendError::NotSent {
                address: self.address,
                problem,
            })
        })
    }

    async fn transmit(&self, pieces: mpsc::Receiver<wire::Piece>) -> Result<(), String> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address));
        let endpoint = endpoint.map_err(|error| error.to_string())?;
        let endpoint = endpoint.connect_timeout(CONNECTING).tcp_nodelay(true);
        let channel = endpoint.connect().await.map_err(|error| {
            format!("it cannot be reached ({error}): may this host connect to it (firewall)?")
        })?;
        let mut call = Request::new(ReceiverStream::new(pieces));
        let shown = self.secret.reveal().parse();
        let shown = shown.map_err(|_| "the secret is damaged".to_owned())?;
        call.metadata_mut().insert(SECRET, shown);
        let received = CopiesClient::new(channel).send(call).await;
        received
            .map(drop)
            .map_err(|status| status.message().to_owned())
    }
}

/// The files below a directory, by their paths there, and their lengths.
fn list_files(directory: &Path, below: &Path, files: &mut Vec<(PathBuf, u64)>) -> io::Result<()> {
    for entry in fs::read_dir(directory.join(below))? {
        let entry = entry?;
        let path = below.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => list_files(directory, &path, files)?,
            false => files.push((path, entry.metadata()?.len())),
        }
    }
    Ok(())
}

/// Reads the pieces of a directory until nobody takes them any more.
fn read_pieces(
    directory: &Path,
    name: &str,
    files: Vec<(PathBuf, u64)>,
    pieces: &mpsc::Sender<wire::Piece>,
) -> io::Result<()> {
    let take = |kind| {
        let piece = wire::Piece { kind: Some(kind) };
        pieces.blocking_send(piece).is_ok()
    };
    if !take(Kind::Directory(name.into())) {
        return Ok(());
    }
    for (path, _) in files {
        let mut file = File::open(directory.join(&path))?;
        let path = path.to_str().ok_or(io::ErrorKind::InvalidFilename)?;
        if !take(Kind::File(path.into())) {
            return Ok(());
        }
        loop {
            let mut contents = Vec::new();
            let mut piece = Read::by_ref(&mut file).take(PIECE as u64);
            piece.read_to_end(&mut contents)?;
            if contents.is_empty() {
                break;
            }
            if !take(Kind::Contents(contents)) {
                return Ok(());
            }
        }
    }
    take(Kind::Complete(wire::Complete {}));
    Ok(())
}

struct Keeper {
    secret: Secret,
    root: Root,
}

#[tonic::async_trait]
impl CopiesService for Keeper {
    async fn send(
        &self,
        request: Request<Streaming<wire::Piece>>,
    ) -> Result<Response<wire::Received>, Status> {
        admit(&request, &self.secret)?;
        let Some(root) = lock(&self.root).clone() else {
            return Err(Status::unavailable("this host keeps nothing yet"));
        };
        let mut pieces = request.into_inner();
        let mut coming: Option<Coming> = None;
        while let Some(piece) = pieces.message().await? {
            match (piece.kind, &mut coming) {
                (Some(Kind::Directory(name)), None) => coming = Some(Coming::begin(&root, &name)?),
                (Some(Kind::File(path)), Some(coming)) => coming.file(&path)?,
                (Some(Kind::Contents(contents)), Some(coming)) => coming.write(&contents)?,
                (Some(Kind::Complete(_)), Some(_)) => {
                    coming.take().map_or(Ok(()), Coming::finish)?;
                    return Ok(Response::new(wire::Received {}));
                }
                _ => return Err(Status::invalid_argument("the pieces are out of order")),
            }
        }
        Err(Status::invalid_argument("the last piece is missing"))
    }
}

/// A directory on its way, hidden until all of it is there. Dropped before it leaves nothing.
struct Coming {
    hidden: PathBuf,
    target: PathBuf,
    file: Option<File>,
    is_finished: bool,
}

impl Coming {
    fn begin(root: &Path, name: &str) -> Result<Coming, Status> {
        let target = root.join(inside(name)?);
        let last = target.file_name().unwrap_or_default().to_string_lossy();
        let hidden = target.with_file_name(format!(".{last}.partial"));
        atomic::remove_tree(&hidden)?;
        fs::create_dir_all(&hidden)?;
        Ok(Coming {
            hidden,
            target,
            file: None,
            is_finished: false,
        })
    }

    fn file(&mut self, path: &str) -> Result<(), Status> {
        let path = self.hidden.join(inside(path)?);
        fs::create_dir_all(atomic::parent(&path))?;
        self.file = Some(File::create_new(path)?);
        Ok(())
    }

    fn write(&mut self, contents: &[u8]) -> Result<(), Status> {
        let Some(file) = &mut self.file else {
            return Err(Status::invalid_argument("contents of no file"));
        };
        Ok(file.write_all(contents)?)
    }

    fn finish(mut self) -> Result<(), Status> {
        atomic::remove_tree(&self.target)?;
        atomic::rename(&self.hidden, &self.target)?;
        self.is_finished = true;
        Ok(())
    }
}

impl Drop for Coming {
    fn drop(&mut self) {
        if !self.is_finished {
            let _ = atomic::remove_tree(&self.hidden);
        }
    }
}

/// A relative path that leads nowhere else.
fn inside(path: &str) -> Result<&Path, Status> {
    let path = Path::new(path);
    let is_name = |part| matches!(part, Component::Normal(_));
    match path.components().count() > 0 && path.components().all(is_name) {
        true => Ok(path),
        false => Err(Status::invalid_argument("a path that leads elsewhere")),
    }
}

async fn serve(listener: std::net::TcpListener, keeper: Keeper, stopped: oneshot::Receiver<()>) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!("this host cannot keep copies: {error}"),
    };
    let service = CopiesServer::new(keeper).max_decoding_message_size(2 * PIECE);
    let served = Transport::builder()
        .max_concurrent_streams(4)
        .serve_with_incoming(service, Incoming::new(listener));
    tokio::select! {
        served = served => if let Err(error) = served {
            tracing::error!("this host keeps copies no longer: {error}");
        },
        _ = stopped => {}
    }
}

fn lock(root: &Root) -> std::sync::MutexGuard<'_, Option<PathBuf>> {
    // Its only change is one assignment.
    root.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpStream};

    use super::*;

    const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    /// A server, and what sends to it.
    fn server() -> (Server, CopySender) {
        let secret = Secret::draw().unwrap();
        let server = Server::start(LOOPBACK, secret.clone()).unwrap();
        let address = server.address;
        (server, CopySender { address, secret })
    }

    fn write(directory: &Path, path: &str, contents: &[u8]) {
        let path = directory.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, contents).unwrap();
    }

    #[test]
    fn a_directory_comes_whole_and_takes_the_place_of_what_is_there() {
        let directory = tempfile::tempdir().unwrap();
        let (from, root) = (directory.path().join("from"), directory.path().join("root"));
        let (server, sender) = server();
        let large: Vec<u8> = (0..5_000_000u32).map(|i| (i % 251) as u8).collect();
        write(&from, "commit.json", b"{}");
        write(&from, "a/c/0/0", &large);
        write(&from, "a/empty", b"");

        let early = sender.send(&from, "copy/step_1").unwrap_err();
        assert!(early.to_string().contains("keeps nothing yet"), "{early}");
        *lock(&server.root) = Some(root.clone());
        write(&root, "copy/step_1/older", b"older");
        sender.send(&from, "copy/step_1").unwrap();
        let there = root.join("copy/step_1");
        assert_eq!(fs::read(there.join("commit.json")).unwrap(), b"{}");
        assert_eq!(fs::read(there.join("a/c/0/0")).unwrap(), large);
        assert_eq!(fs::read(there.join("a/empty")).unwrap(), b"");
        assert!(!there.join("older").exists());
        assert_eq!(fs::read_dir(root.join("copy")).unwrap().count(), 1);

        drop(server);
        let error = sender.send(&from, "copy/step_2").unwrap_err();
        assert!(error.to_string().contains("cannot be reached"), "{error}");
    }

    #[test]
    fn what_leads_elsewhere_or_comes_from_strangers_is_not_kept() {
        let directory = tempfile::tempdir().unwrap();
        let (from, root) = (directory.path().join("from"), directory.path().join("root"));
        let (server, sender) = server();
        *lock(&server.root) = Some(root.clone());
        write(&from, "file", b"contents");
        for name in ["../elsewhere", "/tmp/elsewhere", "copy/../../elsewhere", ""] {
            let error = sender.send(&from, name).unwrap_err();
            assert!(error.to_string().contains("leads elsewhere"), "{error}");
        }
        let stranger = CopySender {
            secret: Secret::draw().unwrap(),
            ..sender.clone()
        };
        let error = stranger.send(&from, "copy/step_1").unwrap_err();
        assert!(
            error.to_string().contains("not the run's secret"),
            "{error}"
        );
        let mut garbage = TcpStream::connect(sender.address).unwrap();
        garbage.write_all(&[0x5a; 4096]).unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);

        // It still keeps what the run's hosts send.
        sender.send(&from, "copy/step_1").unwrap();
        assert!(root.join("copy/step_1/file").is_file());
    }

    #[test]
    fn a_directory_that_breaks_off_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let mut coming = Coming::begin(root.path(), "copy/step_1").unwrap();
        coming.file("a/b").unwrap();
        coming.write(b"half").unwrap();
        assert!(coming.file("../c").is_err());
        assert!(coming.file("a/b").is_err(), "a file comes once");
        drop(coming);
        assert_eq!(fs::read_dir(root.path().join("copy")).unwrap().count(), 0);
    }
}
