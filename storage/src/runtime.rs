//! The threads that wait for networks, shared by all storages of a process.

use std::sync::{OnceLock, mpsc};

use tokio::runtime::{Builder, Handle, Runtime};

use crate::Location;
use crate::error::{Error, Result};

/// The runtime, started by the first call.
pub(crate) fn start(location: &Location) -> Result<Handle> {
    static RUNTIME: OnceLock<std::result::Result<Runtime, String>> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| {
        // Fails where the application chose another provider before, which serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Builder::new_multi_thread()
            .worker_threads(cores.clamp(1, 4))
            .thread_name("ankh-storage")
            .enable_all()
            .build()
            .map_err(|error| error.to_string())
    });
    match runtime {
        Ok(runtime) => Ok(runtime.handle().clone()),
        Err(reason) => Err(Error::Request {
            action: "open",
            location: location.clone(),
            reason: format!("the threads for it cannot be started: {reason}"),
        }),
    }
}

/// A result that the runtime is working on. Dropping it ends the work.
pub(crate) struct Awaited<T> {
    result: mpsc::Receiver<Result<T>>,
    task: tokio::task::AbortHandle,
}

impl<T: Send + 'static> Awaited<T> {
    pub(crate) fn start(
        runtime: &Handle,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Self {
        let (sender, result) = mpsc::sync_channel(1);
        let task = runtime.spawn(async move {
            // The channel has room for the one result; nobody may be waiting any more.
            let _ = sender.send(work.await);
        });
        Self {
            result,
            task: task.abort_handle(),
        }
    }

    /// Blocks the calling thread until the result is there. It may be any thread, one of another
    /// runtime too.
    pub(crate) fn wait(self) -> Result<T> {
        // Without a result the task panicked; its message is on stderr.
        self.result.recv().unwrap_or(Err(Error::TaskDied))
    }
}

impl<T> Drop for Awaited<T> {
    fn drop(&mut self) {
        self.task.abort();
    }
}
