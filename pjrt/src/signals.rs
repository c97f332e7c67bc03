//! What the process does on signals, which a plugin is not to change.
//!
//! libtpu, when it starts, installs handlers that print a stack trace on SIGTERM and then end the
//! process, whatever handler was there before. A program that saves its work on such a signal would
//! lose it.

use std::mem::MaybeUninit;
use std::ptr;

use libc::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2, c_int, sigaction};

/// The signals by which people and batch systems ask a process for something.
const REQUESTS: [c_int; 5] = [SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2];

/// Calls `work`, which may load plugins and create clients, and then puts the handlers of SIGHUP,
/// SIGINT, SIGTERM, SIGUSR1 and SIGUSR2 back that were there before.
pub fn keeping_signals<T>(work: impl FnOnce() -> T) -> T {
    let before = REQUESTS.map(|signal| (signal, handler(signal)));
    let result = work();
    for (signal, handler) in before {
        if let Some(handler) = handler {
            // SAFETY: the system gave this very description of a handler for this signal.
            unsafe { sigaction(signal, &raw const handler, ptr::null_mut()) };
        }
    }
    result
}

/// What is done on a signal.
fn handler(signal: c_int) -> Option<sigaction> {
    let mut handler = MaybeUninit::uninit();
    // SAFETY: nothing is changed, and there is room for the answer.
    let answer = unsafe { sigaction(signal, ptr::null(), handler.as_mut_ptr()) };
    // SAFETY: the answer was written, since the call succeeded.
    (answer == 0).then(|| unsafe { handler.assume_init() })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI32, Ordering};

    use super::*;

    static HEARD: AtomicI32 = AtomicI32::new(0);

    extern "C" fn ours(signal: c_int) {
        HEARD.store(signal, Ordering::Relaxed);
    }

    extern "C" fn a_plugins(_: c_int) {
        HEARD.store(-1, Ordering::Relaxed);
    }

    #[test]
    fn a_plugins_handlers_do_not_stay() {
        let install = |function: extern "C" fn(c_int)| {
            // SAFETY: both handlers do no more than write to an atomic.
            unsafe { libc::signal(SIGUSR2, function as *const () as libc::sighandler_t) }
        };
        let first = install(ours);
        let answer = keeping_signals(|| {
            install(a_plugins);
            7
        });
        assert_eq!(answer, 7);
        // SAFETY: it is handled.
        unsafe { libc::raise(SIGUSR2) };
        assert_eq!(HEARD.load(Ordering::Relaxed), SIGUSR2);
        // SAFETY: what was there before.
        unsafe { libc::signal(SIGUSR2, first) };
    }
}
