//! The thread that wakes tasks.
//!
//! A plugin calls back on a thread of its own, from which little may be done: a client that is
//! destroyed there waits for the very thread that destroys it. A waker is other people's code. It
//! may poll a task at once, block, panic, or own the last handle of a client, an executable or a
//! buffer. So the callback hands it over to this thread, one for the process.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, Sender};
use std::sync::{Mutex, PoisonError};
use std::task::Waker;
use std::thread;

use crate::error::{Error, Result};

/// The thread's name.
pub(crate) const NAME: &str = "pjrt-wakers";

/// Where the thread is told what to wake, once it was started.
static QUEUE: Mutex<Option<Sender<Waker>>> = Mutex::new(None);

/// Starts the thread, unless it runs already. Whoever keeps a waker to be woken calls this first.
pub(crate) fn start() -> Result<()> {
    let mut queue = QUEUE.lock().unwrap_or_else(PoisonError::into_inner);
    if queue.is_some() {
        return Ok(());
    }
    let (sender, wakers) = mpsc::channel::<Waker>();
    let run = move || {
        for waker in wakers {
            // The panic was printed; other tasks are not to wait for ever because of it.
            let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
        }
    };
    let thread = thread::Builder::new().name(NAME.into()).spawn(run);
    thread.map_err(|error| Error::Thread {
        reason: error.to_string(),
    })?;
    *queue = Some(sender);
    Ok(())
}

/// Wakes a task from the thread.
pub(crate) fn wake(waker: Waker) {
    let queue = QUEUE.lock().unwrap_or_else(PoisonError::into_inner);
    let sent = match &*queue {
        Some(sender) => sender.send(waker).map_err(|unsent| unsent.0),
        None => Err(waker),
    };
    // The thread was started before there was a waker, and never ends. Were it gone, dropping the
    // waker here could destroy a client, which is worse than a task that sleeps.
    if let Err(waker) = sent {
        std::mem::forget(waker);
    }
}
