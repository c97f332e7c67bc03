//! What the coordinator decides. It is told what arrives and what time it is, and says what to send
//! to whom; it does nothing else, so that a test can play any course of events.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::Timing;
use crate::gate::Request;
use crate::lag::{Lags, Slow};
use crate::wire::{self, from_host, to_host};

/// The topic of the vote after which there is something to save.
pub(crate) const BEGIN: &str = "begin";

/// Hosts that do not come are named this often.
const REMIND: Duration = Duration::from_secs(5);

/// The slow host is named this often.
const NAME_SLOW: Duration = Duration::from_secs(60);

/// Processes that wait for the place of one host, if that host is gone.
const DOUBLES: usize = 4;

/// What names a call of a host.
pub(crate) type Connection = u64;

/// One session of the hosts of a run.
#[derive(Debug)]
pub(crate) struct Coordinator {
    timing: Timing,
    session: u64,
    /// What all hosts have in common.
    facts: Vec<wire::Fact>,
    /// The host that each place belongs to.
    hosts: Vec<Option<Host>>,
    /// Processes that say they are a host that is there already.
    doubles: Vec<Double>,
    phase: Phase,
    /// Why it ended.
    end: Option<(wire::EndReason, String)>,
    since: Instant,
    reminded: Instant,
    holds: Holds,
    ballots: BTreeMap<String, Ballot>,
    lags: Lags,
    named_slow: Instant,
    outbox: Vec<(Connection, to_host::Kind)>,
    notices: Vec<Notice>,
}

/// What happened, for the log of host 0.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Notice {
    /// These hosts have not come.
    Missing(Vec<usize>),
    /// All hosts have come.
    Met,
    /// A process was turned away.
    TurnedAway(String),
    /// A host is slow; its name.
    Slow(Slow, String),
    /// The session has ended.
    Ended(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Hosts are coming.
    Gathering,
    /// All are there, and have nothing to save.
    Met,
    /// All are there.
    Begun,
    Ended,
}

#[derive(Debug)]
struct Host {
    connection: Connection,
    process: u64,
    name: String,
    heard: Instant,
    left: bool,
    vote: Option<String>,
}

/// A second process for one host: one of both is dead or a mistake.
#[derive(Debug)]
struct Double {
    place: usize,
    connection: Connection,
    process: u64,
    name: String,
    since: Instant,
}

/// Requests, and the hold by which the hosts agree where to carry one out.
#[derive(Debug, Default)]
struct Holds {
    wanted: Option<Request>,
    current: Option<Hold>,
    last: u64,
    stopping: bool,
}

#[derive(Debug)]
struct Hold {
    number: u64,
    request: Request,
    /// How far each host is that has answered.
    answers: BTreeMap<usize, u64>,
}

/// A vote under way.
#[derive(Debug)]
struct Ballot {
    values: BTreeMap<usize, u64>,
    since: Instant,
    patience: Duration,
}

impl Coordinator {
    /// For so many hosts with these facts in common.
    pub fn new(
        hosts: usize,
        facts: Vec<wire::Fact>,
        session: u64,
        timing: Timing,
        now: Instant,
    ) -> Coordinator {
        Coordinator {
            timing,
            session,
            facts,
            hosts: (0..hosts).map(|_| None).collect(),
            doubles: Vec::new(),
            phase: Phase::Gathering,
            end: None,
            since: now,
            reminded: now,
            holds: Holds::default(),
            ballots: BTreeMap::new(),
            lags: Lags::of(hosts),
            named_slow: now,
            outbox: Vec::new(),
            notices: Vec::new(),
        }
    }

    /// What is to be sent.
    pub fn take_outbox(&mut self) -> Vec<(Connection, to_host::Kind)> {
        std::mem::take(&mut self.outbox)
    }

    /// What is to be logged.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// Whether nothing more will be sent.
    pub fn is_over(&self) -> bool {
        self.phase == Phase::Ended || self.hosts.iter().flatten().all(|host| host.left)
    }

