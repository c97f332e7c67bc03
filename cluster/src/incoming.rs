//! Connections to a server of the run. Strangers may connect too: one that does not show the secret
//! in time is closed, and of too many the oldest goes first, so that they use up nothing that the
//! hosts of the run need.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Sleep;
use tokio_stream::Stream;
use tonic::transport::server::Connected;
use tonic::{Request, Status};

use crate::meeting_place::{SECRET, Secret};

/// A guest who has not shown the secret until then is sent away.
const PATIENCE: Duration = Duration::from_secs(5);

/// Guests at once who have not shown the secret.
const GUESTS: usize = 64;

/// Of guests who were sent away, the first few are logged, and then one in so many.
const LOG_FIRST: u64 = 5;
const LOG_EVERY: u64 = 1000;

/// The connections that come in.
pub(crate) struct Incoming {
    listener: TcpListener,
    /// Those that have not shown the secret, oldest first.
    guests: VecDeque<Weak<State>>,
    strangers: Arc<AtomicU64>,
}

/// A connection.
pub(crate) struct Connection {
    stream: TcpStream,
    guest: Guest,
    deadline: Pin<Box<Sleep>>,
}

/// Whom a connection belongs to.
#[derive(Clone)]
pub(crate) struct Guest {
    state: Arc<State>,
    strangers: Arc<AtomicU64>,
}

struct State {
    from: SocketAddr,
    admitted: AtomicBool,
    sent_away: AtomicBool,
    waker: std::sync::Mutex<Option<Waker>>,
}

/// Lets the guest stay whose call shows the secret, and sends others away.
pub(crate) fn admit<T>(call: &Request<T>, secret: &Secret) -> Result<(), Status> {
    let guest = call.extensions().get::<Guest>();
    let shown = call.metadata().get(SECRET);
    match shown.is_some_and(|shown| secret.is(shown.as_bytes())) {
        true => {
            if let Some(guest) = guest {
                guest.admit();
            }
            Ok(())
        }
        false => {
            if let Some(guest) = guest {
                guest.report(match shown {
                    None => "shows no secret",
                    Some(_) => "shows another secret",
                });
            }
            Err(Status::unauthenticated("this is not the run's secret"))
        }
    }
}

impl Incoming {
    pub fn new(listener: TcpListener) -> Incoming {
        Incoming {
            listener,
            guests: VecDeque::new(),
            strangers: Arc::default(),
        }
    }

    fn admit(&mut self, stream: TcpStream, from: SocketAddr) -> Connection {
        // Messages are small and each is waited for.
        let _ = stream.set_nodelay(true);
        let state = Arc::new(State {
            from,
            admitted: AtomicBool::new(false),
            sent_away: AtomicBool::new(false),
            waker: Default::default(),
        });
        self.guests.retain(|guest| {
            let guest = guest.upgrade();
            guest.is_some_and(|guest| !guest.admitted.load(Ordering::Relaxed))
        });
        if self.guests.len() >= GUESTS
            && let Some(oldest) = self.guests.pop_front().and_then(|guest| guest.upgrade())
        {
            oldest.send_away();
        }
        self.guests.push_back(Arc::downgrade(&state));
        Connection {
            stream,
            guest: Guest {
                state,
                strangers: self.strangers.clone(),
            },
            deadline: Box::pin(tokio::time::sleep(PATIENCE)),
        }
    }
}

impl Stream for Incoming {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.listener.poll_accept(context) {
            Poll::Ready(Ok((stream, from))) => Poll::Ready(Some(Ok(self.admit(stream, from)))),
            // Passing troubles, such as too many open files: the server goes on after them.
            Poll::Ready(Err(error)) => Poll::Ready(Some(Err(error))),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl Guest {
    /// The guest has shown the secret and may stay.
    fn admit(&self) {
        self.state.admitted.store(true, Ordering::Relaxed);
    }

    /// Logs that the guest did not show the secret.
    fn report(&self, what: &str) {
        let count = self.strangers.fetch_add(1, Ordering::Relaxed) + 1;
        if count <= LOG_FIRST || count.is_multiple_of(LOG_EVERY) {
            let from = self.state.from;
            tracing::warn!("a stranger at {from} {what}, and is turned away; it is number {count}");
        }
    }
}

impl State {
    fn send_away(&self) {
        self.sent_away.store(true, Ordering::Relaxed);
        let waker = self.waker.lock().map(|mut waker| waker.take());
        if let Ok(Some(waker)) = waker {
            waker.wake();
        }
    }
}

impl Connection {
    /// Fails once the guest's time is over.
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let state = &self.guest.state;
        if state.admitted.load(Ordering::Relaxed) {
            return Ok(());
        }
        if let Ok(mut waker) = state.waker.lock() {
            *waker = Some(context.waker().clone());
        }
        let late = self.deadline.as_mut().poll(context).is_ready();
        if !late && !state.sent_away.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.guest.report("does not say who it is");
        Err(io::ErrorKind::TimedOut.into())
    }
}

impl Connected for Connection {
    type ConnectInfo = Guest;

    fn connect_info(&self) -> Guest {
        self.guest.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Err(error) = self.check(context) {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
