//! Parses the attributes that a TPU VM reports as text.

use std::net::Ipv6Addr;

use super::super::slice::Slice;
use super::{TpuVm, TpuVmError};

/// What a machine reports about itself, as text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Attributes {
    /// The slice's name: `v4-64`.
    pub accelerator: Option<String>,
    /// The torus: `2x4x4`.
    pub topology: Option<String>,
    /// The chips of a host: `2,2,1`.
    pub bounds: Option<String>,
    /// The worker's number.
    pub worker: Option<String>,
    /// The workers' addresses, in order.
    pub peers: Option<Vec<String>>,
}

impl Attributes {
    /// The variables that GKE sets and libtpu reads.
    pub fn from_environment(environment: &impl Fn(&str) -> Option<String>) -> Self {
        let value = |name: &str| {
            let value = environment(name)?;
            let value = value.trim();
            // libtpu, once loaded, fills in warnings for what it did not find.
            let said = !value.is_empty() && !value.starts_with("WARNING");
            said.then(|| value.to_owned())
        };
        Attributes {
            accelerator: value("TPU_ACCELERATOR_TYPE"),
            topology: value("TPU_TOPOLOGY"),
            bounds: value("TPU_CHIPS_PER_HOST_BOUNDS"),
            worker: value("TPU_WORKER_ID").or_else(|| value("CLOUD_TPU_TASK_ID")),
            peers: value("TPU_WORKER_HOSTNAMES").map(|names| addresses(&names)),
        }
    }

    /// The metadata server's attributes `accelerator-type`, `agent-worker-number`,
    /// `worker-network-endpoints` and `tpu-env`.
    pub fn from_metadata(attribute: &impl Fn(&str) -> Option<String>) -> Self {
        let text = attribute("tpu-env").unwrap_or_default();
        let variable = |name: &str| variable(&text, name);
        let attribute = |name: &str| attribute(name).filter(|value| !value.trim().is_empty());
        Attributes {
            accelerator: attribute("accelerator-type").or_else(|| variable("ACCELERATOR_TYPE")),
            topology: variable("TOPOLOGY"),
            bounds: variable("CHIPS_PER_HOST_BOUNDS"),
            worker: attribute("agent-worker-number").or_else(|| variable("WORKER_ID")),
            peers: attribute("worker-network-endpoints").map(|list| addresses(&list)),
        }
    }

    /// Whether nothing more has to be asked for.
    pub fn suffice(&self) -> bool {
        self.accelerator.is_some() && self.worker.is_some() && self.peers.is_some()
    }

    /// Fills in what is missing.
    pub fn or(self, other: Attributes) -> Attributes {
        Attributes {
            accelerator: self.accelerator.or(other.accelerator),
            topology: self.topology.or(other.topology),
            bounds: self.bounds.or(other.bounds),
            worker: self.worker.or(other.worker),
            peers: self.peers.or(other.peers),
        }
    }

    /// The machine with these attributes, if it is a TPU VM.
    pub fn into_tpu_vm(self) -> Result<Option<TpuVm>, TpuVmError> {
        let Some(accelerator) = &self.accelerator else {
            return Ok(None);
        };
        let slice: Slice = accelerator.parse()?;
        let single = slice.hosts() == 1;
        let worker = match self.worker {
            Some(text) => number(&text).ok_or_else(|| TpuVmError::Unreadable {
                what: "worker number",
                value: text.clone(),
                expected: "a number from 0",
            })?,
            None if single => 0,
            None => {
                return Err(TpuVmError::Silent {
                    slice,
                    what: "which of its workers it is (TPU_WORKER_ID, or agent-worker-number in its metadata)",
                });
            }
        };
        let peers = match self.peers {
            Some(peers) => peers,
            None if single => vec!["localhost".into()],
            None => {
                return Err(TpuVmError::Silent {
                    slice,
                    what: "who the others are (TPU_WORKER_HOSTNAMES, or worker-network-endpoints in its metadata)",
                });
            }
        };
        let vm = TpuVm {
            slice,
            worker,
            peers,
        };
        vm.agrees(self.topology, self.bounds)?;
        Ok(Some(vm))
    }
}

impl TpuVm {
    /// Checks the attributes against the slice.
    fn agrees(&self, topology: Option<String>, bounds: Option<String>) -> Result<(), TpuVmError> {
        let differs = |what, expected: String, found: String| {
            Err(TpuVmError::Contradiction {
                slice: self.slice,
                what,
                expected,
                found,
            })
        };
        let hosts = self.slice.hosts();
        if self.peers.len() != hosts {
            let found = self.peers.len().to_string();
            return differs("number of hosts", hosts.to_string(), found);
        }
        if self.worker >= hosts {
            let expected = format!("{} at most", hosts - 1);
            return differs("worker number", expected, self.worker.to_string());
        }
        if let (Some(found), Some(torus)) = (topology, self.slice.torus())
            && !same_box(&found, 'x', torus.dims())?
        {
            return differs("topology", torus.to_string(), found);
        }
        if let (Some(found), Some(expected)) = (bounds, self.slice.chips_per_host_bounds())
            && !same_box(&found, ',', &expected)?
        {
            let expected = expected.map(|length| length.to_string()).join(",");
            return differs("box of chips of each host", expected, found);
        }
        Ok(())
    }
}

/// Whether a box as it is written is this one; dimensions of length 1 may be left out at the end.
fn same_box(text: &str, separator: char, lengths: &[usize]) -> Result<bool, TpuVmError> {
    let found: Option<Vec<usize>> = text.split(separator).map(number).collect();
    let Some(found) = found else {
        return Err(TpuVmError::Unreadable {
            what: "topology",
            value: text.into(),
            expected: "lengths such as 2x4x4",
        });
    };
    let end = |lengths: &[usize]| lengths.iter().rposition(|&length| length > 1);
    let long = |lengths: &[usize]| lengths[..end(lengths).map_or(0, |i| i + 1)].to_vec();
    Ok(long(&found) == long(lengths))
}

fn number(text: &str) -> Option<usize> {
    text.trim().parse().ok()
}

/// The addresses of a list, whose entries are an address or end with one: `10.0.0.2`,
/// `unknown:unknown:10.0.0.2`.
fn addresses(list: &str) -> Vec<String> {
    let entries = list.split(',').map(str::trim);
    entries
        .filter(|entry| !entry.is_empty())
        .map(|entry| match entry.splitn(3, ':').collect::<Vec<_>>()[..] {
            [_, _, address] if entry.parse::<Ipv6Addr>().is_err() => address.into(),
            _ => entry.into(),
        })
        .collect()
}

/// A variable of `tpu-env`, a list of lines `NAME: 'value'`.
fn variable(text: &str, name: &str) -> Option<String> {
    let value = text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then_some(value)
    })?;
    let value = value.trim().trim_matches('\'');
    (!value.is_empty()).then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_from_what_stands_before_them() {
        let list = "10.0.0.2, host-1.svc,unknown:unknown:10.0.0.4,uid:8470:fd00::5,fd00:1::6,";
        assert_eq!(
            addresses(list),
            ["10.0.0.2", "host-1.svc", "10.0.0.4", "fd00::5", "fd00:1::6"]
        );
    }
}