    /// Takes in a message.
    pub fn receive(&mut self, connection: Connection, message: from_host::Kind, now: Instant) {
        if let from_host::Kind::Join(join) = message {
            return self.join(connection, join, now);
        }
        let Some(host) = self.host_of(connection) else {
            // Whoever has not joined has no say.
            return;
        };
        let there = self.hosts[host].as_mut().expect("a host found is there");
        there.heard = now;
        let has_left = there.left;
        self.expose_double(host, now);
        if self.phase == Phase::Ended || has_left {
            return;
        }
        match message {
            from_host::Kind::Join(_) => {}
            from_host::Kind::Status(status) => self.lags.passed(host, status.passed, now),
            from_host::Kind::Request(request) => self.request(host, request),
            from_host::Kind::Held(held) => self.held(host, held),
            from_host::Kind::Vote(vote) => self.vote(host, vote, now),
            from_host::Kind::Leave(leave) => self.leave(host, leave),
            from_host::Kind::SaveReport(report) => self.pass_on(host, report),
        }
    }

    /// A call ended.
    pub fn disconnected(&mut self, connection: Connection, now: Instant) {
        self.lose(connection, "its process ended without a word", now);
    }

    /// A host does not read what it is told, and is told nothing more.
    pub fn deaf(&mut self, connection: Connection, now: Instant) {
        self.lose(connection, "it does not read what it is told", now);
    }

    /// A process is there no more; how that is known.
    fn lose(&mut self, connection: Connection, how: &str, now: Instant) {
        self.doubles
            .retain(|double| double.connection != connection);
        let Some(host) = self.host_of(connection) else {
            return;
        };
        match self.phase {
            Phase::Gathering => {
                self.hosts[host] = None;
                let second = |double: &Double| double.place == host;
                if let Some(second) = self.doubles.iter().position(second) {
                    let second = self.doubles.swap_remove(second);
                    self.seat(second, now);
                }
            }
            Phase::Met | Phase::Begun if !self.is_left(host) => {
                let message = format!("{} is lost: {how}", self.name(host));
                self.end(wire::EndReason::Failed, message);
            }
            _ => {}
        }
    }

    /// Takes in that time has passed.
    pub fn tick(&mut self, now: Instant) {
        match self.phase {
            Phase::Ended => return,
            Phase::Gathering => self.remind(now),
            Phase::Met | Phase::Begun => {}
        }
        let lost = |host: &&Host| !host.left && now > host.heard + self.timing.lost_after;
        let lost = self.hosts.iter().flatten().find(lost);
        if let Some(connection) = lost.map(|host| host.connection) {
            let host = self.host_of(connection).expect("it is there");
            let seconds = self.timing.lost_after.as_secs_f64();
            match self.phase {
                Phase::Gathering => self.disconnected(connection, now),
                _ => {
                    let name = self.name(host);
                    let message = format!("{name} is lost: it was not heard for {seconds} s");
                    self.end(wire::EndReason::Failed, message);
                }
            }
        }
        self.expire_votes(now);
        if let Some(slow) = self
            .lags
            .slowest()
            .filter(|_| now > self.named_slow + NAME_SLOW)
        {
            self.named_slow = now;
            let name = self.name(slow.host);
            self.notices.push(Notice::Slow(slow, name));
        }
        if self.phase != Phase::Ended {
            self.broadcast(&to_host::Kind::Alive(wire::Alive {}));
        }
    }

    fn join(&mut self, connection: Connection, join: wire::Join, now: Instant) {
        if self.phase == Phase::Ended {
            let late = self.end_for_late(&join);
            self.outbox.push((connection, late));
            return;
        }
        let is_double = |double: &Double| double.connection == connection;
        if self.host_of(connection).is_some() || self.doubles.iter().any(is_double) {
            // A call is one process's, and it has said whose.
            return;
        }
        if let Err(difference) = self.check(&join) {
            let name = clean(&join.name);
            let message = format!("host {} ({name}) cannot take part: {difference}", join.host);
            self.turn_away(connection, message);
            return;
        }
        let place = join.host as usize;
        let second = Double {
            place,
            connection,
            process: join.process,
            name: clean(&join.name),
            since: now,
        };
        if self.hosts[place].is_none() {
            return self.seat(second, now);
        }
        let waiting = self.doubles.iter().filter(|double| double.place == place);
        match waiting.count() < DOUBLES {
            true => self.doubles.push(second),
            // It may try again.
            false => self.outbox.push((connection, over())),
        }
    }

