//! The names of rules in the text of a file, as [`crate::policy::route::Route::name`] makes them.

use toml::{Table, Value};
use toml_edit::{Item, TableLike};

use super::compile::apps::FIRST;
use crate::policy::request_match::{labelled, match_label};

/// The path of a rule, and its conditions if it has some: for a route, its name.
#[must_use]
pub fn in_file(rule: &Table) -> String {
    let path = rule.get("path").and_then(Value::as_str).unwrap_or_default();
    let texts = |value: &'_ Value| -> Vec<String> {
        let list = value.as_array().into_iter().flatten();
        let single = list.chain(value.as_str().is_some().then_some(value));
        single.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let mut conditions = Vec::new();
    for (kind, value) in rule.get("match").and_then(Value::as_table).into_iter().flatten() {
        match value.as_table() {
            Some(table) => conditions
                .extend(table.iter().map(|(name, value)| (format!("{kind}.{name}"), texts(value)))),
            None => conditions.push((kind.clone(), texts(value))),
        }
    }
    conditions.extend(app(rule.get("app").and_then(Value::as_str)));
    labelled(path, &label(&conditions))
}

/// What a route in a text that is edited takes over from `[defaults]` for its name.
#[derive(Clone, Debug, Default)]
pub struct NameDefaults {
    conditions: Option<Item>,
}

impl NameDefaults {
    /// Those of this text.
    #[must_use]
    pub fn of(document: &toml_edit::DocumentMut) -> Self {
        let defaults = document.get("defaults").and_then(Item::as_table_like);
        Self { conditions: defaults.and_then(|table| table.get("match")).cloned() }
    }
}

/// The same of a route in a text that is edited.
#[must_use]
pub fn in_document(route: &toml_edit::Table, defaults: &NameDefaults) -> Option<String> {
    let path = route.get("path").and_then(Item::as_str)?;
    let texts = |item: &Item| -> Vec<String> {
        match item.as_array() {
            Some(list) => list.iter().filter_map(|one| one.as_str().map(str::to_owned)).collect(),
            None => item.as_str().map(str::to_owned).into_iter().collect(),
        }
    };
    let mut conditions = Vec::new();
    let given = route.get("match").or(defaults.conditions.as_ref()).and_then(Item::as_table_like);
    for (kind, item) in given.into_iter().flat_map(TableLike::iter) {
        match item.as_table_like() {
            Some(table) => conditions
                .extend(table.iter().map(|(name, item)| (format!("{kind}.{name}"), texts(item)))),
            None => conditions.push((kind.to_owned(), texts(item))),
        }
    }
    conditions.extend(app(route.get("app").and_then(Item::as_str)));
    Some(labelled(path, &label(&conditions)))
}

/// The app of a rule, as it stands in the name.
fn app(name: Option<&str>) -> Option<(String, Vec<String>)> {
    let name = name.filter(|name| *name != FIRST)?;
    Some(("app".to_owned(), vec![name.to_owned()]))
}

fn label(conditions: &[(String, Vec<String>)]) -> String {
    match_label(
        conditions
            .iter()
            .map(|(name, texts)| (name.clone(), texts.iter().map(String::as_str).collect())),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn a_route_has_one_name_in_every_reading_of_the_file() {
        let text = "[upstream]\nurl = \"http://127.0.0.1:1\"\n[defaults]\nmatch.host = \"A.test\"\n\
            [[routes]]\npath = \"/a\"\nttl = \"1m\"\nmatch = { query.a = [\"b,\", \"a\"], \
            header.x-y = \"1\", host = \"h.test\" }\n\
            [[routes]]\npath = \"/b\"\nttl = \"1m\"\n[[routes]]\npath = \"/c\"\nttl = \"1m\"\n\
            match = { query.a = \"${A}\" }\n\
            [[routes]]\npath = \"/a\"\nttl = \"1m\"\napp = \"shop\"\nmatch = { query.a = \"1\" }\n\
            [[apps]]\nname = \"shop\"\nhosts = [\"shop.test\"]\nurl = \"http://127.0.0.1:2\"\n";
        let env = |_: &str| Some("secret".to_owned());
        let config =
            Config::parse(text, "proxy.toml", &env).unwrap_or_else(|problems| panic!("{problems}"));
        let names: Vec<&str> = config.routes.iter().map(|route| route.name()).collect();
        let expected = [
            "/a [header.x-y=1, host=h.test, query.a=a|b%2C]",
            "/b [host=A.test]",
            "/c [query.a=${A}]",
            "/a [app=shop, query.a=1]",
        ];
        assert_eq!(names, expected);
        let document: toml_edit::DocumentMut = text.parse().expect("TOML");
        let defaults = NameDefaults::of(&document);
        let routes = document["routes"].as_array_of_tables().expect("routes");
        let read: Vec<_> =
            routes.iter().filter_map(|route| in_document(route, &defaults)).collect();
        assert_eq!(read, expected);
        let mut table: Table = text.parse().expect("TOML");
        let default = table["defaults"]["match"].clone();
        for (at, expected) in expected.iter().enumerate() {
            let route = table["routes"][at].as_table_mut().expect("a route");
            route.entry("match").or_insert(default.clone());
            assert_eq!(in_file(route), *expected);
        }
    }
}
