use proptest::prelude::*;

use super::*;

const TIMING: Timing = Timing {
    rendezvous: Duration::from_secs(30),
    lost_after: Duration::from_secs(8),
};

/// A coordinator and its clock. Host `h` is on connection `h`.
struct World {
    coordinator: Coordinator,
    now: Instant,
}

impl World {
    fn of(hosts: usize) -> World {
        let now = Instant::now();
        World {
            coordinator: Coordinator::new(hosts, facts("1"), 77, TIMING, now),
            now,
        }
    }

    /// All hosts have come, and begun.
    fn begun(hosts: usize) -> World {
        let mut world = World::of(hosts);
        for host in 0..hosts {
            world.join(host as u64, host, "1");
        }
        for host in 0..hosts {
            world.vote(host, BEGIN, 0);
        }
        world.sent();
        world
    }

    fn join(&mut self, connection: Connection, host: usize, version: &str) {
        let join = wire::Join {
            host: host as u32,
            hosts: self.coordinator.hosts.len() as u32,
            process: connection,
            name: format!("machine-{connection}"),
            facts: facts(version),
        };
        self.tell(connection, from_host::Kind::Join(join));
    }

    fn tell(&mut self, connection: Connection, kind: from_host::Kind) {
        self.coordinator.receive(connection, kind, self.now);
    }

    fn vote(&mut self, host: usize, topic: &str, value: u64) {
        let vote = wire::Vote {
            topic: topic.into(),
            value,
            patience_milliseconds: 5_000,
        };
        self.tell(host as u64, from_host::Kind::Vote(vote));
    }

    fn status(&mut self, host: usize, passed: u64) {
        self.tell(
            host as u64,
            from_host::Kind::Status(wire::Status { passed }),
        );
    }

    fn ask(&mut self, host: usize, action: wire::Action) {
        let mut request = wire::Request {
            reason: "SIGTERM".into(),
            ..wire::Request::default()
        };
        request.set_action(action);
        self.tell(host as u64, from_host::Kind::Request(request));
    }

    fn leave(&mut self, host: usize, reason: wire::LeaveReason, message: &str) {
        let mut leave = wire::Leave {
            message: message.into(),
            ..wire::Leave::default()
        };
        leave.set_reason(reason);
        self.tell(host as u64, from_host::Kind::Leave(leave));
    }

    fn wait(&mut self, seconds: f64) {
        self.now += Duration::from_secs_f64(seconds);
        self.coordinator.tick(self.now);
    }

    /// What was sent, without the signs of life.
    fn sent(&mut self) -> Vec<(Connection, to_host::Kind)> {
        let sent = self.coordinator.take_outbox().into_iter();
        sent.filter(|(_, kind)| !matches!(kind, to_host::Kind::Alive(_)))
            .collect()
    }

    /// The ends that were told, by connection.
    fn ends(&mut self) -> Vec<(Connection, wire::EndReason, String)> {
        let ends = self
            .sent()
            .into_iter()
            .filter_map(|(connection, kind)| match kind {
                to_host::Kind::Ended(ended) => Some((connection, ended.reason(), ended.message)),
                _ => None,
            });
        ends.collect()
    }

    /// Checks that these were told one end, with these words in it.
    fn expect_end(&mut self, to: &[Connection], reason: wire::EndReason, words: &[&str]) {
        let ends = self.ends();
        let mut told: Vec<Connection> = ends.iter().map(|end| end.0).collect();
        told.sort_unstable();
        assert_eq!(told, to, "{ends:?}");
        for (_, found, message) in &ends {
            assert_eq!(*found, reason, "{message}");
            for word in words {
                assert!(message.contains(word), "`{word}` in `{message}`");
            }
        }
    }
}

fn facts(version: &str) -> Vec<wire::Fact> {
    let fact = |name: &str, value: &str| wire::Fact {
        name: name.into(),
        value: value.into(),
    };
    let configuration = format!("[train]\nsteps = 4\nbatch_size = {version}\n");
    vec![
        fact("plugin", "0.115"),
        fact("configuration", &configuration),
    ]
}