    /// Gives a process the place that is free.
    fn seat(&mut self, process: Double, now: Instant) {
        if self.phase != Phase::Gathering {
            // Its place is never empty from then on; it could only be a mistake.
            return;
        }
        self.hosts[process.place] = Some(Host {
            connection: process.connection,
            process: process.process,
            name: process.name,
            heard: now,
            left: false,
            vote: None,
        });
        if self.hosts.iter().all(Option::is_some) {
            self.phase = Phase::Met;
            self.notices.push(Notice::Met);
            let session = self.session;
            self.broadcast(&to_host::Kind::Started(wire::Started { session }));
        }
    }

    /// Whether a process belongs to the run.
    fn check(&self, join: &wire::Join) -> Result<(), String> {
        let hosts = self.hosts.len();
        if join.hosts as usize != hosts {
            return Err(format!(
                "it expects {} hosts, and host 0 expects {hosts}",
                join.hosts
            ));
        }
        if join.host as usize >= hosts {
            return Err(format!("the run has hosts 0 to {}", hosts - 1));
        }
        for own in &self.facts {
            let other = join.facts.iter().find(|fact| fact.name == own.name);
            let Some(other) = other else {
                return Err(format!("it does not say its {}", own.name));
            };
            if other.value != own.value {
                let (there, here) = difference(&other.value, &own.value);
                let name = &own.name;
                return Err(format!(
                    "its {name} is `{}`, and host 0's is `{here}`",
                    clean(there)
                ));
            }
        }
        Ok(())
    }

    /// Refuses a process. Before all have met it is told to all, since none can begin.
    fn turn_away(&mut self, connection: Connection, message: String) {
        match self.phase {
            Phase::Gathering => {
                let refused = ended(wire::EndReason::Refused, &message);
                self.outbox.push((connection, refused));
                self.end(wire::EndReason::Refused, message);
            }
            _ => {
                self.outbox
                    .push((connection, ended(wire::EndReason::Refused, &message)));
                self.notices.push(Notice::TurnedAway(message));
            }
        }
    }

    /// If a host is heard after a second process came for its place, the second is a mistake.
    fn expose_double(&mut self, host: usize, now: Instant) {
        let wait = self.timing.heartbeat() / 2;
        let exposed = |double: &Double| double.place == host && now > double.since + wait;
        while let Some(double) = self.doubles.iter().position(exposed) {
            let double = self.doubles.swap_remove(double);
            let there = self.hosts[host].as_ref();
            let message = match there.is_some_and(|there| there.process == double.process) {
                true => format!("{} has joined twice", self.name(host)),
                false => format!(
                    "host {host} came twice, as {} and as {}: each host starts once",
                    there.map_or("", |there| &there.name),
                    double.name
                ),
            };
            self.turn_away(double.connection, message);
        }
    }

    fn remind(&mut self, now: Instant) {
        let missing = self.missing();
        if now > self.since + self.timing.rendezvous {
            let seconds = self.timing.rendezvous.as_secs_f64();
            let message = format!("{} did not come within {seconds} s", hosts(&missing));
            return self.end(wire::EndReason::Failed, message);
        }
        let first = self.reminded == self.since && now > self.since + Duration::from_secs(1);
        if first || now > self.reminded + REMIND {
            self.reminded = now;
            self.notices.push(Notice::Missing(missing.clone()));
            let missing = missing.into_iter().map(|host| host as u32).collect();
            self.broadcast(&to_host::Kind::Waiting(wire::Waiting { missing }));
        }
    }

    fn missing(&self) -> Vec<usize> {
        let hosts = self.hosts.iter().enumerate();
        hosts
            .filter(|(_, there)| there.is_none())
            .map(|(host, _)| host)
            .collect()
    }

    fn request(&mut self, host: usize, request: wire::Request) {
        let Ok(wanted) = Request::try_from(request.action()) else {
            return;
        };
        match (self.phase, wanted) {
            (Phase::Begun, _) => {
                self.holds.wanted = self.holds.wanted.max(Some(wanted));
                self.hold();
            }
            (_, Request::Stop) => {
                let message = format!("{}: {}", self.name(host), clean(&request.reason));
                self.end(wire::EndReason::Stopped, message);
            }
            (_, Request::Save | Request::SaveLocally) => {}
        }
    }

    /// Holds the hosts for what is wanted, if nothing is being agreed.
    fn hold(&mut self) {
        let holds = &mut self.holds;
        if holds.current.is_some() || holds.stopping {
            return;
        }
        let Some(request) = holds.wanted.take() else {
            return;
        };
        holds.last += 1;
        let number = holds.last;
        holds.current = Some(Hold {
            number,
            request,
            answers: BTreeMap::new(),
        });
        self.broadcast(&to_host::Kind::Hold(wire::Hold { hold: number }));
    }

