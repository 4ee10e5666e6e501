//! Applies a change to the text of `proxy.toml`, and keeps everything else as it is: comments, the
//! order of keys, white space.

use std::collections::HashMap;
use std::fmt;

use toml_edit::{
    Array, ArrayOfTables, Decor, DocumentMut, InlineTable, Item, Table, TableLike, Value, value,
};

use super::diagnostics::SUPPRESSION;
use super::rule_name::{self, NameDefaults};
use crate::policy::edit::{Edit, EditValue};

/// The texts of a file and of those that it includes, with these changes, and the lines that they
/// stand for; `None` if the texts have no place for one of them. A rule is changed where it stands;
/// what is new gets into the file itself, which is the first text.
pub fn apply(texts: &[&str], edits: &[Edit]) -> Option<(Vec<String>, String)> {
    let mut documents = parsed(texts)?;
    let (mut lines, mut named) = (ShownLines::default(), HashMap::new());
    // Fields first: lists of keys have the names that they get.
    for edit in edits {
        if let Edit::HeaderField { name, header } = edit {
            let known = known_field(&documents, header);
            let field = known.clone().unwrap_or_else(|| free_name(&documents, texts, name));
            if known.is_none() {
                let mut source = InlineTable::new();
                source.insert("header", header.as_str().into());
                lines.add("[fields]", &format!("{field} = {source}"));
                table(documents.first_mut()?, "fields")?.insert(&field, value(source));
            }
            named.insert(name.as_str(), field);
        }
    }
    for edit in edits {
        match edit {
            Edit::Route { path, key, value } => {
                let inherited = default_of(documents.first()?, key);
                let route = route(&mut documents, path)?;
                // What a list gets in addition, it gets to what the route has from `[defaults]`.
                if let (Some(inherited), EditValue::More(_), None) =
                    (inherited, value, route.get(key))
                {
                    route.insert(key, inherited);
                }
                let line = match value {
                    EditValue::More(fields) if *key == "key" => {
                        set(route, key, &EditValue::More(renamed(fields, &named)))
                    }
                    value => set(route, key, value),
                };
                lines.add("", &line);
            }
            Edit::Section { section, key, value } => {
                let line = set(table(documents.first_mut()?, section)?, key, value);
                lines.add(&format!("[{section}]"), &line);
            }
            Edit::Top { key, value } => {
                let line = set(documents.first_mut()?.as_table_mut(), key, value);
                lines.add(TOP, &line);
            }
            Edit::HeaderField { .. } => {}
            Edit::NewRoute { path, keys } => {
                let mut route = Table::new();
                route.insert("path", value(path.as_str()));
                for (key, to) in keys {
                    match to {
                        EditValue::More(fields) if *key == "key" => {
                            set(&mut route, key, &EditValue::More(renamed(fields, &named)))
                        }
                        to => set(&mut route, key, to),
                    };
                }
                lines.add("[[routes]]", route.to_string().trim_end());
                let routes = documents
                    .first_mut()?
                    .entry("routes")
                    .or_insert(Item::ArrayOfTables(ArrayOfTables::new()))
                    .as_array_of_tables_mut()?;
                routes.push(route);
            }
            Edit::Purge { path, tags } => {
                let mut rule = Table::new();
                rule.insert("path", value(path.as_str()));
                rule.insert("tags", value(list(tags)));
                lines.add("[[purges]]", rule.to_string().trim_end());
                let rules = documents
                    .first_mut()?
                    .entry("purges")
                    .or_insert(Item::ArrayOfTables(ArrayOfTables::new()))
                    .as_array_of_tables_mut()?;
                rules.push(rule);
            }
        }
    }
    Some((documents.iter().map(DocumentMut::to_string).collect(), lines.to_string()))
}

fn parsed(texts: &[&str]) -> Option<Vec<DocumentMut>> {
    texts.iter().map(|text| text.parse().ok()).collect()
}

/// What is shown above lines for the top of the file, before its sections.
const TOP: &str = "# At the top of the file:";

/// The lines of changes: first those of a route, then each section once.
#[derive(Default)]
struct ShownLines {
    sections: Vec<(String, Vec<String>)>,
}

