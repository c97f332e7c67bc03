//! The page of [`crate::report`], live: a server that reads run directories as they grow.
//!
//! A thread reads what is new every second. Requests are answered from memory, so that any number
//! of readers costs the disk nothing. Who may read is decided in [`access`]: on loopback everyone
//! on this machine, elsewhere whoever has the token.

mod access;
mod answers;
mod places;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use access::{Access, Token, WeakToken};
use places::Places;

use crate::report::ReportError;

/// How often run directories are read.
const REFRESH: Duration = Duration::from_secs(1);

/// How long open connections are waited for at the end.
const GRACE: Duration = Duration::from_secs(1);

/// What keeps runs from being watched.
#[allow(missing_docs)]
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The address is taken, or is not this machine's.
    #[error("cannot listen on {address}")]
    Listen { address: String, source: io::Error },
    /// The system gives no randomness for a token.
    #[error("cannot draw a token")]
    Token(#[from] getrandom::Error),
    /// What was named cannot be read.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// The server ended.
    #[error("cannot serve")]
    Serve(#[source] io::Error),
}

/// A server that has its address, and answers once [`Watch::serve`] is called.
pub struct Watch {
    listener: TcpListener,
    address: SocketAddr,
    shared: Arc<Shared>,
}

/// What requests are answered from.
struct Shared {
    places: Mutex<Places>,
    access: Access,
    address: SocketAddr,
}

impl Watch {
    /// Takes an address, and reads the runs at `paths`: run directories, or directories in which
    /// they are and will be.
    pub fn open(address: &str, paths: Vec<PathBuf>, access: Access) -> Result<Watch, WatchError> {
        let failed = |source| WatchError::Listen {
            address: address.to_owned(),
            source,
        };
        let listener = TcpListener::bind(address).map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        let places = Mutex::new(Places::open(paths)?);
        Ok(Watch {
            listener,
            address: bound,
            shared: Arc::new(Shared {
                places,
                access,
                address: bound,
            }),
        })
    }

    /// Where a browser finds the page, with the token if one is needed. `machine` is this one's
    /// name, for an address that stands for all of its own.
    pub fn url(&self, machine: &str) -> String {
        let port = self.address.port();
        let host = match self.address {
            address if address.ip().is_unspecified() => format!("{machine}:{port}"),
            address => address.to_string(),
        };
        match &self.shared.access {
            Access::Local => format!("http://{host}/"),
            Access::Token(token) => format!("http://{host}/?token={}", token.reveal()),
        }
    }

    /// How many runs there are.
    pub fn runs(&self) -> usize {
        self.shared.places().runs().len()
    }

    /// Answers until something comes by `stop`, or its other end is dropped.
    pub fn serve(self, stop: Receiver<()>) -> Result<(), WatchError> {
        let (ended, end) = channel::<()>();
        let refreshed = self.shared.clone();
        let refresher = std::thread::spawn(move || {
            while end.recv_timeout(REFRESH) == Err(RecvTimeoutError::Timeout) {
                refreshed.places().refresh();
            }
        });
        let served = answer(self.listener, self.shared, stop);
        drop(ended);
        // It holds no more than what a test of its own would have found.
        let _ = refresher.join();
        served.map_err(WatchError::Serve)
    }
}

impl Shared {
    /// The runs. A thread that panicked has left them as readable as before.
    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn answer(listener: TcpListener, shared: Arc<Shared>, stop: Receiver<()>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    listener.set_nonblocking(true)?;
    let (tell, mut told) = tokio::sync::watch::channel(false);
    std::thread::spawn(move || {
        // Dropped, it says the same.
        let _ = stop.recv();
        let _ = tell.send(true);
    });
    let mut ending = told.clone();
    let served = runtime.block_on(async move {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let until = async move { drop(told.wait_for(|stop| *stop).await) };
        let serving = axum::serve(listener, answers::router(shared)).with_graceful_shutdown(until);
        tokio::select! {
            served = serving => served,
            () = async { drop(ending.wait_for(|stop| *stop).await); tokio::time::sleep(GRACE).await; } => Ok(()),
        }
    });
    // A request that is still computed is not waited for.
    runtime.shutdown_background();
    served
}
