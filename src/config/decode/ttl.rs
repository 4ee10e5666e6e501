//! Decodes `ttl` of a route: a duration, or a table with one for each status.

use std::borrow::Cow;

use toml::Spanned;
use toml::de::DeValue;

use super::{FromToml, Located, Period, TomlReader};
use crate::config::diagnostics::diagnostic::DiagnosticBuilder;

/// The form of `ttl`: a duration, or one for each status.
pub enum TtlForm {
    /// Of every 200.
    Plain(Period),
    /// Of responses with these statuses. Invalid durations have been reported and are left out.
    ByStatus(Vec<(Located<String>, Located<Period>)>),
}

impl FromToml for TtlForm {
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut TomlReader<'_>) -> Option<Self> {
        let Some(table) = value.get_ref().as_table() else {
            return Period::read(value, reader).map(Self::Plain);
        };
        if table.is_empty() {
            let builder = DiagnosticBuilder::error(value.span(), "the table has no status");
            reader.report.push(builder.hint("write ttl = { 200 = \"5m\", 404 = \"10s\" }"));
        }
        let read = |(status, period): (&Spanned<Cow<'_, str>>, &Spanned<DeValue<'_>>)| {
            let status =
                Located { span: status.span(), value: status.get_ref().clone().into_owned() };
            let value = Period::read(period, reader)?;
            Some((status, Located { span: period.span(), value }))
        };
        Some(Self::ByStatus(table.iter().filter_map(read).collect()))
    }
}