#[test]
fn nobody_begins_before_all_are_there() {
    let mut world = World::of(3);
    world.join(0, 0, "1");
    world.join(2, 2, "1");
    assert!(world.sent().is_empty());
    world.wait(2.0);
    assert_eq!(world.coordinator.take_notices(), [Notice::Missing(vec![1])]);
    assert!(
        world
            .sent()
            .iter()
            .all(|(_, kind)| matches!(kind, to_host::Kind::Waiting(_)))
    );
    world.join(1, 1, "1");
    let sent = world.sent();
    assert_eq!(sent.len(), 3);
    for (_, kind) in sent {
        assert_eq!(kind, to_host::Kind::Started(wire::Started { session: 77 }));
    }
}

#[test]
fn hosts_that_do_not_come_are_named_to_all() {
    let mut world = World::of(4);
    world.join(0, 0, "1");
    world.join(2, 2, "1");
    for _ in 0..31 {
        world.wait(1.0);
        world.status(0, 0);
        world.status(2, 0);
    }
    let words = ["hosts 1 and 3 did not come within 30 s"];
    world.expect_end(&[0, 2], wire::EndReason::Failed, &words);
}

#[test]
fn a_host_with_other_facts_ends_a_session_that_has_not_begun() {
    let mut world = World::of(3);
    world.join(0, 0, "1");
    world.join(1, 1, "2");
    let words = [
        "host 1 (machine-1)",
        "its configuration is `batch_size = 2`",
        "`batch_size = 1`",
    ];
    world.expect_end(&[0, 1], wire::EndReason::Refused, &words);
    world.join(2, 2, "1");
    // A host that comes later hears it too.
    world.expect_end(&[2], wire::EndReason::Refused, &words);
}

#[test]
fn a_second_process_of_a_host_that_lives_is_a_mistake() {
    let mut world = World::of(2);
    world.join(0, 0, "1");
    world.join(5, 0, "1");
    assert!(world.ends().is_empty());
    world.now += Duration::from_secs(1);
    world.status(0, 0);
    world.expect_end(
        &[0, 5],
        wire::EndReason::Refused,
        &["host 0 came twice", "machine-5"],
    );
    // Later, the run goes on without it.
    let mut world = World::begun(2);
    world.join(5, 1, "1");
    world.now += Duration::from_secs(1);
    world.status(1, 4);
    world.expect_end(&[5], wire::EndReason::Refused, &["host 1 came twice"]);
}

#[test]
fn a_process_that_died_is_replaced_before_the_hosts_have_met() {
    let mut world = World::of(2);
    world.join(1, 1, "1");
    world.join(5, 1, "1");
    world.coordinator.disconnected(1, world.now);
    world.join(0, 0, "1");
    let started = world.sent();
    let told: Vec<Connection> = started.iter().map(|(to, _)| *to).collect();
    assert_eq!(told, [0, 5]);
    // Afterwards the others have to begin anew, with the one that came in its place.
    world.join(6, 1, "1");
    world.coordinator.disconnected(5, world.now);
    let ends = world.ends();
    assert_eq!(ends.len(), 3, "{ends:?}");
    assert!(
        ends.iter()
            .any(|(to, reason, _)| (*to, *reason) == (6, wire::EndReason::Over))
    );
}

#[test]
fn a_host_that_dies_hangs_or_fails_is_known_to_all() {
    let mut world = World::begun(3);
    world.coordinator.disconnected(2, world.now);
    let words = ["host 2 (machine-2) is lost: its process ended"];
    world.expect_end(&[0, 1, 2], wire::EndReason::Failed, &words);

    let mut world = World::begun(3);
    for _ in 0..9 {
        world.wait(1.0);
        world.status(0, 1);
        world.status(2, 1);
    }
    let words = ["host 1 (machine-1) is lost: it was not heard for 8 s"];
    world.expect_end(&[0, 1, 2], wire::EndReason::Failed, &words);

    let mut world = World::begun(3);
    world.leave(1, wire::LeaveReason::Failed, "the disk\nis full");
    let words = ["host 1 (machine-1) failed: the disk is full"];
    world.expect_end(&[0, 2], wire::EndReason::Failed, &words);
}

