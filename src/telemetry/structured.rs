//! Lines of the log as Google's Cloud Logging reads them from standard error: a JSON object with
//! `severity`, `message`, `timestamp` and whatever else is known.

use std::fmt::{self, Debug};
use std::time::SystemTime;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::registry::LookupSpan;

/// A line, without its end.
pub(super) fn structured(level: Level, message: &str, fields: Map<String, Value>) -> String {
    let now = humantime::format_rfc3339_micros(SystemTime::now());
    let severity = match level {
        Level::ERROR => "ERROR",
        Level::WARN => "WARNING",
        Level::INFO => "INFO",
        _ => "DEBUG",
    };
    let mut line = Map::new();
    line.insert("severity".into(), severity.into());
    line.insert("timestamp".into(), now.to_string().into());
    line.insert("message".into(), message.into());
    for (name, value) in fields {
        line.entry(name).or_insert(value);
    }
    Value::Object(line).to_string()
}

/// Formats what is logged so.
pub(super) struct Structured;

impl<S, N> FormatEvent<S, N> for Structured
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut found = Fields::default();
        event.record(&mut found);
        let metadata = event.metadata();
        let target = metadata.target().into();
        found.others.insert("target".into(), target);
        let line = structured(*metadata.level(), &found.message, found.others);
        writeln!(writer, "{line}")
    }
}

/// The fields of a message.
#[derive(Default)]
struct Fields {
    message: String,
    others: Map<String, Value>,
}

impl Fields {
    fn insert(&mut self, field: &Field, value: Value) {
        self.others.insert(field.name().into(), value);
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            _ => self.insert(field, format!("{value:?}").into()),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.message = value.into(),
            _ => self.insert(field, value.into()),
        }
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.insert(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.insert(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.insert(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.insert(field, value.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_the_fields_that_cloud_logging_expects() {
        let mut fields = Map::new();
        fields.insert("step".into(), 7.into());
        fields.insert("severity".into(), "no".into());
        let line = structured(Level::WARN, "two\nlines \"quoted\"", fields);
        assert!(!line.contains('\n'), "{line}");
        let read: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read["severity"], "WARNING");
        assert_eq!(read["message"], "two\nlines \"quoted\"");
        assert_eq!(read["step"], 7);
        let time = read["timestamp"].as_str().unwrap();
        assert!(humantime::parse_rfc3339(time).is_ok(), "{time}");
    }
}
