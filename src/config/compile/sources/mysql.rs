//! Compiles a source of the kind `mysql`: the server, the table, and how often it is read.

use crate::config::context::CompileContext;
use crate::config::decode::Located;
use crate::config::diagnostics::diagnostic::DiagnosticBuilder;
use crate::config::file::SourceSection;
use crate::sources::MysqlSettings;

/// The table that is read where none is named; that of `sidecache sql`.
pub const DEFAULT_TABLE: &str = "sidecache_changes";

#[cfg(not(feature = "mysql"))]
pub(super) fn mysql(
    located: &Located<SourceSection>,
    context: &mut CompileContext,
) -> Option<MysqlSettings> {
    let message = "this build of Sidecache cannot read a MySQL";
    let builder = DiagnosticBuilder::error(located.span.clone(), message);
    context.report.push(builder.hint("build it with the feature `mysql`, or remove the source"));
    None
}

#[cfg(feature = "mysql")]
pub(super) fn mysql(
    located: &Located<SourceSection>,
    context: &mut CompileContext,
) -> Option<MysqlSettings> {
    use std::time::Duration;

    use crate::input_file::MAX_CA_BYTES;
    use crate::secret::Secret;
    use crate::sources::mysql::{MYSQL_URL_FORM, MysqlUrl};

    /// How often the table is read: where nothing is said, and what may be said.
    const EVERY: Duration = Duration::from_millis(250);
    const EVERY_RANGE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
    const TRANSACTION_RANGE: (Duration, Duration) =
        (Duration::from_secs(1), Duration::from_hours(1));

    let (file, place) = (&located.value, (&located.span, &located.value.unknown));
    let every = match file.every.given() {
        Some(_) => context.period(&file.every, EVERY_RANGE.0, EVERY_RANGE.1),
        None => EVERY,
    };
    let max_transaction =
        context.period(&file.max_transaction, TRANSACTION_RANGE.0, TRANSACTION_RANGE.1);
    let example = "url = \"mysql://sidecache:${DATABASE_PASSWORD}@127.0.0.1:3306/app\"";
    let url = file.url.required("url", place, example, &mut context.report);
    let table = table(file, context);
    let ca_file = context.file(&file.ca_file, MAX_CA_BYTES).map(|(path, _)| path);
    let url = url?;
    // SECURITY: the text may hold a password, so no message repeats it.
    match MysqlUrl::parse(url.value.as_str()) {
        Ok(parsed) if parsed.is_in_the_clear() => {
            let message = "what this database sends may be read on the way";
            let builder = DiagnosticBuilder::warning(url.span.clone(), message);
            context.report.push(builder.hint(
                "write sslmode=require; on a network that is trusted, end the line with \
                 `# check: ok`",
            ));
        }
        Ok(_) => {}
        Err(fault) => {
            let (what, hint) = fault.texts();
            context.report.malformed(url, "a URL of MySQL", what, Some(MYSQL_URL_FORM), hint);
            return None;
        }
    }
    let url = Secret::new(url.value.as_str());
    Some(MysqlSettings { url, table: table?, every, max_transaction, ca_file })
}

/// The table, as it is stored there.
#[cfg(feature = "mysql")]
fn table(file: &SourceSection, context: &mut CompileContext) -> Option<Box<str>> {
    use crate::config::decode::Setting;

    /// The longest name of a table with its database, in bytes.
    const MAX_TABLE: usize = 129;

    let given = match &file.table {
        Setting::Given(given) => given,
        Setting::Bad => return None,
        Setting::Absent | Setting::Default(_) => return Some(DEFAULT_TABLE.into()),
    };
    let text = given.value.as_str();
    let parts: Vec<&str> = text.split('.').collect();
    let fits = (1..=MAX_TABLE).contains(&text.len())
        && parts.len() <= 2
        && parts.iter().all(|part| !part.is_empty())
        && !text.bytes().any(|b| b.is_ascii_control());
    if fits {
        return Some(text.into());
    }
    let what = format!("`{}` is not a name of a table", given.value.shown());
    let allowed = Some("TABLE, or DATABASE.TABLE");
    context.report.malformed(given, "a table", what, allowed, "write it as \"sidecache_changes\"");
    None
}