impl ShownLines {
    fn add(&mut self, header: &str, line: &str) {
        let is_one = !header.starts_with("[[");
        let known = self.sections.iter_mut().find(|(known, _)| is_one && known == header);
        match known {
            Some((_, lines)) => lines.push(line.to_owned()),
            None => self.sections.push((header.to_owned(), vec![line.to_owned()])),
        }
    }
}

impl fmt::Display for ShownLines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sections: Vec<_> = self.sections.iter().collect();
        sections.sort_by_key(|(header, _)| !header.is_empty());
        let all = sections.into_iter().flat_map(|(header, lines)| {
            let header = (!header.is_empty()).then_some(header.as_str());
            header.into_iter().chain(lines.iter().map(String::as_str))
        });
        f.write_str(&all.collect::<Vec<_>>().join("\n"))
    }
}

/// The value of a key in `[defaults]`.
fn default_of(document: &DocumentMut, key: &str) -> Option<Item> {
    document.get("defaults")?.get(key).cloned()
}

/// The field that reads this header already.
fn known_field(documents: &[DocumentMut], header: &str) -> Option<String> {
    let reads = |field: &Item| {
        let name = field.get("header").and_then(Item::as_str);
        name.is_some_and(|name| name.eq_ignore_ascii_case(header))
    };
    let mut fields = fields(documents).flat_map(TableLike::iter);
    fields.find(|(_, field)| reads(field)).map(|(name, _)| name.to_owned())
}

/// The tables of the fields, of each file that has one.
fn fields(documents: &[DocumentMut]) -> impl Iterator<Item = &dyn TableLike> {
    documents.iter().filter_map(|document| document.get("fields").and_then(Item::as_table_like))
}

/// A name like this one that neither a field nor a capture has.
fn free_name(documents: &[DocumentMut], texts: &[&str], name: &str) -> String {
    let is_taken = |name: &str| {
        name == "caller"
            || fields(documents).any(|fields| fields.contains_key(name))
            || texts.iter().any(|text| text.contains(&format!("{{{name}}}")))
            || texts.iter().any(|text| text.contains(&format!("{{*{name}}}")))
    };
    // A name begins with a letter.
    let begins_well = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
    let name = if begins_well { name.to_owned() } else { format!("header_{name}") };
    let others = (2..).map(|number| format!("{name}_{number}"));
    let mut names = std::iter::once(name.clone()).chain(others);
    names.find(|name| !is_taken(name)).unwrap_or(name)
}

/// Fields that a key gets, with the names that they have got, each once.
fn renamed(fields: &[String], named: &HashMap<&str, String>) -> Vec<String> {
    let mut all: Vec<String> = Vec::with_capacity(fields.len());
    for field in fields {
        let (name, mark) = field.strip_suffix('?').map_or((field.as_str(), ""), |name| (name, "?"));
        let name = named.get(name).map_or(name, String::as_str);
        if !all.iter().any(|known| known.trim_end_matches('?') == name) {
            all.push(format!("{name}{mark}"));
        }
    }
    all
}

/// `texts` with the modes of `others`: of the whole file, and of each route that both have. The
/// first text of each is that of the file, the others are those of the files that it includes.
/// `None` if the modes are the same.
#[must_use]
pub fn with_modes(texts: &[&str], others: &[&str]) -> Option<Vec<String>> {
    let mut documents = parsed(texts)?;
    let others = parsed(others)?;
    let other = others.first()?;
    let copy = |from: Option<&Item>, to: &mut Table, default: Option<&Item>| match from {
        Some(mode) if to.get("mode").or(default).map(Item::to_string) != Some(mode.to_string()) => {
            to.insert("mode", mode.clone());
            true
        }
        Some(_) => false,
        // Without the default of the other file, it is that of all files.
        None if default.is_some() => {
            let on = value("on");
            let is_on = to.get("mode").and_then(Item::as_str) == Some("on");
            to.insert("mode", on);
            !is_on
        }
        None => to.remove("mode").is_some(),
    };
    let (own_default, other_default) =
        (default_of(documents.first()?, "mode"), default_of(other, "mode"));
    let mut is_changed = copy(other.get("mode"), documents.first_mut()?.as_table_mut(), None);
    let routes =
        others.iter().filter_map(|other| other.get("routes").and_then(Item::as_array_of_tables));
    let other_names = NameDefaults::of(other);
    for theirs in routes.flatten() {
        let name = rule_name::in_document(theirs, &other_names);
        if let Some(ours) = name.and_then(|name| route(&mut documents, &name)) {
            let mode = theirs.get("mode").or(other_default.as_ref());
            is_changed |= copy(mode, ours, own_default.as_ref());
        }
    }
    is_changed.then(|| documents.iter().map(DocumentMut::to_string).collect())
}

