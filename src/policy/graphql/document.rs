//! A GraphQL document: its operations, and the root fields of its mutations.
//!
//! Invariants:
//! - What is read here means to every server what it means here, or the server refuses it. So a
//!   document is unread if the parser finds an error in it, if it defines types, or if it has
//!   characters at which the lexers of servers differ.
//! - The root fields are at least those that can run: aliases do not count, fragments are followed
//!   whatever their types, and directives leave nothing out.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use apollo_parser::Parser;
use apollo_parser::cst::{self, CstNode as _, Definition, Selection};

use crate::policy::graphql::fields::{RootFields, WrittenFields};

/// The longest document, in tokens; spaces and comments count.
pub const MAX_TOKENS: usize = 16_384;

/// How deep selections and values may be nested.
pub const MAX_DEPTH: usize = 100;

/// The most root fields of the mutations of a document that are told one by one.
const MAX_FIELDS: usize = 64;

/// Directives by which an answer comes in parts, or is sent anew.
const INCREMENTAL: [&str; 3] = ["defer", "stream", "live"];

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OperationKind {
    Query,
    Mutation,
    Subscription,
}

/// The operation that a request names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OperationName<'a> {
    /// None.
    Absent,
    /// This one.
    Named(&'a str),
    /// Something that is no name.
    Odd,
}

/// A document.
#[derive(Clone, Debug)]
pub(super) struct Document {
    operations: Vec<(OperationKind, Option<Box<str>>)>,
    /// Whether an answer may come in parts.
    is_incremental: bool,
    /// The root fields of all mutations.
    fields: WrittenFields,
}

/// What a document does, by the operation that a request names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum DocumentUse {
    /// It reads.
    Read,
    /// It writes nothing, and its answer is not stored, for this cause.
    Pass(&'static str),
    /// It may write.
    Write(WrittenFields),
}

impl Document {
    /// Reads a document; `None` if nobody can tell what it means.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if !is_plain(text) {
            return None;
        }
        let tree = Parser::new(text).recursion_limit(MAX_DEPTH).token_limit(MAX_TOKENS).parse();
        if tree.errors().next().is_some() {
            return None;
        }
        let root = tree.document();
        let (mut operations, mut mutations) = (Vec::new(), Vec::new());
        let mut fragments: BTreeMap<String, Vec<cst::SelectionSet>> = BTreeMap::new();
        for definition in root.definitions() {
            match definition {
                Definition::OperationDefinition(operation) => {
                    let kind = kind_of(&operation)?;
                    if kind == OperationKind::Mutation {
                        mutations.push(operation.selection_set()?);
                    }
                    let name = operation.name().map(|name| name.text().as_str().into());
                    operations.push((kind, name));
                }
                Definition::FragmentDefinition(fragment) => {
                    let name = fragment.fragment_name()?.name()?.text().to_string();
                    fragments.entry(name).or_default().push(fragment.selection_set()?);
                }
                // A server runs no document with definitions of types.
                _ => return None,
            }
        }
        let mut directives = root.syntax().descendants().filter_map(cst::Directive::cast);
        let is_incremental = directives.any(|directive| {
            directive.name().is_none_or(|name| INCREMENTAL.contains(&name.text().as_str()))
        });
        let fields = root_fields(mutations, &fragments);
        Some(Self { operations, is_incremental, fields })
    }

    /// Whether all that it can do is read, and whether it has one operation alone.
    pub(super) fn only_reads(&self) -> Option<bool> {
        let is_query = |(kind, _): &(OperationKind, _)| *kind == OperationKind::Query;
        let only_reads = !self.operations.is_empty()
            && !self.is_incremental
            && self.operations.iter().all(is_query);
        only_reads.then_some(self.operations.len() == 1)
    }

    /// The root fields of its mutations; `None` if it has none.
    pub(super) fn written(&self) -> Option<&WrittenFields> {
        self.has(OperationKind::Mutation).then_some(&self.fields)
    }

    fn has(&self, wanted: OperationKind) -> bool {
        self.operations.iter().any(|(kind, _)| *kind == wanted)
    }

    /// What it does if a request names this operation.
    pub(super) fn used_as(&self, wanted: OperationName<'_>) -> DocumentUse {
        if let Some(is_single) = self.only_reads() {
            return use_of_queries(is_single, wanted);
        }
        let chosen = match wanted {
            OperationName::Named(wanted) => {
                let is_named = |name: &Option<Box<str>>| name.as_deref() == Some(wanted);
                let mut named = self.operations.iter().filter(|(_, name)| is_named(name));
                named.next().filter(|_| named.next().is_none()).map(|(kind, _)| *kind)
            }
            OperationName::Absent | OperationName::Odd => match &*self.operations {
                [(kind, _)] => Some(*kind),
                _ => None,
            },
        };
        match chosen {
            Some(OperationKind::Query) if self.is_incremental => {
                DocumentUse::Pass("(answered in parts)")
            }
            Some(OperationKind::Query) => DocumentUse::Read,
            Some(OperationKind::Subscription) => DocumentUse::Pass("(subscription)"),
            Some(OperationKind::Mutation) => DocumentUse::Write(self.fields.clone()),
            // SECURITY: a server may run any of them.
            None if self.has(OperationKind::Mutation) => DocumentUse::Write(self.fields.clone()),
            None => DocumentUse::Pass("(no operation is chosen)"),
        }
    }
}