#[test]
fn a_request_to_stop_before_there_is_anything_to_save_ends_all() {
    let mut world = World::of(2);
    world.join(0, 0, "1");
    world.join(1, 1, "1");
    world.sent();
    world.ask(1, wire::Action::Stop);
    world.expect_end(&[0, 1], wire::EndReason::Stopped, &["host 1", "SIGTERM"]);
    let mut world = World::of(2);
    world.join(0, 0, "1");
    world.leave(0, wire::LeaveReason::Stopped, "SIGINT");
    assert!(world.ends().is_empty() && world.coordinator.is_over());
    world.join(1, 1, "1");
    world.expect_end(&[1], wire::EndReason::Over, &[]);
}

#[test]
fn a_vote_gives_all_numbers_to_all() {
    let mut world = World::begun(3);
    for round in 0..2 {
        for host in [2, 0, 1] {
            world.vote(host, "resume", 10 * host as u64 + round);
        }
        let values = vec![round, 10 + round, 20 + round];
        let topic = "resume".to_owned();
        let votes = to_host::Kind::Votes(wire::Votes { topic, values });
        assert_eq!(
            world.sent(),
            [(0, votes.clone()), (1, votes.clone()), (2, votes)]
        );
    }
}

#[test]
fn hosts_that_miss_a_vote_or_are_elsewhere_end_the_session() {
    let mut world = World::begun(3);
    world.vote(0, "resume", 1);
    for _ in 0..6 {
        world.wait(1.0);
        (0..3).for_each(|host| world.status(host, 1));
    }
    let words = ["hosts 1 and 2 did not come to `resume` within 5 s"];
    world.expect_end(&[0, 1, 2], wire::EndReason::Failed, &words);

    let mut world = World::begun(2);
    world.vote(0, "resume", 1);
    world.vote(1, "go back", 1);
    let words = ["host 1 at `go back`", "host 0 at `resume`"];
    world.expect_end(&[0, 1], wire::EndReason::Failed, &words);
}

#[test]
fn what_became_of_a_save_goes_from_host_0_to_the_others_and_from_them_to_host_0() {
    let report = |save, failure: &str| {
        from_host::Kind::SaveReport(wire::SaveReport {
            save,
            failure: failure.into(),
        })
    };
    let reported = |host, save, failure: &str| {
        to_host::Kind::SaveReported(wire::SaveReported {
            host,
            save,
            failure: failure.into(),
        })
    };
    let mut world = World::begun(3);
    world.tell(2, report(4, "the disk\nis full"));
    assert_eq!(world.sent(), [(0, reported(2, 4, "the disk is full"))]);
    world.tell(0, report(4, "host 2 cannot write"));
    let said = reported(0, 4, "host 2 cannot write");
    assert_eq!(world.sent(), [(1, said.clone()), (2, said)]);
    world.leave(1, wire::LeaveReason::Done, "");
    world.tell(0, report(5, ""));
    assert_eq!(world.sent(), [(2, reported(0, 5, ""))]);
    // Before they have begun, there is nothing to save.
    let mut world = World::of(2);
    world.join(0, 0, "1");
    world.join(1, 1, "1");
    world.sent();
    world.tell(1, report(1, "x"));
    assert!(world.sent().is_empty());
}

#[test]
fn those_who_have_left_are_not_waited_for() {
    let mut world = World::begun(3);
    world.vote(0, "end", 1);
    world.ask(0, wire::Action::Save);
    world.leave(1, wire::LeaveReason::Done, "");
    world.sent();
    world.vote(2, "end", 3);
    for host in [0, 2] {
        world.tell(
            host,
            from_host::Kind::Held(wire::Held {
                hold: 1,
                passed: host,
            }),
        );
    }
    let sent = world.sent();
    assert_eq!(sent.len(), 4, "{sent:?}");
    assert!(!world.coordinator.is_over());
    world.leave(0, wire::LeaveReason::Done, "");
    world.leave(2, wire::LeaveReason::Done, "");
    assert!(world.coordinator.is_over());
    world.coordinator.disconnected(2, world.now);
    assert!(world.ends().is_empty());
}

/// A host that starts programs and follows what it is told, as `member` does.
#[derive(Default)]
struct Actor {
    gate: crate::gate::Gate,
    inbox: std::collections::VecDeque<to_host::Kind>,
    /// What it did, and where.
    did: Vec<(u64, Request)>,
}

