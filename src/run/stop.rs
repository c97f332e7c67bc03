//! A request to stop, as the system makes it: SIGTERM (also what a preempted machine gets) or Ctrl-C.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// Set once somebody asks the process to stop; the loop looks at it between steps, saves and leaves.
#[derive(Clone, Debug, Default)]
pub struct StopFlag(Arc<AtomicBool>);

impl StopFlag {
    /// A flag that SIGTERM and SIGINT set. A second signal ends the process at once, as it would have without us.
    pub fn on_signals() -> io::Result<Self> {
        let stop = Self::default();
        for signal in [SIGTERM, SIGINT] {
            // In this order: the first signal finds the flag clear and sets it, the second finds it set.
            flag::register_conditional_default(signal, stop.0.clone())?;
            flag::register(signal, stop.0.clone())?;
        }
        Ok(stop)
    }

    /// The flag itself, for a loop to look at.
    pub fn flag(&self) -> &AtomicBool {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    #[test]
    fn a_first_signal_sets_the_flag_and_ends_nothing() {
        let stop = StopFlag::on_signals().unwrap();
        assert!(!stop.flag().load(Ordering::Relaxed));
        signal_hook::low_level::raise(SIGTERM).unwrap();
        assert!(stop.flag().load(Ordering::Relaxed));
    }
}
