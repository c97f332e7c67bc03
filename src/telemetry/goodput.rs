//! Where the time of a run goes: how much of it trains, and what takes the rest.

use std::fmt;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// What takes time beside training steps that last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// Opening data and compiling, until the first step can be loaded.
    Compiling,
    /// Loading a state onto the devices, or drawing one.
    Loading,
    /// Waiting for a batch while the devices have nothing to do.
    Waiting,
    /// Measuring the held-out loss.
    Evaluating,
    /// Standing still while a state is copied to be saved.
    Saving,
    /// Steps that the run went back behind.
    RolledBack,
    /// Nothing ran: the process before had crashed or hung, until this one was started.
    Restarting,
}

/// How many there are.
const KINDS: usize = Lost::Restarting as usize + 1;

/// The time of a process, by what took it.
#[derive(Debug)]
pub struct Goodput {
    began: Instant,
    lost: [Duration; KINDS],
    /// When the state was last loaded or saved, and all that was lost before.
    kept: (Instant, Duration),
}

/// Shares of the time of a process, which add up to 1. Google calls the first the goodput.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TimeShares {
    /// Training steps that last.
    pub training: f64,
    /// See [`Lost::Compiling`].
    pub compiling: f64,
    /// See [`Lost::Loading`].
    pub loading: f64,
    /// See [`Lost::Waiting`].
    pub waiting: f64,
    /// See [`Lost::Evaluating`].
    pub evaluating: f64,
    /// See [`Lost::Saving`].
    pub saving: f64,
    /// See [`Lost::RolledBack`].
    pub rolled_back: f64,
    /// See [`Lost::Restarting`].
    pub restarting: f64,
}

impl Goodput {
    /// Begins to count now, after a time in which nothing ran.
    pub fn start_after(restarting: Duration) -> Goodput {
        let now = Instant::now();
        let mut goodput = Goodput {
            began: now,
            lost: [Duration::ZERO; KINDS],
            kept: (now, Duration::ZERO),
        };
        // A clock that began later than that time leaves it out.
        if let Some(began) = now.checked_sub(restarting) {
            goodput.began = began;
            goodput.lose(Lost::Restarting, restarting);
            goodput.keep();
        }
        goodput
    }

    /// Counts time that trained nothing.
    pub fn lose(&mut self, to: Lost, time: Duration) {
        self.lost[to as usize] += time;
    }

    /// The state was loaded or saved: the steps up to now are not lost any more.
    pub fn keep(&mut self) {
        self.kept = (Instant::now(), self.lost.iter().sum());
    }

    /// The run goes back to where its state was last loaded or saved: the steps since are lost.
    pub fn roll_back(&mut self) {
        let (since, lost) = self.kept;
        let lost: Duration = self.lost.iter().sum::<Duration>() - lost;
        self.lose(Lost::RolledBack, since.elapsed().saturating_sub(lost));
        self.keep();
    }

    /// How the time up to now was spent.
    pub fn shares(&self) -> TimeShares {
        shares(self.began.elapsed(), &self.lost)
    }

    /// Seconds up to now, by the names of the shares.
    pub fn seconds(&self) -> [(&'static str, f64); KINDS + 1] {
        let all = self.began.elapsed();
        let shares = shares(all, &self.lost).named();
        shares.map(|(name, share)| (name, share * all.as_secs_f64()))
    }
}

fn shares(all: Duration, lost: &[Duration; KINDS]) -> TimeShares {
    let all = all.as_secs_f64();
    if all == 0.0 {
        return TimeShares::default();
    }
    let lost = lost.map(|time| time.as_secs_f64() / all);
    let [
        compiling,
        loading,
        waiting,
        evaluating,
        saving,
        rolled_back,
        restarting,
    ] = lost;
    TimeShares {
        training: (1.0 - lost.iter().sum::<f64>()).max(0.0),
        compiling,
        loading,
        waiting,
        evaluating,
        saving,
        rolled_back,
        restarting,
    }
}

impl TimeShares {
    /// The shares with their names.
    fn named(&self) -> [(&'static str, f64); KINDS + 1] {
        [
            ("training", self.training),
            ("compiling", self.compiling),
            ("loading", self.loading),
            ("waiting", self.waiting),
            ("evaluating", self.evaluating),
            ("saving", self.saving),
            ("rolled_back", self.rolled_back),
            ("restarting", self.restarting),
        ]
    }
}

impl fmt::Display for TimeShares {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} % training", 100.0 * self.training)?;
        for (share, name) in [
            (self.compiling, "compiling"),
            (self.loading, "loading"),
            (self.waiting, "waiting for data"),
            (self.evaluating, "evaluating"),
            (self.saving, "saving"),
            (self.rolled_back, "rolled back"),
            (self.restarting, "restarting"),
        ] {
            // What rounds to nothing is not listed.
            if share >= 0.0005 {
                write!(f, ", {:.1} {name}", 100.0 * share)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_and_say_what_took_the_time() {
        let second = Duration::from_secs(1);
        let mut lost = [Duration::ZERO; KINDS];
        lost[Lost::Compiling as usize] = second;
        lost[Lost::RolledBack as usize] = 2 * second;
        let shares = shares(10 * second, &lost);
        assert_eq!(
            (shares.training, shares.compiling, shares.rolled_back),
            (0.7, 0.1, 0.2)
        );
        assert_eq!(
            shares.to_string(),
            "70.0 % training, 10.0 compiling, 20.0 rolled back"
        );
    }

    #[test]
    fn what_passed_before_a_restart_is_counted_once() {
        let minute = Duration::from_secs(60);
        let mut goodput = Goodput::start_after(minute);
        let shares = goodput.shares();
        assert!(shares.restarting > 0.99, "{shares:?}");
        goodput.roll_back();
        assert!(goodput.lost[Lost::RolledBack as usize] < minute / 2);
    }

    #[test]
    fn steps_are_lost_from_where_the_state_was_kept() {
        let mut goodput = Goodput::start_after(Duration::ZERO);
        let pause = Duration::from_millis(20);
        std::thread::sleep(pause);
        goodput.keep();
        std::thread::sleep(2 * pause);
        // Of the time since, this was lost already.
        goodput.lose(Lost::Waiting, pause);
        let start = Instant::now();
        goodput.roll_back();
        let rolled_back = goodput.lost[Lost::RolledBack as usize];
        let all = goodput.began.elapsed();
        assert!(
            rolled_back >= pause && rolled_back <= all - 2 * pause,
            "{rolled_back:?}"
        );
        // What went back once is not lost again.
        goodput.roll_back();
        let again = goodput.lost[Lost::RolledBack as usize] - rolled_back;
        assert!(again <= start.elapsed(), "{again:?}");
    }
}