/// What a document of queries alone does. Of several operations a server runs the one that is
/// named, or none.
pub(super) fn use_of_queries(is_single: bool, wanted: OperationName<'_>) -> DocumentUse {
    if is_single || matches!(wanted, OperationName::Named(_)) {
        DocumentUse::Read
    } else {
        DocumentUse::Pass("(no operation is chosen)")
    }
}

/// Whether the lexers of all servers find the same tokens: they differ in which characters end a
/// line, and so a comment, and in which count for nothing.
fn is_plain(text: &str) -> bool {
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '\r' if letters.peek() != Some(&'\n') => return false,
            '\t' | '\n' | '\r' => {}
            '\u{85}' | '\u{feff}' | '\u{2028}' | '\u{2029}' => return false,
            _ if letter.is_control() => return false,
            _ => {}
        }
    }
    !text.trim().is_empty()
}

fn kind_of(operation: &cst::OperationDefinition) -> Option<OperationKind> {
    let Some(kind) = operation.operation_type() else { return Some(OperationKind::Query) };
    if kind.query_token().is_some() {
        Some(OperationKind::Query)
    } else if kind.mutation_token().is_some() {
        Some(OperationKind::Mutation)
    } else if kind.subscription_token().is_some() {
        Some(OperationKind::Subscription)
    } else {
        None
    }
}

/// The fields that these selections have at their root, through fragments. Each fragment is
/// followed once.
fn root_fields(
    mut left: Vec<cst::SelectionSet>,
    fragments: &BTreeMap<String, Vec<cst::SelectionSet>>,
) -> WrittenFields {
    let (mut names, mut followed) = (BTreeSet::new(), HashSet::new());
    let (mut count, mut arguments) = (0_usize, BTreeSet::new());
    while let Some(selections) = left.pop() {
        for selection in selections.selections() {
            match selection {
                Selection::Field(field) => {
                    let Some(name) = field.name() else { return WrittenFields::Unknown };
                    names.insert(Box::from(name.text().as_str()));
                    if names.len() > MAX_FIELDS {
                        return WrittenFields::Unknown;
                    }
                    count += 1;
                    if count == 1 {
                        arguments = own_variables(&field);
                    }
                }
                Selection::InlineFragment(fragment) => match fragment.selection_set() {
                    Some(inner) => left.push(inner),
                    None => return WrittenFields::Unknown,
                },
                Selection::FragmentSpread(spread) => {
                    let name = spread.fragment_name().and_then(|name| name.name());
                    let Some(name) = name.map(|name| name.text().to_string()) else {
                        return WrittenFields::Unknown;
                    };
                    let Some(found) = fragments.get(&name) else { return WrittenFields::Unknown };
                    if followed.insert(name) {
                        left.extend(found.iter().cloned());
                    } else {
                        count += 1;
                    }
                }
            }
        }
    }
    if count > 1 {
        arguments.clear();
    }
    if names.is_empty() {
        WrittenFields::Unknown
    } else {
        WrittenFields::These(RootFields { names, arguments })
    }
}

/// The arguments of a field whose value is the variable of the same name, and nothing else.
fn own_variables(field: &cst::Field) -> BTreeSet<Box<str>> {
    let mut found: BTreeMap<Box<str>, bool> = BTreeMap::new();
    for argument in field.arguments().into_iter().flat_map(|all| all.arguments()) {
        let Some(name) = argument.name().map(|name| Box::from(name.text().as_str())) else {
            return BTreeSet::new();
        };
        let is_own = match argument.value() {
            Some(cst::Value::Variable(variable)) => {
                variable.name().is_some_and(|own| own.text().as_str() == &*name)
            }
            _ => false,
        };
        // SECURITY: of an argument that is there twice, a server may take either.
        found.entry(name).and_modify(|is_own| *is_own = false).or_insert(is_own);
    }
    found.into_iter().filter(|(_, is_own)| *is_own).map(|(name, _)| name).collect()
}