/// The table of the route with this name: its path, and its conditions if it has some.
fn route<'a>(documents: &'a mut [DocumentMut], name: &str) -> Option<&'a mut Table> {
    let defaults = NameDefaults::of(documents.first()?);
    let routes = documents
        .iter_mut()
        .filter_map(|document| document.get_mut("routes").and_then(Item::as_array_of_tables_mut));
    routes
        .flat_map(ArrayOfTables::iter_mut)
        .find(|route| rule_name::in_document(route, &defaults).as_deref() == Some(name))
}

/// The table of a section, which is added if it is missing.
fn table<'a>(document: &'a mut DocumentMut, section: &str) -> Option<&'a mut Table> {
    document.entry(section).or_insert(Item::Table(Table::new())).as_table_mut()
}

/// Sets a key, and returns its line. Comments stay, but for those with [`SUPPRESSION`], which would
/// accept what nobody has read.
fn set(table: &mut Table, key: &str, to: &EditValue) -> String {
    let known = table.get(key).and_then(Item::as_value).cloned();
    let known_list = known.as_ref().and_then(Value::as_array);
    let new = match to {
        EditValue::Text(text) => Value::from(text.as_str()),
        EditValue::Number(number) => Value::from(*number),
        EditValue::List(texts) => Value::Array(list(texts)),
        EditValue::More(texts) => {
            let mut all = known_list.map(texts_of).unwrap_or_default();
            for text in texts {
                if !all.contains(text) {
                    all.push(text.clone());
                }
            }
            Value::Array(list(&all))
        }
    };
    let line = format!("{key} = {new}");
    let mut kept = match (&new, known_list) {
        (Value::Array(new), Some(known)) => {
            extended(known, new).map_or(Value::Array(new.clone()), Value::Array)
        }
        _ => new,
    };
    if let Some(decor) = known.as_ref().map(Value::decor).filter(|decor| !accepts(decor)) {
        *kept.decor_mut() = decor.clone();
    }
    table.insert(key, Item::Value(kept));
    line
}

/// Whether a comment beside a value accepts it.
fn accepts(decor: &Decor) -> bool {
    decor.suffix().and_then(|suffix| suffix.as_str()).is_some_and(|text| text.contains(SUPPRESSION))
}

/// A list with what another one has more, its comments kept; `None` if it does not begin with it,
/// or a comment accepts an element.
fn extended(known: &Array, new: &Array) -> Option<Array> {
    let (before, after) = (texts_of(known), texts_of(new));
    let more = after.strip_prefix(&*before)?;
    let mut list = known.clone();
    for text in more {
        list.push(text.as_str());
    }
    (!list.to_string().contains(SUPPRESSION)).then_some(list)
}

