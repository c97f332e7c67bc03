//! Brings the processes of a run on several hosts together before anything else is done, and ends
//! this one when they part.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use ankh_cluster::{
    Copies, CopiesError, EndReason, Ended, Identity, JoinError, Leaving, MeetingPlace, Member,
    ServeError, Server, Timing,
};
use ankh_pjrt::Plugin;
use signal_hook::low_level;

use super::{CliError, Exit, Slice};
use crate::config::Config;
use crate::mesh::executable_file::file_digest;
use crate::mesh::tpu_vm::TpuVm;
use crate::run_dir::{RunDirectory, Unused, machine};

/// Which of several hosts this process is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Its number; host 0 coordinates.
    pub host: usize,
    /// How many there are.
    pub hosts: usize,
    /// The addresses of all, by number, if they have such of their own.
    pub peers: Vec<String>,
}

impl Place {
    /// The place of a machine of a slice; nothing where it is the only one.
    pub fn of(vm: &TpuVm) -> Option<Place> {
        (vm.peers.len() > 1).then(|| Place {
            host: vm.worker,
            hosts: vm.peers.len(),
            peers: vm.peers.clone(),
        })
    }
}

/// What ties this process to those on the other hosts. Clones are the same.
#[derive(Clone, Default)]
pub(super) struct Ties(Arc<Tied>);

#[derive(Default)]
struct Tied {
    /// What is said where the run stops before there is anything to save.
    goodbye: OnceLock<Box<dyn Fn() + Send + Sync>>,
    /// What is taken back then, and where the others fail.
    unused: OnceLock<Unused>,
    member: OnceLock<Arc<Member>>,
    server: Mutex<Option<Server>>,
}

impl Ties {
    /// Ties that end with these words where the run in a directory stops before there is anything
    /// to save.
    pub fn with_goodbye(run: &RunDirectory, goodbye: impl Fn() + Send + Sync + 'static) -> Ties {
        let ties = Ties::default();
        ties.0.goodbye.get_or_init(|| Box::new(goodbye));
        ties.0.unused.get_or_init(|| run.unused());
        ties
    }

    /// Says goodbye, and tells the other hosts that this one was asked to stop.
    pub fn stop(&self) {
        self.say_goodbye();
        self.leave(Leaving::Stopped("it was asked to stop".into()));
        self.take_back();
    }

    fn say_goodbye(&self) {
        if let Some(goodbye) = self.0.goodbye.get() {
            goodbye();
        }
    }

    fn take_back(&self) {
        if let Some(unused) = self.0.unused.get() {
            unused.remove();
        }
    }

    /// Waits until the processes of all hosts have come. From then on this process ends when they
    /// part.
    pub fn meet(
        &self,
        place: &Place,
        config: &Config,
        slice: Slice,
        shared: &Path,
    ) -> Result<Met, CliError> {
        let timing = Timing {
            rendezvous: Duration::from_secs_f64(config.cluster.rendezvous_seconds),
            lost_after: Duration::from_secs_f64(config.cluster.lost_after_seconds),
        };
        let identity = identity(place, config, slice)?;
        let meeting_place = MeetingPlace::of(shared.join(".cluster"));
        if place.host == 0 {
            let address = address(place, config)?;
            let server = Server::start(address, meeting_place.clone(), &identity, timing)?;
            tracing::info!("waiting for {} hosts on {}", place.hosts, server.address());
            *self.server() = Some(server);
        }
        let ties = self.clone();
        let on_end = move |ended: &Ended| ties.end(ended);
        let member = Arc::new(Member::start(
            identity,
            meeting_place.clone(),
            timing,
            on_end,
        )?);
        let member = self.0.member.get_or_init(|| member).clone();
        let session = member.meet();
        // Whoever has been told the end ends by it.
        if let Err(JoinError::Ended(_)) = session {
            await_end();
        }
        let session = session?;
        tracing::info!("this is host {} of {}", place.host, place.hosts);
        let copies = match config.checkpoint.local_minutes > 0.0 {
            true => Some(copies(place, config, &member)?),
            false => None,
        };
        Ok(Met {
            member,
            session,
            copies,
        })
    }

    /// Tells the other hosts how this one leaves.
    pub fn leave(&self, leaving: Leaving) {
        if let Some(member) = self.0.member.get() {
            member.leave(leaving);
        }
        // What it has been told, it passes on before it ends.
        drop(self.server().take());
    }

