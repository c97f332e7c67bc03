//! Events: what the plugin finishes later, as futures.
//!
//! The plugin calls back once an event is ready. The callback owns whatever the pending work still writes to (the
//! destination of a download), so that dropping an [`Event`] early is always safe, and hands the result to
//! the event, which wakes a task or a waiting thread.

use std::ffi::c_void;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::client::ClientHandle;
use crate::error::Result;
use crate::plugin::Plugin;
use crate::sys;

/// Something the plugin finishes later, with what it yields.
///
/// Await it under any runtime, or [`wait`](Event::wait) for it. Dropping it abandons the result, not the work.
#[must_use = "an event does nothing by itself; await it or wait for it"]
pub struct Event<T = ()> {
    shared: Arc<Shared<T>>,
    _client: Arc<ClientHandle>,
}

/// What the event and the callback share.
struct Shared<T> {
    state: Mutex<State<T>>,
    ready: Condvar,
}

struct State<T> {
    result: Option<Result<T>>,
    waker: Option<Waker>,
}

/// What the callback owns until it is called.
struct Callback<T> {
    plugin: Plugin,
    event: *mut sys::Event,
    function: &'static str,
    value: T,
    shared: Arc<Shared<T>>,
}

impl<T: Send + 'static> Event<T> {
    /// Watches an event of the plugin, which yields `value` when it is ready without an error. `function` is named
    /// in that error.
    ///
    /// # Safety
    ///
    /// `event` is null (then ready at once) or a live event of the client's plugin, which this call takes over.
    pub(crate) unsafe fn watch(
        client: Arc<ClientHandle>,
        event: *mut sys::Event,
        function: &'static str,
        value: T,
    ) -> Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                result: None,
                waker: None,
            }),
            ready: Condvar::new(),
        });
        let this = Self {
            shared: Arc::clone(&shared),
            _client: Arc::clone(&client),
        };
        if event.is_null() {
            shared.finish(Ok(value));
            return Ok(this);
        }
        let callback = Box::into_raw(Box::new(Callback {
            plugin: client.plugin().clone(),
            event,
            function,
            value,
            shared,
        }));
        let mut arguments = sys::EventOnReadyArgs {
            event,
            callback: Some(on_ready::<T>),
            user_arg: callback.cast(),
            ..Default::default()
        };
        // SAFETY: the event is live, and the callback takes over `user_arg`, which is called at most once.
        if let Err(error) = unsafe { client.plugin().api().call(&mut arguments) } {
            // Work in progress might still write to the value, so the box is leaked.
            // SAFETY: registration failed, so the callback is never called and the event is still ours.
            unsafe { destroy_event(client.plugin(), event) };
            return Err(error);
        }
        Ok(this)
    }
}

impl<T> Event<T> {
    /// Whether the work is done, well or not.
    pub fn is_ready(&self) -> bool {
        self.shared.lock().result.is_some()
    }

    /// Blocks the thread until the work is done. In an asynchronous task await the event instead.
    pub fn wait(self) -> Result<T> {
        let mut state = self.shared.lock();
        loop {
            match state.result.take() {
                Some(result) => return result,
                None => {
                    state = self
                        .shared
                        .ready
                        .wait(state)
                        .unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }
}

impl<T> Future for Event<T> {
    type Output = Result<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.shared.lock();
        match state.result.take() {
            Some(result) => Poll::Ready(result),
            None => {
                state.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl<T> fmt::Debug for Event<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event")
            .field("ready", &self.is_ready())
            .finish()
    }
}

impl<T> Shared<T> {
    /// The state; it is whole even if a thread died holding it, since every change is one assignment.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn finish(&self, result: Result<T>) {
        let waker = {
            let mut state = self.lock();
            state.result = Some(result);
            state.waker.take()
        };
        self.ready.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Destroys an event of the plugin.
///
/// # Safety
///
/// `event` is a live event of the plugin that the caller owns.
unsafe fn destroy_event(plugin: &Plugin, event: *mut sys::Event) {
    let mut arguments = sys::EventDestroyArgs {
        event,
        ..Default::default()
    };
    // SAFETY: the caller's promise. Nothing can be done about a failure.
    let _ = unsafe { plugin.api().call(&mut arguments) };
}

/// Called by the plugin, once, on a thread of its own.
unsafe extern "C" fn on_ready<T: Send + 'static>(error: *mut sys::Error, user_arg: *mut c_void) {
    // SAFETY: `watch` made this pointer from a box for this one call.
    let callback = unsafe { Box::from_raw(user_arg.cast::<Callback<T>>()) };
    let Callback {
        plugin,
        event,
        function,
        value,
        shared,
    } = *callback;
    // SAFETY: the plugin gives the error away with the call, and the event was taken over by `watch`.
    let result = unsafe {
        destroy_event(&plugin, event);
        plugin.api().take_error(error, function)
    };
    shared.finish(result.map(|()| value));
}
