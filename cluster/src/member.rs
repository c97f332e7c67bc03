//! One host of a run, as the rest of its process sees it. A thread speaks with the coordinator.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::Endpoint;
use tonic::{Code, Request as Call, Status, Streaming};

use crate::coordinator::{BEGIN, hosts};
use crate::errors::{Ended, JoinError};
use crate::gate::{Gate, Next, Request};
use crate::identity::Identity;
use crate::meeting_place::{Invitation, MeetingPlace, SECRET, Secret};
use crate::wire::coordinator_client::CoordinatorClient;
use crate::wire::{from_host, to_host};
use crate::{Timing, wire};

/// The coordinator is looked for this often.
const RETRY: Duration = Duration::from_millis(200);

/// What is waited for is logged this often.
const REMIND: Duration = Duration::from_secs(5);

/// How long a connection may take.
const CONNECTING: Duration = Duration::from_secs(5);

/// How long a host that leaves waits for its call to end.
const FAREWELL: Duration = Duration::from_secs(2);

/// How a host leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leaving {
    /// All is done.
    Done,
    /// It failed; the others end too.
    Failed(String),
    /// It was asked to stop and has nothing to save; the others end too.
    Stopped(String),
}

/// What another host has reported of a save.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SaveReport {
    /// The host.
    pub host: usize,
    /// Why the save is not there, or cannot be; nothing where it is.
    pub failure: Option<String>,
}

/// Saves whose reports are kept: one is under way, and earlier ones are asked for no more.
const REPORTS: usize = 16;

/// A host that takes part, or is about to. Dropped without [`Member::leave`] it counts as lost.
#[derive(Debug)]
pub struct Member {
    shared: Arc<Shared>,
    identity: Identity,
    timing: Timing,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// To the coordinator, while a call is open.
    out: Option<UnboundedSender<wire::FromHost>>,
    session: Option<u64>,
    /// What the hosts of the session know.
    secret: Option<Secret>,
    gate: Gate,
    votes: Option<Vec<u64>>,
    /// The first report of each save.
    saves: BTreeMap<u64, SaveReport>,
    ended: Option<Ended>,
    /// What the last attempt to meet the coordinator met, once it is given up.
    not_met: Option<String>,
    leaving: bool,
    closed: bool,
}

