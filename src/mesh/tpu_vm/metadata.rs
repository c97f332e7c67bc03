//! Compute Engine's metadata server.

use std::time::Duration;

use ureq::Agent;

use super::TpuVmError;
use super::attributes::Attributes;

/// Where the server is on every machine of Compute Engine.
pub(super) const HOST: &str = "metadata.google.internal";

/// How long a question may take. The server is on the machine's own network; a laptop should not
/// wait for it.
const PATIENCE: Duration = Duration::from_secs(1);

/// The attributes that the server at `host` reports for this machine; empty without a server.
pub(super) fn attributes(host: &str) -> Result<Attributes, TpuVmError> {
    let server = Server::new(host);
    // Without an answer to the first question there is no server.
    let Ok(accelerator) = server.attribute("accelerator-type") else {
        return Ok(Attributes::default());
    };
    let mut answers = vec![("accelerator-type", accelerator)];
    for name in ["tpu-env", "agent-worker-number", "worker-network-endpoints"] {
        answers.push((name, server.attribute(name).map_err(TpuVmError::Metadata)?));
    }
    let answer = |name: &str| {
        let found = answers.iter().find(|(known, _)| *known == name)?;
        found.1.clone()
    };
    Ok(Attributes::from_metadata(&answer))
}

/// A question that the server did not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{url}: {problem}")]
pub struct MetadataError {
    url: String,
    problem: String,
}

/// The metadata server of a machine.
pub(super) struct Server<'a> {
    host: &'a str,
    agent: Agent,
}

impl<'a> Server<'a> {
    /// The server at `host`.
    pub fn new(host: &'a str) -> Self {
        let config = Agent::config_builder()
            .timeout_global(Some(PATIENCE))
            .http_status_as_error(false)
            .max_redirects(0)
            // The server is never behind one.
            .proxy(None)
            .build();
        Self {
            host,
            agent: config.into(),
        }
    }

    /// Whether this machine is about to be taken away; none if the server does not know.
    pub fn is_preempted(&self) -> Result<Option<bool>, MetadataError> {
        let answer = self.value("preempted")?;
        Ok(answer.map(|answer| answer.eq_ignore_ascii_case("true")))
    }

    /// An attribute of this machine; none if the server does not have it.
    fn attribute(&self, name: &str) -> Result<Option<String>, MetadataError> {
        self.value(&format!("attributes/{name}"))
    }

    /// What the server says of this machine under a name; none if it has nothing there.
    fn value(&self, name: &str) -> Result<Option<String>, MetadataError> {
        let url = format!("http://{}/computeMetadata/v1/instance/{name}", self.host);
        let failed = |problem: String| MetadataError {
            url: url.clone(),
            problem,
        };
        let answer = self.agent.get(&url).header("Metadata-Flavor", "Google");
        let mut answer = answer.call().map_err(|error| failed(error.to_string()))?;
        // Some networks answer for names that do not exist; only the real server sets this.
        let flavor = answer.headers().get("Metadata-Flavor");
        if flavor.is_none_or(|flavor| flavor != "Google") {
            return Err(failed("another server answered".into()));
        }
        match answer.status().as_u16() {
            200 => {
                let text = answer.body_mut().read_to_string();
                let text = text.map_err(|error| failed(error.to_string()))?;
                Ok(Some(text.trim().to_owned()))
            }
            404 => Ok(None),
            status => Err(failed(format!("status {status}"))),
        }
    }
}
