//! The format of the JSON log: one object per line, with bounded and escaped text.

use std::fmt::{self, Debug, Write as _};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::line::{is_hidden, limit_of};
use super::text::{BoundedText, printable};

/// Formats events for the JSON log.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct BoundedJson;

impl<S, N> FormatEvent<S, N> for BoundedJson
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
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let metadata = event.metadata();
        write!(writer, "{{\"timestamp\":{},\"level\":\"{}\"", quoted(&time), metadata.level())?;
        let mut visitor = JsonFields { writer: writer.by_ref(), target: None, result: Ok(()) };
        event.record(&mut visitor);
        visitor.result?;
        let target = visitor.target.as_deref().unwrap_or_else(|| metadata.target());
        writeln!(writer, ",\"target\":{}}}", quoted(target))
    }
}

/// A string as JSON has it.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

struct JsonFields<'w> {
    writer: Writer<'w>,
    /// The target of an event of the `log` crate, which is a field of it.
    target: Option<String>,
    result: fmt::Result,
}

impl JsonFields<'_> {
    fn write(&mut self, field: &Field, value: impl fmt::Display) {
        if self.result.is_ok() && !is_hidden(field.name()) {
            self.result = write!(self.writer, ",{}:{value}", quoted(field.name()));
        }
    }

    fn write_text(&mut self, field: &Field, text: &str) {
        let text = printable(text, limit_of(field.name()));
        if field.name() == "log.target" {
            self.target = Some(text.into_owned());
            return;
        }
        self.write(field, quoted(&text));
    }
}

impl Visit for JsonFields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.write_text(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let mut text = BoundedText::new(limit_of(field.name()));
        let _ = write!(text, "{value:?}");
        self.write_text(field, &text.text);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.write(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.write(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.write(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // What is no number in JSON is `null`.
        self.write(field, serde_json::Value::from(value));
    }
}
