//! A task that sleeps on the plugin's work, and is alone in keeping the client: it is woken, and so
//! dropped, elsewhere than on the plugin's thread.

mod common;

use std::future::Future;
use std::pin::Pin;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use ankh_pjrt::{Buffer, Client, ElementType, Event, Executable, HostTensor};
use ankh_proto::xla::DotDimensionNumbers;
use common::{binary, client, compile};

/// A task with all that it was given. Its fields are dropped in this order.
struct Task {
    event: Mutex<Option<Event<HostTensor>>>,
    _buffers: Vec<Buffer>,
    _executable: Executable,
    _client: Client,
    _end: End,
}

/// Tells the name of the thread that drops it.
struct End(Sender<Option<String>>);

impl Drop for End {
    fn drop(&mut self) {
        let _ = self.0.send(thread::current().name().map(str::to_owned));
    }
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {}
}

#[test]
fn a_waker_may_have_the_last_handles_of_a_client_and_all_of_its_own() {
    const SIDE: i64 = 512;
    let (sender, end) = mpsc::channel();
    // A copy may be there before it is asked for; then there is nothing to wait for, and another
    // try.
    let asleep = (0..20).any(|_| {
        let client = client(1);
        let device = &client.addressable_devices().unwrap()[0];
        let mut dot = binary("dot", ElementType::F32, &[SIDE, SIDE]);
        let root = dot.computations[0].instructions.last_mut().unwrap();
        root.dot_dimension_numbers = Some(DotDimensionNumbers {
            lhs_contracting_dimensions: vec![1],
            rhs_contracting_dimensions: vec![0],
            ..Default::default()
        });
        let dot = compile(&client, &dot);
        let x = HostTensor::zeros(ElementType::F32, [SIDE, SIDE]);
        let x = client.upload(&x, device).unwrap();
        let mut outputs = dot.execute(vec![vec![(&x).into(), (&x).into()]]).unwrap();
        let output = outputs.remove(0).remove(0);
        let task = Arc::new(Task {
            event: Mutex::new(Some(output.to_host_async().unwrap())),
            _buffers: vec![x, output],
            _executable: dot,
            _client: client,
            _end: End(sender.clone()),
        });
        let waker = Waker::from(Arc::clone(&task));
        let mut event = task.event.lock().unwrap();
        let polled = Pin::new(event.as_mut().unwrap()).poll(&mut Context::from_waker(&waker));
        if let Poll::Ready(result) = polled {
            result.unwrap();
            return false;
        }
        // From here on the waker alone keeps the task.
        true
    });
    assert!(asleep, "every copy was there at once");
    // Earlier tries ended on this thread.
    let threads = std::iter::from_fn(|| end.recv_timeout(Duration::from_secs(300)).ok());
    let mut others = threads.filter(|name| name.as_deref() != thread::current().name());
    assert_eq!(others.next(), Some(Some("pjrt-wakers".into())));
}
