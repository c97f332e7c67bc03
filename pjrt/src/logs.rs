//! The plugins' own log, which goes to stderr.

use std::env;
use std::fs;

/// The variable that XLA reads as the least severity to log.
const VARIABLE: &str = "TF_CPP_MIN_LOG_LEVEL";

/// Asks plugins loaded later to log warnings and errors only, unless the variable
/// `TF_CPP_MIN_LOG_LEVEL` says otherwise.
///
/// This sets the variable, which is sound only while nothing else reads the environment: call it
/// first in `main`. In a process that has other threads it does nothing.
pub fn quiet_logs() {
    const WARNING: &str = "1";
    if env::var_os(VARIABLE).is_none() && is_single_threaded() {
        // SAFETY: no other thread exists that could read the environment meanwhile.
        unsafe { env::set_var(VARIABLE, WARNING) };
    }
}

/// Whether this is the process's only thread, as far as the system tells.
fn is_single_threaded() -> bool {
    fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_thread_leaves_the_environment_alone() {
        let before = env::var_os(VARIABLE);
        std::thread::scope(|scope| {
            let (stop, stopped) = std::sync::mpsc::channel::<()>();
            scope.spawn(move || stopped.recv());
            quiet_logs();
            drop(stop);
        });
        assert_eq!(env::var_os(VARIABLE), before);
    }
}