impl Member {
    /// Looks for the coordinator in the background. `on_end` is called, by a thread of its own,
    /// when the hosts part before this one leaves.
    pub fn start(
        identity: Identity,
        place: MeetingPlace,
        timing: Timing,
        on_end: impl FnOnce(&Ended) + Send + 'static,
    ) -> Result<Member, JoinError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(JoinError::Thread)?;
        let shared = Arc::new(Shared::default());
        let attendance = Attendance {
            shared: shared.clone(),
            identity: identity.clone(),
            place,
            timing,
            process: Secret::draw().map_err(JoinError::Thread)?.number(),
        };
        let work = move || {
            let ended = runtime.block_on(attendance.attend());
            // What is still to be sent goes out with the runtime.
            drop(runtime);
            let mut state = attendance.shared.lock();
            state.out = None;
            state.closed = true;
            let tell = ended.filter(|_| !state.leaving);
            state.ended = state.ended.take().or_else(|| tell.clone());
            drop(state);
            attendance.shared.changed.notify_all();
            if let Some(ended) = tell {
                on_end(&ended);
            }
        };
        let thread = std::thread::Builder::new().name("cluster".into());
        thread.spawn(work).map_err(JoinError::Thread)?;
        Ok(Member {
            shared,
            identity,
            timing,
        })
    }

    /// Waits until all hosts have come. Returns a number that no other meeting has.
    pub fn meet(&self) -> Result<u64, JoinError> {
        let mut state = self.shared.lock();
        loop {
            if let Some(session) = state.session {
                return Ok(session);
            }
            if let Some(last) = &state.not_met {
                return Err(JoinError::NoCoordinator {
                    host: self.identity.host,
                    seconds: self.timing.rendezvous.as_secs(),
                    last: last.clone(),
                });
            }
            if let Some(ended) = &state.ended {
                return Err(ended.clone().into());
            }
            state = self.shared.wait(state)?;
        }
    }

    /// What only the hosts of the session know, once they have met.
    pub(crate) fn secret(&self) -> Option<Secret> {
        let state = self.shared.lock();
        state.secret.clone().filter(|_| state.session.is_some())
    }

    /// This host's number.
    pub fn host(&self) -> usize {
        self.identity.host
    }

    /// How many hosts there are.
    pub fn hosts(&self) -> usize {
        self.identity.hosts
    }

    /// Waits until all hosts have come here: from then on they have something to save, and requests
    /// are carried out at a place that all reach.
    pub fn begin(&self, patience: Duration) -> Result<(), Ended> {
        self.gather(BEGIN, 0, patience).map(drop)
    }

    /// Says what this host does next: to be asked before each program that runs on all devices,
    /// which all hosts start in the same order. All hosts get the same answers at the same places.
    /// Waits while they agree on a place.
    pub fn pass(&self) -> Result<Next, Ended> {
        let mut state = self.shared.lock();
        loop {
            if let Some(ended) = &state.ended {
                return Err(ended.clone());
            }
            if let Some(next) = state.gate.take() {
                if next == Next::Go {
                    let passed = state.gate.passed();
                    state.send(from_host::Kind::Status(wire::Status { passed }));
                }
                return Ok(next);
            }
            state = self.shared.wait(state)?;
        }
    }

    /// What [`Member::pass`] would have this host do now, if anything; waits for nothing.
    pub fn due(&self) -> Option<Request> {
        match self.shared.lock().gate.next() {
            Some(Next::Do(request)) => Some(request),
            Some(Next::Go) | None => None,
        }
    }

    /// Asks all hosts to do something together.
    pub fn request(&self, request: Request, reason: &str) {
        let mut message = wire::Request {
            reason: reason.into(),
            ..wire::Request::default()
        };
        message.set_action(request.into());
        self.shared.lock().send(from_host::Kind::Request(message));
    }

    /// Waits until each host has come to this topic with a number; returns all numbers, by host.
    /// All hosts come to the same topics in the same order. One that does not come in time ends
    /// the session.
    pub fn gather(&self, topic: &str, value: u64, patience: Duration) -> Result<Vec<u64>, Ended> {
        let mut state = self.shared.lock();
        state.votes = None;
        state.send(from_host::Kind::Vote(wire::Vote {
            topic: topic.into(),
            value,
            patience_milliseconds: u32::try_from(patience.as_millis()).unwrap_or(u32::MAX),
        }));
        loop {
            if let Some(votes) = state.votes.take() {
                return Ok(votes);
            }
            if let Some(ended) = &state.ended {
                return Err(ended.clone());
            }
            state = self.shared.wait(state)?;
        }
    }

    /// Reports of a save: as host 0 how it ended, as another host that its part cannot be written.
    /// All hosts save together, so that each counts the same saves.
    pub fn report_save(&self, save: u64, failure: Option<&str>) {
        let failure = failure.unwrap_or_default().into();
        let report = wire::SaveReport { save, failure };
        self.shared.lock().send(from_host::Kind::SaveReport(report));
    }

    /// What has been reported of a save: to host 0 by the first that cannot write its part, to the
    /// others by host 0. Waits for nothing; fails where nothing more will be.
    pub fn save_report(&self, save: u64) -> Result<Option<SaveReport>, Ended> {
        let state = self.shared.lock();
        match (state.saves.get(&save), &state.ended) {
            (Some(report), _) => Ok(Some(report.clone())),
            (None, Some(ended)) => Err(ended.clone()),
            (None, None) if state.leaving => Err(Ended::failed("this host has left")),
            (None, None) => Ok(None),
        }
    }

    /// Says how this host leaves, and waits a little until that has been heard.
    pub fn leave(&self, leaving: Leaving) {
        let (reason, message) = match leaving {
            Leaving::Done => (wire::LeaveReason::Done, String::new()),
            Leaving::Failed(message) => (wire::LeaveReason::Failed, message),
            Leaving::Stopped(message) => (wire::LeaveReason::Stopped, message),
        };
        let mut leave = wire::Leave {
            message,
            ..wire::Leave::default()
        };
        leave.set_reason(reason);
        let mut state = self.shared.lock();
        state.leaving = true;
        state.send(from_host::Kind::Leave(leave));
        // The call ends when all of this has been heard.
        state.out = None;
        let deadline = Instant::now() + FAREWELL;
        while !state.closed {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.shared.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.leaving = true;
        state.out = None;
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change of it is whole, even if a thread died holding it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a change; fails if the hosts have parted.
    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> Result<MutexGuard<'a, State>, Ended> {
        let state = self
            .changed
            .wait(state)
            .unwrap_or_else(PoisonError::into_inner);
        match &state.ended {
            Some(ended) => Err(ended.clone()),
            None => Ok(state),
        }
    }
}