proptest! {
    /// However messages and steps interleave, all hosts do the same at the same places.
    #[test]
    fn all_hosts_act_at_the_same_places(
        events in proptest::collection::vec((0usize..4, 0u8..12), 1..400)
    ) {
        let mut world = World::begun(4);
        let mut actors: Vec<Actor> = (0..4).map(|_| Actor::default()).collect();
        let play = |world: &mut World, actors: &mut Vec<Actor>, host: usize, event: u8| {
            match event {
                0 => world.ask(host, wire::Action::Save),
                1 => world.ask(host, wire::Action::Stop),
                2..=6 => {
                    let actor = &mut actors[host];
                    let stopped = actor.did.last().is_some_and(|(_, did)| *did == Request::Stop);
                    if !stopped
                        && let Some(crate::gate::Next::Do(request)) = actor.gate.take()
                    {
                        let passed = actor.gate.passed();
                        actor.did.push((passed, request));
                    }
                }
                _ => match actors[host].inbox.pop_front() {
                    Some(to_host::Kind::Hold(hold)) => {
                        let passed = actors[host].gate.hold(hold.hold);
                        let held = wire::Held { hold: hold.hold, passed };
                        world.tell(host as u64, from_host::Kind::Held(held));
                    }
                    Some(to_host::Kind::Agreed(agreed)) => {
                        let request = match agreed.action() {
                            wire::Action::Stop => Request::Stop,
                            _ => Request::Save,
                        };
                        actors[host].gate.agree(agreed.hold, agreed.passed, request);
                    }
                    _ => {}
                },
            }
            for (to, kind) in world.sent() {
                actors[to as usize].inbox.push_back(kind);
            }
        };
        for (host, event) in events {
            play(&mut world, &mut actors, host, event);
        }
        // All messages arrive, and all hosts go on to where they have to act.
        for _ in 0..1000 {
            for host in 0..4 {
                play(&mut world, &mut actors, host, 7);
                play(&mut world, &mut actors, host, 2);
            }
        }
        for actor in &actors {
            prop_assert_eq!(&actor.did, &actors[0].did);
        }
    }
}

#[test]
fn of_processes_that_want_one_place_only_some_are_remembered() {
    let mut world = World::of(2);
    world.join(0, 0, "1");
    for connection in 1..100 {
        world.join(connection, 0, "1");
    }
    let told = world.ends().into_iter();
    let told: Vec<(Connection, wire::EndReason)> =
        told.map(|(to, reason, _)| (to, reason)).collect();
    assert_eq!(told.len(), 99 - DOUBLES);
    assert!(
        told.iter()
            .all(|(_, reason)| *reason == wire::EndReason::Over)
    );
    // Nor does one that says again and again who it is count as several.
    let mut world = World::of(2);
    for _ in 0..100 {
        world.join(0, 0, "1");
    }
    assert!(world.ends().is_empty() && world.coordinator.doubles.is_empty());
}

#[test]
fn a_host_that_has_left_has_no_say() {
    let mut world = World::begun(3);
    world.leave(2, wire::LeaveReason::Done, "");
    world.vote(2, "x", 5);
    world.leave(2, wire::LeaveReason::Failed, "too late");
    world.vote(0, "x", 1);
    world.vote(1, "x", 2);
    let sent = world.sent();
    let votes = sent.iter().filter_map(|(_, message)| match message {
        to_host::Kind::Votes(votes) => Some(votes.values.clone()),
        _ => None,
    });
    assert_eq!(votes.collect::<Vec<_>>(), [vec![1, 2], vec![1, 2]]);
    assert!(world.ends().is_empty());
}

#[test]
fn a_session_ends_once() {
    let mut world = World::of(2);
    world.join(0, 0, "1");
    // The time to come is over, and the host that came is silent too.
    world.now += Duration::from_secs(60);
    world.coordinator.tick(world.now);
    assert_eq!(world.sent().len(), 1);
}

proptest! {
    #[test]
    fn whatever_hosts_say_nothing_panics_or_grows(events in prop::collection::vec(any::<u8>(), 0..400)) {
        course::play(&events);
    }
}

#[test]
fn what_the_fuzzer_begins_with_holds() {
    let seeds = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/seeds/coordinator");
    for seed in std::fs::read_dir(seeds).unwrap() {
        course::play(&std::fs::read(seed.unwrap().path()).unwrap());
    }
}