    /// Ends this process as the others do: the thread that should is perhaps waiting for a device
    /// that waits for a host that is gone.
    fn end(&self, ended: &Ended) {
        let exit = match ended.reason {
            EndReason::Stopped => {
                tracing::info!("{ended}: there is nothing to save yet");
                self.say_goodbye();
                Exit::Stopped
            }
            EndReason::Failed => {
                let error = CliError::failed(ended.clone());
                error
                    .help("all hosts end; --resume on each goes on from the last saved step")
                    .report();
                Exit::Failed
            }
            EndReason::Refused => {
                let error = CliError::usage(ended.clone());
                error
                    .help("start the same program with the same arguments on each host, once")
                    .report();
                Exit::Usage
            }
        };
        drop(self.server().take());
        self.take_back();
        low_level::exit(i32::from(exit as u8));
    }

    fn server(&self) -> std::sync::MutexGuard<'_, Option<Server>> {
        self.0.server.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a process has when those of all hosts have come.
pub(super) struct Met {
    pub member: Arc<Member>,
    /// A number that no other meeting has.
    pub session: u64,
    pub copies: Option<Copies>,
}

/// How long the hosts wait for each other to say where they take in copies.
const EXCHANGING: Duration = Duration::from_secs(600);

/// Begins to take in the copies that this host keeps for another.
fn copies(place: &Place, config: &Config, member: &Member) -> Result<Copies, CliError> {
    // The configured port is host 0's, and the coordinator has it.
    let interface = own_address(place, config)?;
    match Copies::start(interface, member, EXCHANGING) {
        Ok(copies) => Ok(copies),
        // Whoever has been told the end ends by it.
        Err(CopiesError::Ended(_)) => await_end(),
        Err(CopiesError::Serve(error)) => Err(error.into()),
    }
}

/// Waits for the end of this process, which another thread brings about.
pub(super) fn await_end() -> ! {
    loop {
        std::thread::park();
    }
}

/// What has to be the same on all hosts, and who this one is.
fn identity(place: &Place, config: &Config, slice: Slice) -> Result<Identity, CliError> {
    let program = std::env::current_exe().map_err(CliError::failed)?;
    let plugin = Plugin::locate(slice.platform()).map_err(CliError::failed)?;
    let digest = |file: &Path| file_digest(file).map_err(CliError::failed);
    let facts = [
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("program file", digest(&program)?),
        ("plugin file", digest(&plugin)?),
        ("slice", slice.to_string()),
        // Set by whoever starts all processes of a run at once.
        (
            "ANKH_LAUNCH",
            std::env::var("ANKH_LAUNCH").unwrap_or_default(),
        ),
        ("configuration", config.to_text()),
    ];
    let facts = facts
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value));
    Ok(Identity {
        host: place.host,
        hosts: place.hosts,
        name: format!("process {} on {}", std::process::id(), machine()),
        facts: facts.collect(),
    })
}

/// Where host 0 listens.
fn address(place: &Place, config: &Config) -> Result<SocketAddr, CliError> {
    Ok((own_address(place, config)?, config.cluster.port).into())
}

/// The interface that a host listens on: host 0 on the configured one; each on the one by which the
/// others know it, or for this machine alone.
fn own_address(place: &Place, config: &Config) -> Result<IpAddr, CliError> {
    let host = place.host;
    let configured = config.cluster.address.filter(|_| host == 0);
    match (configured, place.peers.get(host)) {
        (Some(address), _) => Ok(address),
        (None, None) => Ok(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        (None, Some(peer)) => {
            let unknown = |why: String| {
                CliError::failed(format!(
                    "the address `{peer}` of host {host} is not known: {why}"
                ))
                .help("set cluster.address to the address of an interface of host 0")
            };
            let found = (peer.as_str(), 0).to_socket_addrs();
            let mut found = found.map_err(|error| unknown(error.to_string()))?;
            let found = found
                .next()
                .ok_or_else(|| unknown("there is none".into()))?;
            Ok(found.ip())
        }
    }
}

impl From<ServeError> for CliError {
    fn from(error: ServeError) -> Self {
        match &error {
            ServeError::Listen { .. } => Self::failed(error)
                .help("set cluster.port to a free port (0 takes any), and cluster.address to an address of this host"),
            ServeError::Publish { .. } | ServeError::Thread(_) => Self::failed(error),
        }
    }
}

impl From<JoinError> for CliError {
    fn from(error: JoinError) -> Self {
        Self::failed(error)
    }
}