impl State {
    /// Sends a message, if there is somebody to hear it.
    fn send(&mut self, kind: from_host::Kind) {
        if let Some(out) = &self.out {
            // A call that has ended is noticed by the one who reads it.
            let _ = out.send(wire::FromHost { kind: Some(kind) });
        }
    }
}

/// The thread's side.
struct Attendance {
    shared: Arc<Shared>,
    identity: Identity,
    place: MeetingPlace,
    timing: Timing,
    process: u64,
}

/// How a call ended.
enum Over {
    /// The hosts have parted.
    Ended(Ended),
    /// This host has left.
    Left,
    /// The hosts had not met; another attempt may meet them.
    Again(String),
}

impl Attendance {
    /// Takes part until the end, and says how it was unless this host has left.
    async fn attend(&self) -> Option<Ended> {
        let start = Instant::now();
        let mut reminded = start;
        loop {
            let last = match self.call().await {
                Over::Ended(ended) => return Some(ended),
                Over::Left => return None,
                Over::Again(reason) => reason,
            };
            if self.shared.lock().leaving {
                return None;
            }
            if start.elapsed() > self.timing.rendezvous {
                self.shared.lock().not_met = Some(last);
                return None;
            }
            if reminded.elapsed() > REMIND {
                reminded = Instant::now();
                tracing::warn!("waiting for host 0: {last}");
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// One attempt to take part.
    async fn call(&self) -> Over {
        let invitation = match self.place.read() {
            Ok(invitation) => invitation,
            Err(error) => return Over::Again(self.not_invited(&error)),
        };
        match self.open(&invitation).await {
            Ok(incoming) => self.listen(incoming).await,
            Err(reason) => Over::Again(reason),
        }
    }

    fn not_invited(&self, error: &io::Error) -> String {
        let file = self.place.file();
        let file = file.display();
        match error.kind() {
            io::ErrorKind::NotFound => format!(
                "it has not written {file}: has it started, with the same run directory, shared by all hosts?"
            ),
            _ => format!("{file} cannot be used: {error}"),
        }
    }

    /// Opens a call and joins.
    async fn open(&self, invitation: &Invitation) -> Result<Streaming<wire::ToHost>, String> {
        let Invitation { address, secret } = invitation;
        let endpoint = Endpoint::from_shared(format!("http://{address}"));
        let endpoint = endpoint.map_err(|error| error.to_string())?;
        let endpoint = endpoint.connect_timeout(CONNECTING).tcp_nodelay(true);
        let channel = endpoint.connect().await.map_err(|error| {
            let cause = innermost(&error);
            format!(
                "{address} cannot be reached ({cause}): does host 0 still run there, and may this host connect to it (firewall, network, region)?"
            )
        })?;
        let (out, messages) = unbounded_channel();
        let join = wire::Join {
            host: self.identity.host as u32,
            hosts: self.identity.hosts as u32,
            process: self.process,
            name: self.identity.name.clone(),
            facts: self.identity.wire_facts(),
        };
        let _ = out.send(wire::FromHost {
            kind: Some(from_host::Kind::Join(join)),
        });
        let mut call = Call::new(UnboundedReceiverStream::new(messages));
        let shown = secret.reveal().parse();
        let shown = shown.map_err(|_| format!("{} is damaged", self.place.file().display()))?;
        call.metadata_mut().insert(SECRET, shown);
        {
            let mut state = self.shared.lock();
            if state.leaving {
                return Err("this host leaves".into());
            }
            state.out = Some(out);
            state.secret = Some(secret.clone());
        }
        let answered = CoordinatorClient::new(channel).attend(call).await;
        let answered = answered.map_err(|status| match status.code() {
            Code::Unauthenticated => format!("{address} belongs to another start of the run"),
            _ => format!(
                "{address} does not answer as host 0 of a run would: {}",
                said(&status)
            ),
        });
        Ok(answered?.into_inner())
    }

    /// Takes part as long as the call lasts.
    async fn listen(&self, mut incoming: Streaming<wire::ToHost>) -> Over {
        let mut heard = Instant::now();
        let mut heartbeat = tokio::time::interval(self.timing.heartbeat());
        loop {
            tokio::select! {
                message = incoming.message() => match message {
                    Ok(Some(message)) => {
                        heard = Instant::now();
                        if let Some(over) = message.kind.and_then(|kind| self.handle(kind)) {
                            return over;
                        }
                    }
                    Ok(None) => return self.lost("its process ended without a word"),
                    Err(status) => return self.lost(&said(&status)),
                },
                _ = heartbeat.tick() => {
                    if heard.elapsed() > self.timing.lost_after {
                        let seconds = self.timing.lost_after.as_secs_f64();
                        return self.lost(&format!("it was not heard for {seconds} s"));
                    }
                    let mut state = self.shared.lock();
                    let passed = state.gate.passed();
                    state.send(from_host::Kind::Status(wire::Status { passed }));
                }
            }
        }
    }

    fn lost(&self, how: &str) -> Over {
        let state = self.shared.lock();
        match (state.leaving, state.session) {
            (true, _) => Over::Left,
            (false, None) => Over::Again(how.into()),
            (false, Some(_)) => Over::Ended(Ended::failed(format!("host 0 is lost: {how}"))),
        }
    }

    fn handle(&self, kind: to_host::Kind) -> Option<Over> {
        let mut state = self.shared.lock();
        match kind {
            to_host::Kind::Alive(_) => return None,
            to_host::Kind::Waiting(waiting) => {
                let missing: Vec<usize> =
                    waiting.missing.iter().map(|host| *host as usize).collect();
                if self.identity.host != 0 {
                    tracing::warn!("waiting for {}", hosts(&missing));
                }
                return None;
            }
            to_host::Kind::Started(started) => state.session = Some(started.session),
            to_host::Kind::Hold(hold) => {
                let passed = state.gate.hold(hold.hold);
                let hold = hold.hold;
                state.send(from_host::Kind::Held(wire::Held { hold, passed }));
            }
            to_host::Kind::Agreed(agreed) => {
                // One that this program does not know is none of its coordinator.
                let request = agreed.action().try_into().unwrap_or(Request::Save);
                state.gate.agree(agreed.hold, agreed.passed, request);
            }
            to_host::Kind::Votes(votes) => state.votes = Some(votes.values),
            to_host::Kind::SaveReported(reported) => {
                let report = SaveReport {
                    host: reported.host as usize,
                    failure: Some(reported.failure).filter(|failure| !failure.is_empty()),
                };
                state.saves.entry(reported.save).or_insert(report);
                while state.saves.len() > REPORTS {
                    state.saves.pop_first();
                }
            }
            to_host::Kind::Ended(ended) => {
                let over = match Ended::of(ended) {
                    Some(_) if state.leaving => Over::Left,
                    Some(ended) => Over::Ended(ended),
                    None => Over::Again("another session is just ending there".into()),
                };
                return Some(over);
            }
        }
        drop(state);
        self.shared.changed.notify_all();
        None
    }
}

fn said(status: &Status) -> String {
    match status.message() {
        "" => status.code().to_string(),
        message => message.into(),
    }
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}
