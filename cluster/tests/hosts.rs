//! Hosts on loopback: each a thread with a member of its own.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use ankh_cluster::{
    EndReason, Ended, Identity, JoinError, Leaving, MeetingPlace, Member, Next, Request, Server,
    Timing,
};

const TIMING: Timing = Timing {
    rendezvous: Duration::from_secs(20),
    lost_after: Duration::from_secs(4),
};

const PATIENCE: Duration = Duration::from_secs(20);

fn identity(host: usize, hosts: usize) -> Identity {
    Identity {
        host,
        hosts,
        name: format!("machine-{host}"),
        facts: vec![("version".into(), "1".into())],
    }
}

fn loopback() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

struct Hosts {
    server: Option<Server>,
    place: MeetingPlace,
    _directory: tempfile::TempDir,
}

impl Hosts {
    fn of(hosts: usize) -> Hosts {
        let directory = tempfile::tempdir().unwrap();
        let place = MeetingPlace::of(directory.path());
        let server = Server::start(loopback(), place.clone(), &identity(0, hosts), TIMING);
        Hosts {
            server: Some(server.unwrap()),
            place,
            _directory: directory,
        }
    }

    fn member(&self, identity: Identity) -> (Member, Receiver<Ended>) {
        let (sender, ends) = channel();
        let on_end = move |ended: &Ended| {
            let _ = sender.send(ended.clone());
        };
        let member = Member::start(identity, self.place.clone(), TIMING, on_end);
        (member.unwrap(), ends)
    }

    /// Members that have met and begun.
    fn begun(&self, hosts: usize) -> Vec<(Member, Receiver<Ended>)> {
        let members: Vec<_> = (0..hosts)
            .map(|host| self.member(identity(host, hosts)))
            .collect();
        std::thread::scope(|scope| {
            for (member, _) in &members {
                scope.spawn(|| {
                    member.meet().unwrap();
                    member.begin(PATIENCE).unwrap();
                });
            }
        });
        members
    }
}

/// Starts programs until the member stops, and returns where it did what.
fn work(member: &Member, pause: Duration) -> Vec<(u64, Request)> {
    let (mut passed, mut did) = (0, Vec::new());
    loop {
        match member.pass().unwrap() {
            Next::Go => passed += 1,
            Next::Do(request) => {
                did.push((passed, request));
                if request == Request::Stop {
                    return did;
                }
            }
        }
        std::thread::sleep(pause);
    }
}

