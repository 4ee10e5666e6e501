//! Applies a change to the text of `proxy.toml`, and keeps everything else as it is: comments, the
//! order of keys, white space.

use toml_edit::{Array, ArrayOfTables, DocumentMut, InlineTable, Item, Table, Value, value};

use crate::policy::edit::{Edit, EditValue};

/// The text with these changes, and the lines that they stand for; `None` if the text has no place
/// for one of them.
pub fn apply(text: &str, edits: &[Edit]) -> Option<(String, String)> {
    let mut document: DocumentMut = text.parse().ok()?;
    let mut lines = Vec::with_capacity(edits.len());
    for edit in edits {
        lines.push(match edit {
            Edit::Route { path, key, value } => set(route(&mut document, path)?, key, value),
            Edit::Section { section, key, value } => {
                let line = set(table(&mut document, section)?, key, value);
                format!("[{section}]\n{line}")
            }
            Edit::HeaderField { name, header } => {
                let fields = table(&mut document, "fields")?;
                let mut source = InlineTable::new();
                source.insert("header", header.as_str().into());
                let line = format!("[fields]\n{name} = {source}");
                match fields.get(name).and_then(|field| field.get("header")?.as_str()) {
                    Some(known) if known.eq_ignore_ascii_case(header) => {}
                    // The name is taken.
                    _ if fields.contains_key(name) => return None,
                    _ => {
                        fields.insert(name, value(source));
                    }
                }
                line
            }
            Edit::Purge { path, tags } => {
                let mut rule = Table::new();
                rule.insert("path", value(path.as_str()));
                rule.insert("tags", value(list(tags)));
                let line = format!("[[purges]]\n{}", rule.to_string().trim_end());
                let rules = document
                    .entry("purges")
                    .or_insert(Item::ArrayOfTables(ArrayOfTables::new()))
                    .as_array_of_tables_mut()?;
                rules.push(rule);
                line
            }
        });
    }
    Some((document.to_string(), lines.join("\n")))
}

/// `text` with the modes of `other`: of the whole file, and of each route that both have. `None` if
/// they are the same.
#[must_use]
pub fn with_modes(text: &str, other: &str) -> Option<String> {
    let mut document: DocumentMut = text.parse().ok()?;
    let other: DocumentMut = other.parse().ok()?;
    let copy = |from: &Table, to: &mut Table| match from.get("mode") {
        Some(mode) if to.get("mode").map(Item::to_string) != Some(mode.to_string()) => {
            to.insert("mode", mode.clone());
            true
        }
        Some(_) => false,
        None => to.remove("mode").is_some(),
    };
    let mut is_changed = copy(other.as_table(), document.as_table_mut());
    let routes = other.get("routes").and_then(Item::as_array_of_tables);
    for theirs in routes.into_iter().flatten() {
        let path = theirs.get("path").and_then(Item::as_str);
        if let Some(ours) = path.and_then(|path| route(&mut document, path)) {
            is_changed |= copy(theirs, ours);
        }
    }
    is_changed.then(|| document.to_string())
}

/// The table of the route with this path.
fn route<'a>(document: &'a mut DocumentMut, path: &str) -> Option<&'a mut Table> {
    let routes = document.get_mut("routes")?.as_array_of_tables_mut()?;
    routes.iter_mut().find(|route| route.get("path").and_then(Item::as_str) == Some(path))
}

/// The table of a section, which is added if it is missing.
fn table<'a>(document: &'a mut DocumentMut, section: &str) -> Option<&'a mut Table> {
    document.entry(section).or_insert(Item::Table(Table::new())).as_table_mut()
}

