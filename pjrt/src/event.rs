//! Events: what the plugin finishes later, as futures.
//!
//! The plugin calls back once an event is ready. The callback owns whatever the pending work still
//! writes to (the destination of a download), so that dropping an [`Event`] early is always safe,
//! and hands the result to the event, which wakes a waiting thread, or a task by way of [`wakers`]:
//! on the plugin's thread no one else's code runs, and nothing of the plugin but the event itself
//! is destroyed.

use std::ffi::c_void;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::client_handle::ClientHandle;
use crate::error::Result;
use crate::plugin::Plugin;
use crate::{sys, wakers};

/// Something the plugin finishes later, with what it yields.
///
/// Await it under any runtime, or [`wait`](Event::wait) for it. Dropping it abandons the result,
/// not the work.
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
    /// Watches an event of the plugin, which yields `value` when it is ready without an error.
    /// `function` is named in that error.
    ///
    /// # Safety
    ///
    /// `event` is null (then ready at once) or a live event of the client's plugin, which this call
    /// takes over.
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
        // SAFETY: the event is live, and the callback takes over `user_arg`, which is called at
        // most once.
        if let Err(error) = unsafe { client.plugin().api().call(&mut arguments) } {
            // Work in progress might still write to the value, so the box is leaked. SAFETY:
            // registration failed, so the callback is never called and the event is still ours.
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
        if let Err(error) = wakers::start() {
            return Poll::Ready(Err(error));
        }
        // A waker's clone and drop are its owner's code, which must not find the state locked.
        let waker = context.waker().clone();
        let mut state = self.shared.lock();
        if let Some(result) = state.result.take() {
            drop(state);
            return Poll::Ready(result);
        }
        let replaced = state.waker.replace(waker);
        drop(state);
        drop(replaced);
        Poll::Pending
    }
}

impl<T> Drop for Event<T> {
    fn drop(&mut self) {
        // Nobody is left to be woken, and the callback should not be the one to drop the waker.
        let waker = self.shared.lock().waker.take();
        drop(waker);
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
    /// The state; it is whole even if a thread died holding it, since every change is one
    /// assignment.
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
            wakers::wake(waker);
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
    // SAFETY: the plugin gives the error away with the call, and the event was taken over by
    // `watch`.
    let result = unsafe {
        destroy_event(&plugin, event);
        plugin.api().take_error(error, function)
    };
    shared.finish(result.map(|()| value));
}

#[cfg(test)]
mod tests {
    use std::ptr::{self, NonNull};
    use std::sync::mpsc::{self, Receiver, Sender};
    use std::task::Wake;
    use std::thread::{self, ThreadId};
    use std::time::Duration;

    use super::*;
    use crate::client::Client;
    use crate::fake::Fake;

    /// What the fake plugin was asked to call back, as (callback, argument).
    static CALLBACKS: Mutex<Vec<(sys::OnReady, usize)>> = Mutex::new(Vec::new());
    /// The threads on which clients were destroyed.
    static DESTROYED: Mutex<Vec<ThreadId>> = Mutex::new(Vec::new());
    /// The tests share these.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

    unsafe extern "C" fn destroy(_: *mut sys::ClientDestroyArgs) -> *mut sys::Error {
        DESTROYED.lock().unwrap().push(thread::current().id());
        ptr::null_mut()
    }

    unsafe extern "C" fn watch(arguments: *mut sys::EventOnReadyArgs) -> *mut sys::Error {
        // SAFETY: the caller gives live arguments.
        let (callback, argument) = unsafe { ((*arguments).callback, (*arguments).user_arg) };
        let callback = (callback.unwrap(), argument as usize);
        CALLBACKS.lock().unwrap().push(callback);
        ptr::null_mut()
    }

    unsafe extern "C" fn forget(_: *mut sys::EventDestroyArgs) -> *mut sys::Error {
        ptr::null_mut()
    }

    fn client() -> Client {
        let fake = Fake::with_client().with(destroy).with(watch);
        fake.with(forget).plugin().create_client(&[]).unwrap()
    }

    fn event(client: &Client) -> Event {
        // SAFETY: the fake plugin does not look into its events.
        unsafe { Event::watch(client.handle(), NonNull::dangling().as_ptr(), "test", ()) }.unwrap()
    }

    /// Calls back what the plugin was asked to, on a thread of its own, whose id this gives.
    fn call_back() -> ThreadId {
        let run = || {
            let callbacks: Vec<_> = CALLBACKS.lock().unwrap().drain(..).collect();
            for (callback, argument) in callbacks {
                // SAFETY: this is what the plugin was given, and it is called once.
                unsafe { callback(ptr::null_mut(), argument as *mut c_void) };
            }
            thread::current().id()
        };
        thread::spawn(run).join().unwrap()
    }

