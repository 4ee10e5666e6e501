//! What a reload is refused for: where a file lets more callers share entries than before, and does
//! not accept that.

use std::ops::Range;

use toml_edit::{Array, ArrayOfTables, Document, Item, Value};

use super::{SharingRules, Widening};
use crate::config::diagnostics::DiagnosticCollector;
use crate::config::diagnostics::diagnostic::{DiagnosticBuilder, Diagnostics};
use crate::config::diagnostics::source_text::SourceText;
use crate::config::model::Config;

/// What a reload with this file is refused for: each widening that the file does not accept by
/// `# check: ok`, on the line of the key or on that of its route.
#[must_use]
pub fn refusals(config: &Config, name: &str, before: &SharingRules) -> Option<Diagnostics> {
    let widened = SharingRules::from_config(config).widened_from(before);
    if widened.is_empty() {
        return None;
    }
    let mut source = SourceText::new(name, &config.text);
    let mut documents = vec![(0, Document::parse(config.text.to_string()).ok())];
    for file in &*config.included {
        let start = source.add(&file.name, &file.text);
        documents.push((start, Document::parse(file.text.to_string()).ok()));
    }
    let mut report = DiagnosticCollector::new(source);
    for widening in widened {
        let (key, whole) = place(&documents, &widening).unwrap_or((None, 0..0));
        // The comment may stand on each line of a list, and on the line of the route.
        let lines = key.clone().unwrap_or_default();
        let starts: Vec<usize> = report
            .source()
            .text()
            .get(lines.clone())
            .into_iter()
            .flat_map(|text| text.match_indices('\n').map(|(at, _)| lines.start + at + 1))
            .collect();
        let first = key.as_ref().map(|key| key.start);
        if starts.into_iter().chain(first).chain([whole.start]).any(|at| report.is_accepted(at)) {
            continue;
        }
        let message = format!(
            "this {}, so that callers share entries who did not before: the reload is refused",
            widening.what
        );
        let hint = "if no response depends on who asks, end the line (or that of the route's \
                    [[routes]], where something was taken away) with `# check: ok`; a restart \
                    loads the file as it is";
        report.push(DiagnosticBuilder::error(key.unwrap_or(whole), message).hint(hint));
    }
    let (file, diagnostics) = report.finish();
    (!diagnostics.is_empty()).then(|| Diagnostics::new(file, diagnostics))
}

/// A file, and where its text begins among those of all files.
type PlacedDocument = (usize, Option<Document<String>>);

/// Where the key stands, if it does, and where its table begins.
fn place(
    documents: &[PlacedDocument],
    widening: &Widening,
) -> Option<(Option<Range<usize>>, Range<usize>)> {
    let main = documents.first()?.1.as_ref()?.as_item();
    let Some(id) = widening.route else {
        if widening.key == "fronts" {
            return Some((main.get(widening.key).and_then(Item::span), 0..0));
        }
        let Some(listed) = widening.app.index().checked_sub(1) else {
            let section = main.get("upstream")?;
            return Some((section.get(widening.key).and_then(Item::span), section.span()?));
        };
        return in_list(documents, "apps", listed, widening.key);
    };
    let (key, whole) = in_list(documents, "routes", id, widening.key)?;
    let default = || main.get("defaults")?.get(widening.key)?.span();
    Some((key.or_else(default), whole))
}

/// The same for a table of a list that several files may have, by its number among all.
fn in_list(
    documents: &[PlacedDocument],
    list: &str,
    mut id: usize,
    key: &str,
) -> Option<(Option<Range<usize>>, Range<usize>)> {
    for (start, document) in documents {
        let Some(tables) = document.as_ref()?.get(list) else { continue };
        let count = tables
            .as_array_of_tables()
            .map_or_else(|| tables.as_array().map_or(0, Array::len), ArrayOfTables::len);
        if id >= count {
            id -= count;
            continue;
        }
        let (key, whole) = in_table(tables, id, key)?;
        let moved = |span: Range<usize>| start + span.start..start + span.end;
        return Some((key.map(moved), moved(whole)));
    }
    None
}

/// The same for a table of a list of one file.
fn in_table(routes: &Item, id: usize, key: &str) -> Option<(Option<Range<usize>>, Range<usize>)> {
    // Without brackets of its own, a route stands in a list of the key `routes`.
    let route = routes.as_array_of_tables().and_then(|routes| {
        let route = routes.get(id)?;
        Some((route.get(key).and_then(Item::span), route.span()?))
    });
    route.or_else(|| {
        let route = routes.as_array()?.get(id)?;
        let key = route.as_inline_table()?.get(key);
        Some((key.and_then(Value::span), route.span()?))
    })
}