    fn held(&mut self, host: usize, held: wire::Held) {
        let Some(hold) = &mut self.holds.current else {
            return;
        };
        if hold.number != held.hold {
            return;
        }
        hold.answers.insert(host, held.passed);
        self.agree_if_all();
    }

    fn agree_if_all(&mut self) {
        let there = self.present();
        let Some(hold) = &self.holds.current else {
            return;
        };
        if !there.iter().all(|host| hold.answers.contains_key(host)) {
            return;
        }
        let passed = hold.answers.values().copied().max().unwrap_or(0);
        let (number, request) = (hold.number, hold.request);
        self.holds.current = None;
        self.holds.stopping |= request == Request::Stop;
        let mut agreed = wire::Agreed {
            hold: number,
            passed,
            ..wire::Agreed::default()
        };
        agreed.set_action(request.into());
        self.broadcast(&to_host::Kind::Agreed(agreed));
        self.hold();
    }

    fn vote(&mut self, host: usize, vote: wire::Vote, now: Instant) {
        let there = self.hosts[host]
            .as_mut()
            .expect("a host that votes is there");
        if there.vote.is_some() {
            let message = format!(
                "{} voted on `{}` out of turn",
                self.name(host),
                clean(&vote.topic)
            );
            return self.end(wire::EndReason::Failed, message);
        }
        there.vote = Some(vote.topic.clone());
        let patience = Duration::from_millis(vote.patience_milliseconds.into());
        let ballot = self.ballots.entry(vote.topic).or_insert(Ballot {
            values: BTreeMap::new(),
            since: now,
            patience,
        });
        ballot.patience = ballot.patience.max(patience);
        ballot.values.insert(host, vote.value);
        self.count_votes();
    }

    fn count_votes(&mut self) {
        let there = self.present();
        let is_complete =
            |ballot: &Ballot| there.iter().all(|host| ballot.values.contains_key(host));
        let complete = self.ballots.iter().find(|(_, ballot)| is_complete(ballot));
        if let Some(topic) = complete.map(|(topic, _)| topic.clone()) {
            let ballot = self.ballots.remove(&topic).expect("it was found");
            for host in self.hosts.iter_mut().flatten() {
                host.vote = None;
            }
            if topic == BEGIN && self.phase == Phase::Met {
                self.phase = Phase::Begun;
            }
            let values = ballot.values.into_values().collect();
            self.broadcast(&to_host::Kind::Votes(wire::Votes { topic, values }));
        } else if self.ballots.len() > 1 {
            let votes = self.ballots.iter().map(|(topic, ballot)| {
                let voters: Vec<usize> = ballot.values.keys().copied().collect();
                format!("{} at `{}`", hosts(&voters), clean(topic))
            });
            let votes: Vec<String> = votes.collect();
            let message = format!("the hosts are not at one place: {}", votes.join(", "));
            self.end(wire::EndReason::Failed, message);
        }
    }

    fn expire_votes(&mut self, now: Instant) {
        let late = |ballot: &Ballot| now > ballot.since + ballot.patience;
        let Some((topic, ballot)) = self.ballots.iter().find(|(_, ballot)| late(ballot)) else {
            return;
        };
        let there = self.present().into_iter();
        let missing: Vec<usize> = there
            .filter(|host| !ballot.values.contains_key(host))
            .collect();
        let seconds = ballot.patience.as_secs_f64();
        let message = format!(
            "{} did not come to `{}` within {seconds} s",
            hosts(&missing),
            clean(topic)
        );
        self.end(wire::EndReason::Failed, message);
    }

    /// Passes on what became of a save: from host 0 to the others, from another one to host 0.
    fn pass_on(&mut self, host: usize, report: wire::SaveReport) {
        if self.phase != Phase::Begun {
            return;
        }
        let reported = to_host::Kind::SaveReported(wire::SaveReported {
            host: host as u32,
            save: report.save,
            failure: clean(&report.failure),
        });
        let others = self.hosts.iter().enumerate();
        let others = others.filter(|(other, _)| (*other == 0) != (host == 0));
        let others = others.filter_map(|(_, there)| there.as_ref().filter(|host| !host.left));
        self.outbox
            .extend(others.map(|host| (host.connection, reported.clone())));
    }

