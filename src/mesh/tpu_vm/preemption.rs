//! The notice that a machine is about to be taken away.
//!
//! Compute Engine takes a spot machine some 30 seconds after its metadata server has begun to say
//! so. The server is asked again and again, rather than told to answer at a change: a change that
//! came between two questions would be missed, and the questions cost nothing.

use std::io;
use std::thread;
use std::time::Duration;

use super::TpuVm;
use super::metadata::{self, Server};

/// The server is asked this often: it takes little of the time that remains.
const EVERY: Duration = Duration::from_secs(2);

/// Calls `notify`, on a thread of its own, when the metadata server says that this machine is about
/// to be taken away.
///
/// The server is asked on a TPU VM, and wherever `GCE_METADATA_HOST` names it; nowhere if
/// `TPU_SKIP_MDS_QUERY` is set. Without an answer the log says so, once.
pub fn on_preemption(vm: Option<&TpuVm>, notify: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let Some(host) = host(vm, |name| std::env::var(name).ok()) else {
        return Ok(());
    };
    let watch = move || {
        wait_for_notice(&Server::new(&host));
        notify();
    };
    let thread = thread::Builder::new().name("preemption".into());
    thread.spawn(watch).map(|_| ())
}

/// The server to ask, if there is one.
fn host(vm: Option<&TpuVm>, environment: impl Fn(&str) -> Option<String>) -> Option<String> {
    super::metadata_host(&environment, vm.map(|_| metadata::HOST))
}

fn wait_for_notice(server: &Server<'_>) {
    let mut is_silent = false;
    loop {
        let problem = match server.is_preempted() {
            Ok(Some(true)) => return,
            Ok(Some(false)) => None,
            Ok(None) => Some("the server does not know".into()),
            Err(error) => Some(error.to_string()),
        };
        if let Some(problem) = problem
            && !std::mem::replace(&mut is_silent, true)
        {
            tracing::warn!(
                "there may be no notice before this machine is taken away: {problem}; asking on"
            );
        }
        thread::sleep(EVERY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_is_asked_on_a_tpu_vm_or_where_it_is_named() {
        let vm = TpuVm {
            slice: "v4-8".parse().unwrap(),
            worker: 0,
            peers: vec!["10.1.0.4".into()],
        };
        let none = |_: &str| None;
        let named = |name: &str| (name == "GCE_METADATA_HOST").then(|| "10.0.0.1:80".to_owned());
        let skipping = |name: &str| (name == "TPU_SKIP_MDS_QUERY").then(|| "true".to_owned());
        assert_eq!(host(None, none), None);
        assert_eq!(host(None, named).as_deref(), Some("10.0.0.1:80"));
        assert_eq!(host(Some(&vm), none).as_deref(), Some(metadata::HOST));
        assert_eq!(host(Some(&vm), skipping), None);
    }
}
