//! Changes of `proxy.toml` as data, so that whoever proposes one can have it tried before anybody
//! sees it.

/// A value of a key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum EditValue {
    /// A string.
    Text(String),
    /// A list of strings.
    List(Vec<String>),
    /// Strings that the list gets in addition to those it has.
    More(Vec<String>),
    /// A number.
    Number(i64),
}

/// One change of the file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Edit {
    /// Sets a key of the route with this path.
    Route {
        /// The route's path, as in the file.
        path: String,
        /// The key.
        key: &'static str,
        /// Its value.
        value: EditValue,
    },
    /// Sets a key of a section.
    Section {
        /// The section.
        section: &'static str,
        /// The key.
        key: &'static str,
        /// Its value.
        value: EditValue,
    },
    /// Sets a key at the top of the file.
    Top {
        /// The key.
        key: &'static str,
        /// Its value.
        value: EditValue,
    },
    /// Adds a field that reads a header, unless there is one. Where the name is taken, it gets
    /// another one.
    HeaderField {
        /// The field's name.
        name: String,
        /// The header.
        header: String,
    },
    /// Adds a route.
    NewRoute {
        /// Its path.
        path: String,
        /// Its other keys, in their order. Fields of a key have the names of
        /// [`Edit::HeaderField`].
        keys: Vec<(&'static str, EditValue)>,
    },
    /// Adds a purge rule.
    Purge {
        /// The paths that it matches.
        path: String,
        /// The tags that it purges.
        tags: Vec<String>,
    },
}

impl Edit {
    /// Sets a key of a route to a text.
    #[must_use]
    pub fn text(path: &str, key: &'static str, value: &str) -> Self {
        Self::Route { path: path.to_owned(), key, value: EditValue::Text(value.to_owned()) }
    }

    /// Sets a key of a route to a list.
    #[must_use]
    pub fn list(path: &str, key: &'static str, value: Vec<String>) -> Self {
        Self::Route { path: path.to_owned(), key, value: EditValue::List(value) }
    }

    /// Adds to a list of a route. Fields of a key have the names of [`Edit::HeaderField`].
    #[must_use]
    pub fn more(path: &str, key: &'static str, value: Vec<String>) -> Self {
        Self::Route { path: path.to_owned(), key, value: EditValue::More(value) }
    }
}

/// Changes that have been tried on the file: it stays valid, gets no new warning, and lets no more
/// callers share an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TriedEdits {
    /// The changed lines alone.
    pub lines: String,
    /// The difference of the files, as a unified diff without secrets.
    pub diff: String,
}