    fn leave(&mut self, host: usize, leave: wire::Leave) {
        let there = self.hosts[host]
            .as_mut()
            .expect("a host that leaves is there");
        there.left = true;
        let said = clean(&leave.message);
        match leave.reason() {
            wire::LeaveReason::Done => {}
            wire::LeaveReason::Failed => {
                let message = format!("{} failed: {said}", self.name(host));
                return self.end(wire::EndReason::Failed, message);
            }
            wire::LeaveReason::Stopped => {
                let message = format!("{}: {said}", self.name(host));
                return self.end(wire::EndReason::Stopped, message);
            }
        }
        // The others wait no longer for its answers.
        self.agree_if_all();
        if !self.ballots.is_empty() {
            self.count_votes();
        }
    }

    /// Tells all hosts that the session is over, and why: once, for the first reason.
    fn end(&mut self, reason: wire::EndReason, message: String) {
        if self.phase == Phase::Ended {
            return;
        }
        self.broadcast(&ended(reason, &message));
        for double in std::mem::take(&mut self.doubles) {
            self.outbox.push((double.connection, over()));
        }
        self.phase = Phase::Ended;
        self.notices.push(Notice::Ended(message.clone()));
        self.end = Some((reason, message));
    }

    /// What a process is told that comes after the end. Another session may follow, but not for the
    /// process that this coordinator is in, nor for hosts that do not belong together.
    fn end_for_late(&self, join: &wire::Join) -> to_host::Kind {
        match &self.end {
            Some((reason, message)) if join.host == 0 || *reason == wire::EndReason::Refused => {
                ended(*reason, message)
            }
            _ => over(),
        }
    }

    fn broadcast(&mut self, message: &to_host::Kind) {
        let there = self.hosts.iter().flatten().filter(|host| !host.left);
        self.outbox
            .extend(there.map(|host| (host.connection, message.clone())));
    }

    /// The hosts that are there and have not left.
    fn present(&self) -> Vec<usize> {
        let is_present = |there: &Option<Host>| there.as_ref().is_some_and(|host| !host.left);
        let hosts = self.hosts.iter().enumerate();
        hosts
            .filter(|(_, there)| is_present(there))
            .map(|(host, _)| host)
            .collect()
    }

    fn host_of(&self, connection: Connection) -> Option<usize> {
        let is_it = |there: &Option<Host>| {
            there
                .as_ref()
                .is_some_and(|host| host.connection == connection)
        };
        self.hosts.iter().position(is_it)
    }

    fn is_left(&self, host: usize) -> bool {
        self.hosts[host].as_ref().is_some_and(|host| host.left)
    }

    fn name(&self, host: usize) -> String {
        match &self.hosts[host] {
            Some(there) => format!("host {host} ({})", there.name),
            None => format!("host {host}"),
        }
    }
}

fn over() -> to_host::Kind {
    ended(wire::EndReason::Over, "the session has ended")
}

fn ended(reason: wire::EndReason, message: &str) -> to_host::Kind {
    let mut ended = wire::Ended {
        message: message.into(),
        ..wire::Ended::default()
    };
    ended.set_reason(reason);
    to_host::Kind::Ended(ended)
}

/// `host 3`, or `hosts 1, 2 and 5`.
pub(crate) fn hosts(numbers: &[usize]) -> String {
    let names: Vec<String> = numbers.iter().map(usize::to_string).collect();
    match names.split_last() {
        None => "no host".into(),
        Some((only, [])) => format!("host {only}"),
        Some((last, others)) => format!("hosts {} and {last}", others.join(", ")),
    }
}

/// The first line in which two texts differ, of each.
fn difference<'a>(there: &'a str, here: &'a str) -> (&'a str, &'a str) {
    let mut lines = (there.lines(), here.lines());
    loop {
        match (lines.0.next(), lines.1.next()) {
            (None, None) => return (there, here),
            (there, here) if there == here => {}
            (there, here) => return (there.unwrap_or("nothing"), here.unwrap_or("nothing")),
        }
    }
}

/// What another process says, fit for one line of a log.
fn clean(text: &str) -> String {
    let line = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    line.take(500).collect()
}

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod course;
#[cfg(test)]
mod tests;