/// Sets a key, and returns its line. A comment on its old line goes, since it spoke of the old
/// value: `# check: ok` must not accept what nobody has read.
fn set(table: &mut Table, key: &str, to: &EditValue) -> String {
    let new = match to {
        EditValue::Text(text) => Value::from(text.as_str()),
        EditValue::Number(number) => Value::from(*number),
        EditValue::List(texts) => Value::Array(list(texts)),
        EditValue::More(texts) => {
            let known = table.get(key).and_then(Item::as_array).into_iter().flatten();
            let mut all: Vec<String> = known.filter_map(Value::as_str).map(str::to_owned).collect();
            for text in texts {
                if !all.contains(text) {
                    all.push(text.clone());
                }
            }
            Value::Array(list(&all))
        }
    };
    let line = format!("{key} = {new}");
    table.insert(key, Item::Value(new));
    line
}

fn list(texts: &[String]) -> Array {
    texts.iter().map(String::as_str).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# ours\n[upstream]\nurl = \"http://app:1\" # the app\n\n\
        [[routes]] # forms\npath = \"/a\"\nttl = \"1m\" # check: ok\nkey = [ \"tenant\" ]\n\n\
        [[routes]]\npath = \"/b\"\n";

    #[test]
    fn everything_else_stays_as_it_is() {
        let edits = [
            Edit::text("/a", "ttl", "5m"),
            Edit::list("/b", "drop_headers", vec!["x-a".to_owned()]),
            Edit::HeaderField { name: "x_a".to_owned(), header: "x-a".to_owned() },
        ];
        let (after, _) = apply(FILE, &edits).expect("the file has a place for them");
        assert!(after.starts_with("# ours\n[upstream]\nurl = \"http://app:1\" # the app\n"));
        assert!(after.contains("[[routes]] # forms\npath = \"/a\"\nttl = \"5m\"\n"), "{after}");
        assert!(after.contains("key = [ \"tenant\" ]\n"), "{after}");
        assert!(after.contains("path = \"/b\"\ndrop_headers = [\"x-a\"]\n"), "{after}");
        assert!(after.contains("[fields]\nx_a = { header = \"x-a\" }\n"), "{after}");
    }

    #[test]
    fn a_purge_rule_is_added_after_the_others() {
        let edit = Edit::Purge { path: "/w/{*rest}".to_owned(), tags: vec!["a".to_owned()] };
        let (after, lines) = apply(FILE, std::slice::from_ref(&edit)).expect("it has a place");
        assert!(after.ends_with("[[purges]]\npath = \"/w/{*rest}\"\ntags = [\"a\"]\n"), "{after}");
        assert_eq!(lines, "[[purges]]\npath = \"/w/{*rest}\"\ntags = [\"a\"]");
    }

    #[test]
    fn a_list_keeps_what_it_has_and_a_name_that_is_taken_stays() {
        let more = |name: &str| Edit::Section {
            section: "credential",
            key: "headers",
            value: EditValue::More(vec![name.to_owned()]),
        };
        let text = "[credential]\nheaders = [\"x-a\"]\n";
        let (after, _) = apply(text, &[more("x-b"), more("x-a")]).expect("it has a place");
        assert_eq!(after, "[credential]\nheaders = [\"x-a\", \"x-b\"]\n");
        let field = Edit::HeaderField { name: "a".to_owned(), header: "x-a".to_owned() };
        assert_eq!(apply("[fields]\na = { header = \"x-b\" }\n", &[field]), None);
    }

    #[test]
    fn modes_are_taken_over_and_nothing_else() {
        let off = FILE.replace("path = \"/b\"", "path = \"/b\"\nmode = \"off\"");
        let other = format!("mode = \"shadow\"\n{}", off.replace("\"tenant\"", ""));
        let merged = with_modes(FILE, &other).expect("modes differ");
        assert_eq!(merged.replace("mode = \"shadow\"\n", ""), off, "{merged}");
        assert_eq!(with_modes(&merged, &other), None);
        let back = with_modes(&merged, FILE).expect("modes differ");
        assert_eq!(back, FILE);
    }

    #[test]
    fn a_route_that_is_not_there_has_no_place() {
        assert_eq!(apply(FILE, &[Edit::text("/c", "ttl", "5m")]), None);
        assert_eq!(apply("[[", &[]), None);
    }
}
