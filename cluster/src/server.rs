//! Carries messages between the hosts and the coordinator.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Sender, channel};
use tokio::sync::oneshot;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server as Transport;
use tonic::{Request, Response, Status, Streaming};

use crate::coordinator::{Coordinator, Notice, hosts};
use crate::errors::ServeError;
use crate::identity::Identity;
use crate::incoming::{Incoming, admit};
use crate::meeting_place::{Invitation, MeetingPlace, Secret};
use crate::wire::coordinator_server::{Coordinator as Service, CoordinatorServer};
use crate::{Timing, wire};

/// No message is longer.
const LONGEST: usize = 1 << 20;

/// Messages that may wait for one host to read them, beside those that are in the network. It is
/// lost after eight heartbeats without a sign of life, so that a host that lives has read far more.
const WAITING: usize = 256;

/// How long the server stays for hosts that have not left.
const FAREWELL: Duration = Duration::from_secs(5);

/// How long what was last said may take to be heard.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// The coordinator of a run, served to its hosts until this is dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    place: MeetingPlace,
    invitation: Invitation,
    session: Session,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens on an address (a port of 0 is any free one), and says in the meeting place where.
    pub fn start(
        address: SocketAddr,
        place: MeetingPlace,
        identity: &Identity,
        timing: Timing,
    ) -> Result<Server, ServeError> {
        let failed = |source| ServeError::Listen { address, source };
        let listener = std::net::TcpListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let publish = |source| ServeError::Publish {
            path: place.directory().to_owned(),
            source,
        };
        let secret = Secret::draw().map_err(publish)?;
        let now = Instant::now();
        let facts = identity.wire_facts();
        let coordinator = Coordinator::new(identity.hosts, facts, secret.number(), timing, now);
        let session = Session(Arc::new(Mutex::new(Shared {
            coordinator,
            calls: HashMap::new(),
            last: 0,
        })));
        let own = secret.clone();
        let invitation = Invitation { address, secret };
        place.publish(&invitation).map_err(publish)?;
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(ServeError::Thread)?;
        let served = session.clone();
        let thread = std::thread::Builder::new().name("coordinator".into());
        let thread = thread
            .spawn(move || runtime.block_on(serve(listener, served, own, timing, stopped)))
            .map_err(ServeError::Thread)?;
        Ok(Server {
            address,
            place,
            invitation,
            session,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let start = Instant::now();
        while start.elapsed() < FAREWELL && !self.session.lock().is_done() {
            std::thread::sleep(Duration::from_millis(10));
        }
        self.place.withdraw(&self.invitation);
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[derive(Clone, Debug)]
struct Session(Arc<Mutex<Shared>>);

#[derive(Debug)]
struct Shared {
    coordinator: Coordinator,
    calls: HashMap<u64, Sender<Result<wire::ToHost, Status>>>,
    last: u64,
}

impl Session {
    fn lock(&self) -> MutexGuard<'_, Shared> {
        // A thread that died holding it left it whole: the coordinator does not panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// Sends and logs what the coordinator has to say.
    fn flush(&mut self) {
        loop {
            let outbox = self.coordinator.take_outbox();
            if outbox.is_empty() {
                break;
            }
            for (connection, kind) in outbox {
                self.send(connection, kind);
            }
        }
        for notice in self.coordinator.take_notices() {
            log(notice);
        }
    }

    /// Sends a message. A host with too many unread ones is lost, so that they need no more memory.
    fn send(&mut self, connection: u64, kind: wire::to_host::Kind) {
        let ends = matches!(kind, wire::to_host::Kind::Ended(_));
        let Some(call) = self.calls.get(&connection) else {
            return;
        };
        let sent = call.try_send(Ok(wire::ToHost { kind: Some(kind) }));
        // A call that has just ended is reported by its other half.
        let is_full = matches!(sent, Err(TrySendError::Full(_)));
        if ends || is_full {
            self.calls.remove(&connection);
        }
        if is_full {
            self.coordinator.deaf(connection, Instant::now());
        }
    }

    /// Whether no host is left to be told anything.
    fn is_done(&self) -> bool {
        self.calls.is_empty() || self.coordinator.is_over()
    }
}

fn log(notice: Notice) {
    match notice {
        Notice::Missing(missing) => tracing::warn!(
            "waiting for {}: has the program started there, with the same run directory, and can it reach this host's port?",
            hosts(&missing)
        ),
        Notice::Met => tracing::info!("all hosts have come"),
        Notice::TurnedAway(message) => tracing::warn!("{message}"),
        Notice::Slow(slow, name) => tracing::warn!(
            "{name} is the slowest: it starts its programs {:.2} s after the first host, of {:.2} s that each takes",
            slow.late.as_secs_f64(),
            slow.interval.as_secs_f64()
        ),
        Notice::Ended(message) => tracing::info!("the hosts part: {message}"),
    }
}

struct Attendance {
    session: Session,
    secret: Secret,
}

#[tonic::async_trait]
impl Service for Attendance {
    type AttendStream = ReceiverStream<Result<wire::ToHost, Status>>;

    async fn attend(
        &self,
        request: Request<Streaming<wire::FromHost>>,
    ) -> Result<Response<Self::AttendStream>, Status> {
        admit(&request, &self.secret)?;
        let (sender, receiver) = channel(WAITING);
        let connection = {
            let mut shared = self.session.lock();
            shared.last += 1;
            let connection = shared.last;
            shared.calls.insert(connection, sender);
            connection
        };
        let session = self.session.clone();
        let mut incoming = request.into_inner();
        tokio::spawn(async move {
            while let Ok(Some(message)) = incoming.message().await {
                if let Some(kind) = message.kind {
                    let mut shared = session.lock();
                    shared.coordinator.receive(connection, kind, Instant::now());
                    shared.flush();
                }
            }
            let mut shared = session.lock();
            shared.coordinator.disconnected(connection, Instant::now());
            shared.flush();
            shared.calls.remove(&connection);
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

async fn serve(
    listener: std::net::TcpListener,
    session: Session,
    secret: Secret,
    timing: Timing,
    stopped: oneshot::Receiver<()>,
) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!("the coordinator cannot listen: {error}"),
    };
    let ticking = session.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(timing.heartbeat()).await;
            let mut shared = ticking.lock();
            shared.coordinator.tick(Instant::now());
            shared.flush();
        }
    });
    let (stopping, stops) = oneshot::channel();
    let attendance = Attendance { session, secret };
    let service = CoordinatorServer::new(attendance).max_decoding_message_size(LONGEST);
    let served = Transport::builder()
        .max_concurrent_streams(4)
        .serve_with_incoming_shutdown(service, Incoming::new(listener), async move {
            let _ = stopped.await;
            let _ = stopping.send(());
        });
    tokio::select! {
        served = served => if let Err(error) = served {
            tracing::error!("the coordinator has ended: {error}");
        },
        // What was to be said is said by then, to all who listen.
        _ = async move {
            let _ = stops.await;
            tokio::time::sleep(LAST_WORDS).await;
        } => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{from_host, to_host};

    #[test]
    fn a_host_that_reads_nothing_is_lost_and_the_others_hear_it() {
        let timing = Timing {
            rendezvous: Duration::from_secs(30),
            lost_after: Duration::from_secs(3600),
        };
        let coordinator = Coordinator::new(2, Vec::new(), 7, timing, Instant::now());
        let mut shared = Shared {
            coordinator,
            calls: HashMap::new(),
            last: 0,
        };
        let mut receivers = Vec::new();
        for host in 0..2 {
            let (sender, receiver) = channel(WAITING);
            shared.calls.insert(host, sender);
            receivers.push(receiver);
            let join = from_host::Kind::Join(wire::Join {
                host: host as u32,
                hosts: 2,
                process: host,
                name: format!("machine-{host}"),
                facts: Vec::new(),
            });
            shared.coordinator.receive(host, join, Instant::now());
            shared.flush();
        }
        let mut told = Vec::new();
        for _ in 0..2 * WAITING {
            shared.coordinator.tick(Instant::now());
            shared.flush();
            while let Ok(Ok(message)) = receivers[0].try_recv() {
                told.extend(message.kind);
            }
        }
        let Some(to_host::Kind::Ended(ended)) = told.last() else {
            panic!("{:?}", told.last());
        };
        let words = "host 1 (machine-1) is lost: it does not read what it is told";
        assert_eq!(ended.message, words);
        assert!(shared.calls.is_empty());
        // What waits for it has not grown beyond the limit.
        assert!(std::iter::from_fn(|| receivers[1].try_recv().ok()).count() <= WAITING);
    }
}
