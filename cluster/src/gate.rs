//! The place where a host waits for the others before it starts a program that runs on all devices.
//!
//! Each host counts the programs that it has started. All hosts start the same programs in the same
//! order, so a count means the same place on each. To act together, the hosts are held first: none
//! starts another program, and each says how far it is. They act where the foremost is; the others
//! go on to there.

use std::collections::VecDeque;

use crate::wire;

/// What the hosts of a run do together at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Request {
    /// They save to what each has at hand: see `checkpoint.local_minutes` of the application.
    SaveLocally,
    /// They save.
    Save,
    /// They save and end.
    Stop,
}

impl From<Request> for wire::Action {
    fn from(request: Request) -> wire::Action {
        match request {
            Request::SaveLocally => wire::Action::SaveLocally,
            Request::Save => wire::Action::Save,
            Request::Stop => wire::Action::Stop,
        }
    }
}

impl TryFrom<wire::Action> for Request {
    /// An action that means nothing.
    type Error = ();

    fn try_from(action: wire::Action) -> Result<Request, ()> {
        match action {
            wire::Action::SaveLocally => Ok(Request::SaveLocally),
            wire::Action::Save => Ok(Request::Save),
            wire::Action::Stop => Ok(Request::Stop),
            wire::Action::Unspecified => Err(()),
        }
    }
}

/// What a host does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It starts its next program. This has been counted.
    Go,
    /// It does this, and asks again.
    Do(Request),
}

/// The gate of one host.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    passed: u64,
    held: Option<u64>,
    /// What was agreed and not done yet, in the order in which it was agreed.
    agreed: VecDeque<(u64, Request)>,
}

impl Gate {
    /// The programs started.
    pub fn passed(&self) -> u64 {
        self.passed
    }

    /// Holds the host; how far it is.
    pub fn hold(&mut self, hold: u64) -> u64 {
        self.held = Some(hold);
        self.passed
    }

    /// Lets the host go on, to act at a place.
    pub fn agree(&mut self, hold: u64, passed: u64, request: Request) {
        if self.held == Some(hold) {
            self.held = None;
        }
        self.agreed.push_back((passed, request));
    }

    /// What the host would do next; nothing while it is held.
    pub fn next(&self) -> Option<Next> {
        let due = self.agreed.iter().find(|(at, _)| *at <= self.passed);
        match due {
            Some((_, request)) => Some(Next::Do(*request)),
            None if self.held.is_some() => None,
            None => Some(Next::Go),
        }
    }

    /// The same, and counts it as done.
    pub fn take(&mut self) -> Option<Next> {
        let next = self.next()?;
        match next {
            Next::Go => self.passed += 1,
            Next::Do(_) => {
                let due = self.agreed.iter().position(|(at, _)| *at <= self.passed);
                due.and_then(|due| self.agreed.remove(due));
            }
        }
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_goes_on_to_where_the_foremost_is() {
        let mut gate = Gate::default();
        for _ in 0..3 {
            assert_eq!(gate.take(), Some(Next::Go));
        }
        assert_eq!(gate.hold(7), 3);
        assert_eq!((gate.take(), gate.passed()), (None, 3));
        gate.agree(7, 5, Request::Stop);
        for _ in 0..2 {
            assert_eq!(gate.take(), Some(Next::Go));
        }
        assert_eq!(gate.next(), Some(Next::Do(Request::Stop)));
        assert_eq!(gate.take(), Some(Next::Do(Request::Stop)));
        assert_eq!((gate.take(), gate.passed()), (Some(Next::Go), 6));
    }

    #[test]
    fn what_is_agreed_for_one_place_is_done_in_the_order_of_agreement() {
        let mut gate = Gate::default();
        gate.hold(1);
        gate.agree(1, 0, Request::Save);
        gate.hold(2);
        assert_eq!(gate.take(), Some(Next::Do(Request::Save)));
        assert_eq!(gate.take(), None);
        gate.agree(2, 0, Request::Stop);
        assert_eq!(gate.take(), Some(Next::Do(Request::Stop)));
    }
}
