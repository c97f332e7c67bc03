//! Where jobs run.

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// Where a job runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Place {
    /// On a slice that Cloud TPU creates.
    CloudTpu(CloudTpu),
    /// On hosts that are there.
    Hosts(Hosts),
    /// On a GKE cluster.
    Gke(Gke),
}

/// How a machine is paid for, and so whether it may be taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pricing {
    /// Cheap, and taken away when somebody else pays more.
    Spot,
    /// By the hour.
    OnDemand,
    /// From a reservation.
    Reserved,
}

/// A slice that Cloud TPU creates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CloudTpu {
    /// The project that pays.
    pub project: String,
    /// Where the slice is.
    pub zone: String,
    /// How it is paid for.
    pub pricing: Pricing,
    /// The network, if it is not the project's default one.
    pub network: Option<String>,
    /// The subnetwork.
    pub subnetwork: Option<String>,
    /// As whom the machines act; otherwise as the project's default service account.
    pub service_account: Option<String>,
    /// The machines' image, if it is not the usual one.
    pub runtime_version: Option<String>,
    /// The job's directory in a bucket: `gs://BUCKET/KEY`.
    pub directory: String,
    /// A share that all hosts mount, as `SERVER:/EXPORT`, and that the run directory is on.
    /// Otherwise each host has one of its own.
    pub mount: Option<String>,
}

/// Hosts that are there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hosts {
    /// How ssh reaches each.
    pub destinations: Vec<String>,
    /// The run directory on all of them: a path that they share, or `gs://BUCKET/KEY`, through which
    /// they pass on what they tell each other.
    pub run_dir: String,
}

impl Hosts {
    /// The hosts that a text names: one a line; what follows a # is a comment.
    ///
    /// # Errors
    /// No host, or one twice.
    pub fn parse(text: &str) -> Result<Vec<String>, Error> {
        let lines = text
            .lines()
            .map(|line| line.split('#').next().unwrap_or_default().trim());
        let mut hosts: Vec<String> = Vec::new();
        for line in lines.filter(|line| !line.is_empty()) {
            let plain = |c: char| !c.is_whitespace() && !c.is_control();
            // It would be an option of ssh.
            if line.starts_with('-') || !line.chars().all(plain) {
                return Err(Error::Place(format!("`{line}` is no destination of ssh")));
            }
            if hosts.iter().any(|host| host == line) {
                return Err(Error::Place(format!("host {line} is named twice")));
            }
            hosts.push(line.to_owned());
        }
        match hosts.is_empty() {
            true => Err(Error::Place("no host is named".into())),
            false => Ok(hosts),
        }
    }
}

/// A GKE cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gke {
    /// The image that has the program and libtpu.
    pub image: String,
    /// The namespace.
    pub namespace: String,
    /// The cluster, as a context of kubectl; otherwise its current one.
    pub context: Option<String>,
    /// The claim of the volume that the run directory is on, which all pods write.
    pub claim: Option<String>,
    /// The Kubernetes service account of the pods.
    pub service_account: Option<String>,
    /// Which nodes are taken.
    pub pricing: Pricing,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_lines_with_comments() {
        let parsed = Hosts::parse("# ours\nuser@a  # the first\n\nb\n").unwrap();
        assert_eq!(parsed, ["user@a", "b"]);
        for bad in ["", "a\na\n", "-oProxyCommand=x\n", "a b\n"] {
            assert!(Hosts::parse(bad).is_err(), "{bad:?}");
        }
    }
}
