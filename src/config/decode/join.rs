//! Joins the rules of an included file with those of the main one, before they are decoded: each
//! value keeps its place, so that a message about it points into the file that it stands in.
//!
//! Invariant: an included file has rules and fields alone. What there is once for all files stands
//! in the main file, so that nobody has to look for it elsewhere.

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::{TomlReader, nearest};
use crate::config::diagnostics::diagnostic::DiagnosticBuilder;

/// The lists of rules that an included file may have.
const RULES: [&str; 4] = ["apps", "routes", "purges", "expect"];
/// What an included file may have.
const INCLUDABLE: [&str; 5] = ["fields", "apps", "routes", "purges", "expect"];

/// Adds what an included file has to the tables of the main file, or reports why that cannot be.
/// `keys` are those of the main file.
pub fn join<'i>(
    root: &mut DeTable<'i>,
    file: DeTable<'i>,
    keys: &[&str],
    reader: &mut TomlReader<'_>,
) {
    for (key, value) in file {
        let name = key.get_ref().clone().into_owned();
        if !INCLUDABLE.contains(&&*name) {
            reader.report.push(refused(&key, &name, keys));
            continue;
        }
        let span = value.span();
        let is_list = RULES.contains(&&*name);
        match (root.get_mut(&*name).map(Spanned::get_mut), value.into_inner()) {
            // The first file of several that has it.
            (None, value @ DeValue::Array(_)) if is_list => {
                root.insert(key, Spanned::new(span, value));
            }
            (None, value @ DeValue::Table(_)) if !is_list => {
                root.insert(key, Spanned::new(span, value));
            }
            (Some(DeValue::Array(all)), DeValue::Array(own)) if is_list => append(all, own),
            (Some(DeValue::Table(all)), DeValue::Table(own)) if !is_list => {
                fields(all, own, reader);
            }
            // What the main file has instead is reported there.
            (Some(_), DeValue::Array(_)) if is_list => {}
            (Some(_), DeValue::Table(_)) if !is_list => {}
            (_, other) if is_list => {
                let hint = format!("write the header with double brackets: [[{name}]]");
                reader.wrong_type(&Spanned::new(span, other), "a list", Some(hint));
            }
            (_, other) => {
                let hint = format!("write the header as [{name}]");
                reader.wrong_type(&Spanned::new(span, other), "a table", Some(hint));
            }
        }
    }
}

fn append<'i>(all: &mut DeArray<'i>, own: DeArray<'i>) {
    for rule in own {
        all.push(rule);
    }
}

/// Adds fields. A name is that of one field in all files.
fn fields<'i>(all: &mut DeTable<'i>, own: DeTable<'i>, reader: &mut TomlReader<'_>) {
    for (name, field) in own {
        let known = all.iter().find(|(known, _)| known.get_ref() == name.get_ref());
        if let Some((known, _)) = known {
            let place = reader.report.source().line_for(&known.span(), &name.span());
            let message = format!("the field `{}` is also at {place}", name.get_ref());
            let hint = "all files share the fields: remove one of the two, or give it another name";
            reader.report.push(DiagnosticBuilder::error(name.span(), message).hint(hint));
        } else {
            all.insert(name, field);
        }
    }
}

/// The report of a key that belongs into the main file, or nowhere.
fn refused(
    key: &Spanned<std::borrow::Cow<'_, str>>,
    name: &str,
    keys: &[&str],
) -> DiagnosticBuilder {
    let builder =
        |message| DiagnosticBuilder::error(key.span(), message).allowed(INCLUDABLE.join(", "));
    if name == "include" {
        return builder("an included file includes no others".to_owned())
            .hint("name them in `include` of the main file");
    }
    if keys.contains(&name) {
        return builder(format!("`{name}` cannot stand in an included file"))
            .hint("put it into the main file: there is one for all files");
    }
    let near = nearest(name, &INCLUDABLE).map(|near| format!("did you mean `{near}`?"));
    builder(format!("an included file has no key `{name}`")).maybe_hint(near)
}