    /// A task that is waiting for an event and has, with it, the last handle of the client.
    struct Task {
        event: Mutex<Option<Event>>,
        _client: Client,
        gone: Sender<()>,
    }

    impl Wake for Task {
        fn wake(self: Arc<Self>) {}
    }

    impl Drop for Task {
        fn drop(&mut self) {
            // The fields go after this; who waits for the client's end looks a little later.
            let _ = self.gone.send(());
        }
    }

    /// A task that waits, owned by its waker alone.
    fn sleeping_task() -> Receiver<()> {
        let client = client();
        let (gone, signal) = mpsc::channel();
        let task = Arc::new(Task {
            event: Mutex::new(Some(event(&client))),
            _client: client,
            gone,
        });
        let waker = Waker::from(Arc::clone(&task));
        let mut polled = task.event.lock().unwrap();
        let poll = Pin::new(polled.as_mut().unwrap()).poll(&mut Context::from_waker(&waker));
        assert!(poll.is_pending());
        drop(polled);
        signal
    }

    fn destroyed() -> Vec<ThreadId> {
        for _ in 0..1000 {
            let found = DESTROYED.lock().unwrap();
            if !found.is_empty() {
                return found.clone();
            }
            drop(found);
            thread::sleep(Duration::from_millis(10));
        }
        Vec::new()
    }

    #[test]
    fn a_waker_with_the_last_handle_of_a_client_does_not_destroy_it_on_the_plugins_thread() {
        let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        DESTROYED.lock().unwrap().clear();
        let gone = sleeping_task();
        assert!(gone.try_recv().is_err(), "the waker keeps the task");
        let plugin = call_back();
        gone.recv_timeout(Duration::from_secs(100)).unwrap();
        let destroyed = destroyed();
        assert_eq!(destroyed.len(), 1);
        assert!(!destroyed.contains(&plugin));
        assert!(!destroyed.contains(&thread::current().id()));
    }

    #[test]
    fn a_waker_that_panics_keeps_no_other_task_asleep() {
        struct Panics;
        impl Wake for Panics {
            fn wake(self: Arc<Self>) {
                panic!("as the test wants it");
            }
        }
        struct Tells(Sender<String>);
        impl Wake for Tells {
            fn wake(self: Arc<Self>) {
                let _ = self.0.send(thread::current().name().unwrap_or("").into());
            }
        }
        let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let client = client();
        let (sender, woken) = mpsc::channel();
        let mut events = [event(&client), event(&client)];
        let wakers = [
            Waker::from(Arc::new(Panics)),
            Arc::new(Tells(sender)).into(),
        ];
        for (event, waker) in events.iter_mut().zip(&wakers) {
            let poll = Pin::new(event).poll(&mut Context::from_waker(waker));
            assert!(poll.is_pending());
        }
        call_back();
        let name = woken.recv_timeout(Duration::from_secs(100)).unwrap();
        assert_eq!(name, wakers::NAME);
        assert!(events.iter().all(Event::is_ready));
    }

    #[test]
    fn an_event_drops_its_waker_with_itself_and_where_nothing_is_locked() {
        /// Looks at the event when it is dropped, as a task that owns it might.
        struct Looks(Mutex<Option<Arc<Shared<()>>>>, Sender<bool>);
        impl Wake for Looks {
            fn wake(self: Arc<Self>) {}
        }
        impl Drop for Looks {
            fn drop(&mut self) {
                let shared = self.0.lock().unwrap().take().unwrap();
                let _ = self.1.send(shared.state.try_lock().is_ok());
            }
        }
        let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let client = client();
        let mut event = event(&client);
        let (sender, looks) = mpsc::channel();
        let poll = |event: &mut Event| {
            let shared = Mutex::new(Some(Arc::clone(&event.shared)));
            let waker = Waker::from(Arc::new(Looks(shared, sender.clone())));
            let mut context = Context::from_waker(&waker);
            assert!(Pin::new(event).poll(&mut context).is_pending());
        };
        poll(&mut event);
        assert!(looks.try_recv().is_err());
        // A second poll replaces the waker of the first.
        poll(&mut event);
        assert_eq!(looks.try_recv(), Ok(true));
        drop(event);
        assert_eq!(looks.try_recv(), Ok(true));
        call_back();
    }
}
