//! What a training process serves to Prometheus, where it is asked to.
//!
//! A run is worth more than what is told of it. So an address that cannot be listened on is a
//! warning, the server has a thread of its own, and the training loop only notes numbers in memory,
//! which each request reads.

mod families;
mod server;

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::registry::Registry;

pub use families::Observed;

use families::Families;

/// What this process serves, if anything.
#[derive(Debug)]
pub struct Exposition {
    observed: Option<Arc<Mutex<Observed>>>,
    address: Option<SocketAddr>,
}

impl Exposition {
    /// Nothing is served.
    pub fn none() -> Exposition {
        Exposition {
            observed: None,
            address: None,
        }
    }

    /// Serves what is observed of a run on this host, from now until the end of the process. Where
    /// that fails the log says why, and nothing is served.
    pub fn serve(listen: SocketAddr, run: &str, host: usize, observed: Observed) -> Exposition {
        let observed = Arc::new(Mutex::new(observed));
        let labels = [("run", escaped(run)), ("host", host.to_string())];
        let labels = labels.map(|(name, value)| (name.into(), value.into()));
        let mut registry = Registry::with_prefix_and_labels("ankh", labels.into_iter());
        registry.register_collector(Box::new(Families(observed.clone())));
        let listener = TcpListener::bind(listen);
        let served = listener.and_then(|listener| {
            let address = listener.local_addr()?;
            server::start(listener, registry)?;
            Ok(address)
        });
        match served {
            Ok(address) => {
                tracing::info!("metrics for Prometheus are at http://{address}/metrics");
                Exposition {
                    observed: Some(observed),
                    address: Some(address),
                }
            }
            Err(error) => {
                tracing::warn!(
                    "metrics are not served on {listen}: {error}; training goes on, and telemetry.prometheus_listen or --metrics-listen names another address"
                );
                Exposition::none()
            }
        }
    }