#[test]
fn hosts_that_work_at_their_own_pace_save_and_stop_at_the_same_places() {
    let hosts = Hosts::of(4);
    let members = hosts.begun(4);
    let sessions: Vec<u64> = members
        .iter()
        .map(|(member, _)| member.meet().unwrap())
        .collect();
    assert!(sessions.iter().all(|session| *session == sessions[0]));
    let did: Vec<Vec<(u64, Request)>> = std::thread::scope(|scope| {
        let threads = members.iter().zip(1..).map(|((member, _), milliseconds)| {
            scope.spawn(move || work(member, Duration::from_millis(milliseconds)))
        });
        let threads: Vec<_> = threads.collect();
        std::thread::sleep(Duration::from_millis(50));
        members[2].0.request(Request::Save, "somebody asks");
        std::thread::sleep(Duration::from_millis(50));
        members[1].0.request(Request::Stop, "SIGTERM");
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    let kinds: Vec<Request> = did[0].iter().map(|(_, did)| *did).collect();
    assert_eq!(kinds, [Request::Save, Request::Stop]);
    assert!(did.iter().all(|other| *other == did[0]), "{did:?}");
    std::thread::scope(|scope| {
        for (member, ends) in members {
            scope.spawn(move || {
                let votes = member
                    .gather("end", member.host() as u64, PATIENCE)
                    .unwrap();
                assert_eq!(votes, [0, 1, 2, 3]);
                member.leave(Leaving::Done);
                assert!(ends.try_recv().is_err());
            });
        }
    });
}

#[test]
fn a_host_that_dies_or_fails_is_known_to_all_within_a_second() {
    for fails in [false, true] {
        let hosts = Hosts::of(3);
        let mut members = hosts.begun(3);
        let start = Instant::now();
        let (member, _ends) = members.remove(1);
        let words = match fails {
            true => {
                member.leave(Leaving::Failed("the disk is full".into()));
                "host 1 (machine-1) failed: the disk is full"
            }
            false => {
                drop(member);
                "host 1 (machine-1) is lost: its process ended without a word"
            }
        };
        for (member, ends) in &members {
            let ended = ends.recv_timeout(PATIENCE).unwrap();
            assert_eq!(
                (ended.reason, ended.message.as_str()),
                (EndReason::Failed, words)
            );
            assert_eq!(member.pass().unwrap_err(), ended);
            assert_eq!(member.gather("x", 0, PATIENCE).unwrap_err(), ended);
        }
        assert!(start.elapsed() < Duration::from_secs(1));
    }
}

#[test]
fn the_end_of_host_0_is_known_too() {
    let mut hosts = Hosts::of(2);
    let mut members = hosts.begun(2);
    let (own, _) = members.remove(0);
    own.leave(Leaving::Failed("out of memory".into()));
    drop(hosts.server.take());
    let ended = members[0].1.recv_timeout(PATIENCE).unwrap();
    assert!(
        ended
            .message
            .contains("host 0 (machine-0) failed: out of memory"),
        "{ended}"
    );
}

#[test]
fn hosts_with_other_facts_hear_it_on_both_sides() {
    let hosts = Hosts::of(2);
    let (own, _) = hosts.member(identity(0, 2));
    let mut other = identity(1, 2);
    other.facts[0].1 = "2".into();
    let (other, _) = hosts.member(other);
    for member in [own, other] {
        let error = member.meet().unwrap_err();
        let JoinError::Ended(ended) = error else {
            panic!("{error}");
        };
        assert_eq!(ended.reason, EndReason::Refused);
        assert!(
            ended
                .message
                .contains("its version is `2`, and host 0's is `1`"),
            "{ended}"
        );
    }
}

#[test]
fn a_host_that_comes_early_waits_for_host_0_and_for_another_start_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let place = MeetingPlace::of(directory.path());
    let (early, _) = {
        let (sender, ends) = channel();
        let on_end = move |ended: &Ended| sender.send(ended.clone()).unwrap();
        (
            Member::start(identity(1, 2), place.clone(), TIMING, on_end).unwrap(),
            ends,
        )
    };
    // What an earlier start has left: nobody is there.
    let text = r#"{"address":"127.0.0.1:9","secret":"00"}"#;
    std::fs::write(place.file(), text).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let server = Server::start(loopback(), place.clone(), &identity(0, 2), TIMING).unwrap();
    let own = Member::start(identity(0, 2), place, TIMING, |_| {}).unwrap();
    assert_eq!(own.meet().unwrap(), early.meet().unwrap());
    own.leave(Leaving::Done);
    early.leave(Leaving::Done);
    drop(server);
    // The place goes with the last file in it.
    assert!(!directory.path().exists());
}

#[test]
fn a_host_that_never_meets_host_0_says_what_it_looked_for() {
    let directory = tempfile::tempdir().unwrap();
    let place = MeetingPlace::of(directory.path());
    let timing = Timing {
        rendezvous: Duration::from_millis(300),
        ..TIMING
    };
    let member = Member::start(identity(1, 2), place.clone(), timing, |_| {}).unwrap();
    let error = member.meet().unwrap_err().to_string();
    let file = place.file().display().to_string();
    for words in ["host 1 waited", &file, "same run directory"] {
        assert!(error.contains(words), "{words} in {error}");
    }
}

/// Sends bytes to the coordinator and reads what comes until it hangs up, or for a while.
fn stranger(address: SocketAddr, bytes: &[u8]) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    // It may have hung up already.
    let _ = stream.write_all(bytes);
    let _ = stream.read_to_end(&mut Vec::new());
}

#[test]
fn strangers_change_nothing() {
    let hosts = Hosts::of(2);
    let members = hosts.begun(2);
    let address = hosts.server.as_ref().unwrap().address();
    // No secret, and another one.
    let invitation = std::fs::read_to_string(hosts.place.file()).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let wrong = MeetingPlace::of(elsewhere.path());
    let mut value: serde_json::Value = serde_json::from_str(&invitation).unwrap();
    value["secret"] = "1234".into();
    std::fs::write(wrong.file(), value.to_string()).unwrap();
    let short = Timing {
        rendezvous: Duration::from_millis(300),
        ..TIMING
    };
    let outsider = Member::start(identity(1, 2), wrong, short, |_| {}).unwrap();
    let error = outsider.meet().unwrap_err().to_string();
    assert!(
        error.contains("belongs to another start of the run"),
        "{error}"
    );
    // Garbage, the beginning of a call, and a call without a secret's value.
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let zeros = [0; 4096];
    let settings = [&preface[..], &[0, 0, 0, 4, 0, 0, 0, 0, 0]].concat();
    let broken = [&settings[..], &[255; 64]].concat();
    let get = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";
    for bytes in [&preface[..], &zeros, &settings, &broken, get, b""] {
        stranger(address, bytes);
    }
    // A thousand who say nothing.
    let idle: Vec<TcpStream> = (0..1000)
        .map_while(|_| TcpStream::connect_timeout(&address, Duration::from_secs(5)).ok())
        .collect();
    assert!(idle.len() > 500, "{}", idle.len());
    // All goes on, for those who are there and for another host of the run.
    std::thread::scope(|scope| {
        for (member, _) in &members {
            scope.spawn(|| {
                assert_eq!(member.pass(), Ok(Next::Go));
                assert_eq!(member.gather("x", 7, PATIENCE), Ok(vec![7, 7]));
            });
        }
    });
    let (double, _) = hosts.member(identity(1, 2));
    let error = double.meet().unwrap_err().to_string();
    assert!(error.contains("host 1 came twice"), "{error}");
    for (member, ends) in members {
        member.leave(Leaving::Done);
        assert!(ends.try_recv().is_err());
    }
}