fn texts_of(list: &Array) -> Vec<String> {
    list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn list(texts: &[String]) -> Array {
    texts.iter().map(String::as_str).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(text: &str, edits: &[Edit]) -> Option<(String, String)> {
        super::apply(&[text], edits).map(|(texts, lines)| (texts.concat(), lines))
    }

    fn with_modes(text: &str, other: &str) -> Option<String> {
        super::with_modes(&[text], &[other]).map(|texts| texts.concat())
    }

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
    fn comments_stay_unless_they_accept_the_old_value() {
        let text = "[[routes]]\npath = \"/a\"\nkey = [\n  \"a\", # the first\n] # why\n\
            ttl = \"1m\" # short\ntags = [\"t\"] # check: ok\n";
        let edits = [
            Edit::list("/a", "key", vec!["a".to_owned(), "b?".to_owned()]),
            Edit::text("/a", "ttl", "5m"),
            Edit::list("/a", "tags", vec!["t".to_owned(), "u".to_owned()]),
        ];
        let (after, lines) = apply(text, &edits).expect("it has a place for them");
        for kept in ["# the first\n", "] # why\n", "ttl = \"5m\" # short\n"] {
            assert!(after.contains(kept), "{after}");
        }
        assert!(after.contains("tags = [\"t\", \"u\"]\n"), "{after}");
        assert!(lines.starts_with("key = [\"a\", \"b?\"]\n"), "{lines}");
        let keys: toml::Table = after.parse().expect("it is TOML");
        assert_eq!(keys["routes"][0]["key"].as_array().map(Vec::len), Some(2), "{after}");
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
        let field =
            |name: &str| Edit::HeaderField { name: name.to_owned(), header: "x-a".to_owned() };
        let key = |name: &str| Edit::more("/a", "key", vec![format!("{name}?")]);
        let route = "[[routes]]\npath = \"/a\"\nkey = [\"x\"]\n";
        for (fields, name, after) in [
            ("a = { header = \"x-b\" }\n", "a", "a_2"),
            ("a = { header = \"x-b\" }\na_2 = { cookie = \"c\" }\n", "a", "a_3"),
            ("b = { header = \"X-A\" }\n", "a", "b"),
            ("", "1a", "header_1a"),
            ("", "caller", "caller_2"),
        ] {
            let text = format!("[fields]\n{fields}{route}");
            let (text, _) = apply(&text, &[field(name), key(name)]).expect("it has a place");
            assert!(text.contains(&format!("key = [\"x\", \"{after}?\"]")), "{text}");
            let read = text.to_ascii_lowercase().matches("\"x-a\"").count();
            assert_eq!(read, 1, "{text}");
        }
    }

    #[test]
    fn the_lines_have_each_section_once_and_the_routes_first() {
        let field =
            |name: &str| Edit::HeaderField { name: name.to_owned(), header: name.to_owned() };
        let key = Edit::list("/a", "key", vec!["a?".to_owned(), "b?".to_owned()]);
        let (_, lines) = apply(FILE, &[field("a"), field("b"), key]).expect("it has a place");
        let fields = "[fields]\na = { header = \"a\" }\nb = { header = \"b\" }";
        assert_eq!(lines, format!("key = [\"a?\", \"b?\"]\n{fields}"));
    }

    #[test]
    fn a_route_with_conditions_is_found_by_its_name() {
        let text = "[[routes]]\npath = \"/a\"\nmatch.query.x = \"1\"\n[[routes]]\npath = \"/a\"\n";
        let to = |name: &str| apply(text, &[Edit::text(name, "ttl", "5m")]).map(|(text, _)| text);
        let (first, second) = (to("/a [query.x=1]").expect("it is there"), to("/a").expect("too"));
        assert_eq!(first.replacen("ttl = \"5m\"\n", "", 1), text);
        assert!(first.find("ttl") < first.rfind("[[routes]]"), "{first}");
        assert!(second.find("ttl") > second.rfind("[[routes]]"), "{second}");
        assert_eq!(to("/a [query.x=2]"), None);
        let off = text.replacen("query.x = \"1\"", "query.x = \"1\"\nmode = \"off\"", 1);
        assert_eq!(with_modes(text, &off), Some(off));
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

    #[test]
    fn r1280_a_rule_is_changed_in_the_file_that_has_it() {
        let (main, other) = ("[defaults]\nttl = \"1m\"\n", "[[routes]]\npath = \"/a\"\n");
        let edits = [
            Edit::text("/a", "ttl", "5m"),
            Edit::HeaderField { name: "x".to_owned(), header: "x-x".to_owned() },
        ];
        let (texts, _) = super::apply(&[main, other], &edits).expect("it has a place");
        assert_eq!(texts[1], "[[routes]]\npath = \"/a\"\nttl = \"5m\"\n");
        assert!(texts[0].contains("[fields]\nx = "), "{}", texts[0]);
        // A name that an included file has is taken.
        let taken = format!("[fields]\nx = {{ cookie = \"c\" }}\n{other}");
        let (texts, _) = super::apply(&[main, &taken], &edits).expect("it has a place");
        assert!(texts[0].contains("x_2 = "), "{}", texts[0]);
        // A rule has moved into another file, and is off there.
        let off = format!("{other}mode = \"off\"\n");
        let merged = super::with_modes(&[main, other], &[&off]).expect("modes differ");
        assert_eq!(merged, [main, &off]);
        assert_eq!(super::with_modes(&[main, &off], &[&off]), None);
    }
}
