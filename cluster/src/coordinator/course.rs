//! Any course of events, read from bytes, with what holds in all of them.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use prost::Message;

use super::{Connection, Coordinator, DOUBLES, Phase};
use crate::Timing;
use crate::wire::{self, EndReason, from_host, to_host};

/// Hosts of the run. There are more connections than that.
const HOSTS: usize = 3;
const CONNECTIONS: usize = 8;

/// What a unit of time in the bytes means.
const UNIT: Duration = Duration::from_millis(100);

/// Plays the events that bytes describe. The first byte of each says who acts (its lowest three
/// bits) and how:
///
/// - 0: the call ends; what this process does later, another one does;
/// - 1: time passes, as long as the next byte says;
/// - 2: the process joins as it should, as the host in the next byte;
/// - others: the next byte is the length of the message that follows, a `FromHost`.
///
/// Panics where something does not hold.
pub fn play(events: &[u8]) {
    let mut world = World::new();
    let mut bytes = events.iter().copied();
    while let Some(event) = bytes.next() {
        let number = usize::from(event) % CONNECTIONS;
        let connection = world.calls[number];
        match usize::from(event) / CONNECTIONS % 8 {
            0 => world.hang_up(number),
            1 => {
                world.now += UNIT * u32::from(bytes.next().unwrap_or(1));
                world.coordinator.tick(world.now);
            }
            2 => {
                let host = bytes.next().unwrap_or(0);
                world.join(connection, u32::from(host) % (HOSTS as u32 + 1));
            }
            _ => {
                let length = bytes.next().unwrap_or(0).into();
                let message: Vec<u8> = bytes.by_ref().take(length).collect();
                // The transport refuses what is no message.
                if let Ok(wire::FromHost { kind: Some(kind) }) = Message::decode(&message[..]) {
                    world.coordinator.receive(connection, kind, world.now);
                }
            }
        }
        world.check();
    }
}

/// A coordinator, and what it has said.
struct World {
    coordinator: Coordinator,
    now: Instant,
    /// The calls under way.
    calls: [Connection; CONNECTIONS],
    last_call: Connection,
    /// The session has ended, and all have been told.
    has_ended: bool,
}

impl World {
    fn new() -> World {
        let now = Instant::now();
        let timing = Timing {
            rendezvous: Duration::from_secs(30),
            lost_after: Duration::from_secs(8),
        };
        World {
            coordinator: Coordinator::new(HOSTS, facts(), 7, timing, now),
            now,
            calls: std::array::from_fn(|number| number as Connection),
            last_call: CONNECTIONS as Connection,
            has_ended: false,
        }
    }

    fn hang_up(&mut self, number: usize) {
        self.last_call += 1;
        let ended = std::mem::replace(&mut self.calls[number], self.last_call);
        self.coordinator.disconnected(ended, self.now);
    }

    fn join(&mut self, connection: Connection, host: u32) {
        let join = wire::Join {
            host,
            hosts: HOSTS as u32,
            process: connection,
            name: format!("process {connection}"),
            facts: facts(),
        };
        let join = from_host::Kind::Join(join);
        self.coordinator.receive(connection, join, self.now);
    }

    fn check(&mut self) {
        let coordinator = &mut self.coordinator;
        let said = coordinator.take_outbox();
        coordinator.take_notices();
        let mut told_the_end = BTreeSet::new();
        for (connection, message) in &said {
            assert!(
                !told_the_end.contains(connection),
                "{connection} is told {message:?} after the end"
            );
            match message {
                to_host::Kind::Ended(ended) => {
                    told_the_end.insert(*connection);
                    let end = coordinator.end.as_ref().map(|(reason, _)| *reason);
                    let is_late = [Some(EndReason::Over), end].contains(&Some(ended.reason()));
                    assert!(!self.has_ended || is_late, "{ended:?} after the end");
                }
                other => assert!(!self.has_ended, "{other:?} after the end"),
            }
            if let to_host::Kind::SaveReported(report) = message {
                // Host 0 hears of all others, and they of host 0.
                let host = coordinator.host_of(*connection).expect("it has joined");
                assert!((report.host as usize) < HOSTS, "{report:?}");
                assert!((report.host == 0) != (host == 0), "{report:?} to {host}");
                assert_eq!(coordinator.phase, Phase::Begun, "{report:?}");
            }
            if let to_host::Kind::Votes(votes) = message {
                assert!((1..=HOSTS).contains(&votes.values.len()), "{votes:?}");
            }
        }
        assert!(
            !self.has_ended || coordinator.phase == Phase::Ended,
            "a session that has ended goes on"
        );
        self.has_ended = coordinator.phase == Phase::Ended;
        // What the hosts have said takes up no more than so much.
        assert!(coordinator.doubles.len() <= DOUBLES * HOSTS);
        assert!(coordinator.ballots.len() <= HOSTS);
        let holds = &coordinator.holds;
        let answers = holds.current.as_ref().map_or(0, |hold| hold.answers.len());
        assert!(answers <= HOSTS);
        // A call is in one place.
        let hosts = coordinator.hosts.iter().flatten().map(|h| h.connection);
        let doubles = coordinator.doubles.iter().map(|d| d.connection);
        let calls: Vec<Connection> = hosts.chain(doubles).collect();
        let distinct: BTreeSet<&Connection> = calls.iter().collect();
        assert!(self.has_ended || distinct.len() == calls.len(), "{calls:?}");
    }
}

fn facts() -> Vec<wire::Fact> {
    vec![wire::Fact {
        name: "v".into(),
        value: "1".into(),
    }]
}
