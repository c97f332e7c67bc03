//! What a run tells of itself beside its lines of metrics.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de};

/// What a run tells of itself, on request.
#[derive(Clone, Debug, Default, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Telemetry {
    /// Where each host serves its metrics to Prometheus: an address with a port, or a port alone,
    /// which is one of this machine only. Unset, nothing is served.
    #[schemars(with = "Option<String>")]
    pub prometheus_listen: Option<ListenAddress>,
    /// Steps between two histograms of the gradients and of the residues predicted, in the
    /// TensorBoard events; 0 for none.
    pub histograms_every: u64,
    /// Steps of which a profile is taken, such as `"100..105"`: the first and the last of them.
    #[schemars(with = "Option<String>")]
    pub profile_steps: Option<StepRange>,
}

impl Telemetry {
    /// Whether there are histograms of a step.
    pub fn has_histograms(&self, step: u64) -> bool {
        self.histograms_every > 0 && step.is_multiple_of(self.histograms_every)
    }
}

/// An address to listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenAddress(pub SocketAddr);

/// A text that is no address to listen on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid address {0:?}, expected a port such as 9464 (of this machine only), or an address with a port such as 0.0.0.0:9464"
)]
pub struct InvalidAddress(String);

impl ListenAddress {
    fn local(port: u16) -> ListenAddress {
        ListenAddress((Ipv4Addr::LOCALHOST, port).into())
    }
}

impl FromStr for ListenAddress {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let text = text.trim();
        let port = text.parse().map(ListenAddress::local);
        let address = || text.parse().map(ListenAddress);
        port.or_else(|_| address())
            .map_err(|_| InvalidAddress(text.into()))
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for ListenAddress {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ListenAddress {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = ListenAddress;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a port such as 9464, or an address with a port")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<ListenAddress, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<ListenAddress, E> {
                let port = u16::try_from(number).map(ListenAddress::local);
                port.map_err(|_| E::invalid_value(de::Unexpected::Signed(number), &self))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<ListenAddress, E> {
                let port = u16::try_from(number).map(ListenAddress::local);
                port.map_err(|_| E::invalid_value(de::Unexpected::Unsigned(number), &self))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// Steps that follow each other, written `100..105`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepRange {
    /// The first, from 1.
    pub first: u64,
    /// The last, the first or a later one.
    pub last: u64,
}

/// A text that names no steps.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid steps {0:?}, expected the first and the last one, such as 100..105")]
pub struct InvalidSteps(String);

impl FromStr for StepRange {
    type Err = InvalidSteps;

    fn from_str(text: &str) -> Result<Self, InvalidSteps> {
        let parse = || {
            let (first, last) = text.split_once("..")?;
            let first: u64 = first.trim().parse().ok()?;
            let last: u64 = last.trim().parse().ok()?;
            (first > 0 && first <= last).then_some(StepRange { first, last })
        };
        parse().ok_or_else(|| InvalidSteps(text.to_owned()))
    }
}

impl fmt::Display for StepRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.first, self.last)
    }
}

impl Serialize for StepRange {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for StepRange {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_alone_is_one_of_this_machine_only() {
        for (text, address) in [
            ("9464", "127.0.0.1:9464"),
            ("127.0.0.1:0", "127.0.0.1:0"),
            ("0.0.0.0:9464", "0.0.0.0:9464"),
            ("[::1]:9464", "[::1]:9464"),
        ] {
            let parsed: ListenAddress = text.parse().unwrap();
            assert_eq!(parsed.to_string(), address, "{text}");
        }
        for text in ["", "localhost", ":9464", "65536", "-1", "127.0.0.1"] {
            assert!(text.parse::<ListenAddress>().is_err(), "{text}");
        }
        let telemetry: Telemetry = toml::from_str("prometheus_listen = 9464").unwrap();
        let written = toml::to_string(&telemetry).unwrap();
        assert!(written.contains("\"127.0.0.1:9464\""), "{written}");
        assert_eq!(toml::from_str::<Telemetry>(&written).unwrap(), telemetry);
        assert!(toml::from_str::<Telemetry>("prometheus_listen = 65536").is_err());
    }

    #[test]
    fn steps_are_written_by_the_first_and_the_last() {
        for text in ["1..1", "100..105"] {
            assert_eq!(text.parse::<StepRange>().unwrap().to_string(), text);
        }
        for text in ["", "5", "0..3", "5..4", "1..", "a..b", "1..2..3", "1-2"] {
            assert!(text.parse::<StepRange>().is_err(), "{text}");
        }
    }
}