    /// Where it is served.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Notes what has happened, where it is served.
    pub fn note(&self, change: impl FnOnce(&mut Observed)) {
        if let Some(observed) = &self.observed {
            // Numbers have no state between two that could be wrong.
            change(&mut observed.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }
}

/// A label's value as the format has it, which the library leaves to its users.
fn escaped(value: &str) -> String {
    let value = value.replace('\\', r"\\").replace('"', r#"\""#);
    value.replace('\n', r"\n")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::time::Duration;

    use ankh_data::RowCounts;

    use super::super::metrics::tests::metrics;
    use super::super::{Goodput, Validation};
    use super::families::{FAMILIES, names};
    use super::*;

    fn request(address: SocketAddr, head: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        let patience = Some(Duration::from_secs(10));
        stream.set_read_timeout(patience).unwrap();
        let text = format!("{head} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(text.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn local() -> SocketAddr {
        ([127, 0, 0, 1], 0).into()
    }

    /// What is served of a process that has seen everything there is to see.
    fn seen() -> Exposition {
        let exposition = Exposition::serve(local(), "base \"two\"", 3, Observed::start(1000, 2));
        let mut line = metrics(20);
        line.rates.mfu = Some(0.5);
        exposition.note(|observed| {
            let seen = RowCounts {
                sequences: 16,
                residues: 9000,
            };
            observed.step(20, seen, 1024, Duration::from_millis(500), true);
            observed.time(&Goodput::start_after(Duration::from_secs(8)));
            observed.line(&line);
            observed.evaluation(&Validation::new(2.0, 0.25));
            observed.saves(Some(10), 3);
        });
        exposition
    }

    #[test]
    fn what_was_observed_is_served_and_nothing_else() {
        let exposition = seen();
        let address = exposition.address().unwrap();
        let answer = request(address, "GET /metrics");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let labels = "run=\"base \\\"two\\\"\",host=\"3\"";
        for line in [
            "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8".into(),
            "# TYPE ankh_steps counter".into(),
            format!("ankh_steps_total{{{labels}}} 1"),
            format!("ankh_step{{{labels}}} 20"),
            format!("ankh_planned_steps{{{labels}}} 1000"),
            format!("ankh_tokens_total{{{labels}}} 1024"),
            format!("ankh_skipped_updates_total{{{labels}}} 1"),
            format!("ankh_restarts{{{labels}}} 2"),
            "# UNIT ankh_data_wait_seconds seconds".into(),
            format!("ankh_data_wait_seconds_total{{{labels}}} 0.5"),
            format!("ankh_loss_nats{{{labels}}} 2.5"),
            format!("ankh_mfu_ratio{{{labels}}} 0.5"),
            format!("ankh_validation_loss_nats{{{labels}}} 2.0"),
            format!("ankh_checkpoint_step{{{labels}}} 10"),
            format!("ankh_checkpoint_failures_total{{{labels}}} 3"),
        ] {
            assert!(
                answer
                    .lines()
                    .any(|l| l == line || l == format!("{line}.0")),
                "{line} in\n{answer}"
            );
        }
        assert!(answer.contains("activity=\"restarting\""), "{answer}");
        assert!(answer.trim_end().ends_with("# EOF"), "{answer}");
        let served: BTreeSet<&str> = answer
            .lines()
            .filter(|line| line.starts_with("ankh_"))
            .filter_map(|line| line.split('{').next())
            .collect();
        assert_eq!(served, names().iter().map(String::as_str).collect());
        // Unknown paths and what is no HTTP are refused, and change nothing.
        assert!(request(address, "GET /").starts_with("HTTP/1.1 404"));
        assert!(request(address, "POST /metrics").starts_with("HTTP/1.1 405"));
        assert!(request(address, "\u{7}").starts_with("HTTP/1.1 400"));
        assert!(request(address, "GET /metrics").starts_with("HTTP/1.1 200"));
    }

    #[test]
    fn what_is_not_known_yet_is_not_served() {
        let exposition = Exposition::serve(local(), "run", 0, Observed::start(10, 0));
        let answer = request(exposition.address().unwrap(), "GET /metrics");
        assert!(answer.contains("ankh_steps_total"), "{answer}");
        for name in ["ankh_loss_nats", "ankh_mfu_ratio", "ankh_checkpoint_step"] {
            assert!(!answer.contains(name), "{name} in {answer}");
        }
    }

    #[test]
    fn an_address_in_use_is_no_reason_to_end() {
        let taken = TcpListener::bind(local()).unwrap();
        let observed = Observed::start(10, 0);
        let exposition = Exposition::serve(taken.local_addr().unwrap(), "run", 0, observed);
        assert_eq!(exposition.address(), None);
        exposition.note(|_| panic!("nothing is noted where nothing is served"));
    }

    /// The words of a text that are names of metrics.
    fn named(text: &str) -> BTreeSet<String> {
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        text.split(|c| !is_name(c))
            .filter(|word| word.starts_with("ankh_"))
            .map(String::from)
            .collect()
    }

    #[test]
    fn documents_dashboard_and_alerts_name_the_metrics_that_exist() {
        let exist: BTreeSet<String> = names().into_iter().collect();
        let documented = named(include_str!("../../../docs/telemetry.md"));
        assert_eq!(documented, exist, "docs/telemetry.md");
        let dashboard: serde_json::Value =
            serde_json::from_str(include_str!("../../../deploy/grafana/ankh.json")).unwrap();
        for (file, text) in [
            ("ankh.json", dashboard.to_string()),
            (
                "alerts.yml",
                include_str!("../../../deploy/prometheus/alerts.yml").into(),
            ),
        ] {
            let named = named(&text);
            assert!(
                named.len() > 3 && named.is_subset(&exist),
                "{file}: {named:?}"
            );
        }
    }

    #[test]
    fn names_follow_the_conventions_of_prometheus() {
        for family in FAMILIES {
            let help = family.help;
            assert!(help.ends_with('.') && !help.contains('\n'), "{help}");
            assert!(!family.name.ends_with("_total"), "{}", family.name);
        }
        assert_eq!(names().len(), FAMILIES.len());
    }
}
