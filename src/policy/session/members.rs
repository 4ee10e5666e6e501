//! What counts of a payload: what the pointer names, without what is ignored.
//!
//! A member is named by its path: `_fresh`, and below a member `user` the name `user/theme`, with
//! `~1` for a `/` and `~0` for a `~` in a name (RFC 6901). What is ignored is ignored with all
//! below it. Elements of lists have no names.

use crate::policy::glob::{Glob, any_matches};
use crate::policy::session::fault::SessionFault;
use crate::policy::session::payload::PayloadValue;
use crate::policy::session::verified::VerifiedSession;
use crate::secret::Hasher;

/// The marks of Flask's `TaggedJSONSerializer` for values that are a text in JSON: UUID, bytes,
/// markup, time.
const TEXT_TAGS: [&[u8]; 4] = [b" u", b" b", b" m", b" d"];

/// Where frameworks and apps keep who the caller is.
const CALLER_MEMBERS: [&[&[u8]]; 14] = [
    &[b"_user_id"],
    &[b"_auth_user_id"],
    &[b"user_id"],
    &[b"userId"],
    &[b"uid"],
    &[b"user", b"id"],
    &[b"passport", b"user"],
    &[b"passport", b"user", b"id"],
    &[b"user"],
    &[b"username"],
    &[b"sub"],
    &[b"email"],
    &[b"account_id"],
    &[b"accountId"],
];
/// How many of them count.
const MAX_CALLERS: usize = 2;

/// What counts of a payload.
#[derive(Debug)]
pub(super) struct PayloadFilter {
    /// The parts of the pointer.
    pointer: Option<Box<[Box<[u8]>]>>,
    ignore: Box<[Glob]>,
    /// Whether texts may be marked as Flask does it.
    has_tags: bool,
}

impl PayloadFilter {
    pub(super) fn new(pointer: Option<&str>, ignore: &[Glob], has_tags: bool) -> Self {
        let parts = |pointer: &str| {
            let parts = pointer.split('/').skip(1);
            parts.map(|part| unescaped(part).into()).collect()
        };
        Self { pointer: pointer.map(parts), ignore: ignore.into(), has_tags }
    }

    /// What a payload says.
    pub(super) fn read(
        &self,
        payload: &PayloadValue,
        signed: Option<u64>,
        hasher: &Hasher,
    ) -> VerifiedSession {
        let digest = |value: &PayloadValue| {
            let mut bytes = Vec::new();
            value.write(&mut bytes);
            hasher.digest("session", &bytes)
        };
        let callers = CALLER_MEMBERS.iter().filter_map(|path| {
            let value = path.iter().try_fold(payload, |value, name| member(value, name))?;
            // The name is hashed with it, so that `uid` 1 is not `account_id` 1.
            let named =
                PayloadValue::List(vec![PayloadValue::Text(path.concat().into()), value.clone()]);
            (*value != PayloadValue::Null).then(|| digest(&named))
        });
        let callers = callers.take(MAX_CALLERS).collect();
        let whole = digest(payload);
        let Some(pointer) = &self.pointer else {
            let kept = if self.ignore.is_empty() {
                whole
            } else {
                digest(&self.without_ignored(payload, ""))
            };
            let value = Err(SessionFault::NoValue);
            return VerifiedSession {
                whole,
                kept,
                value,
                has_others: false,
                callers,
                signed,
                has_pointer: false,
            };
        };
        let found = pointer.iter().try_fold(payload, |value, part| below(value, part));
        let found = found.filter(|value| **value != PayloadValue::Null);
        VerifiedSession {
            whole,
            kept: digest(&PayloadValue::List(found.cloned().into_iter().collect())),
            value: found.map_or(Err(SessionFault::NoValue), |value| self.plain(value)),
            has_others: self.has_others(payload, pointer, ""),
            callers,
            signed,
            has_pointer: true,
        }
    }

    /// The text of a value that tags can have.
    fn plain(&self, value: &PayloadValue) -> Result<Box<str>, SessionFault> {
        let text = match value {
            PayloadValue::Text(text) | PayloadValue::Number(text) => text,
            PayloadValue::Bool(value) => return Ok(value.to_string().into()),
            PayloadValue::Members(members) if self.has_tags => match &**members {
                [(name, PayloadValue::Text(text))] if TEXT_TAGS.contains(&&**name) => text,
                _ => return Err(SessionFault::NotPlain),
            },
            PayloadValue::Null | PayloadValue::List(_) | PayloadValue::Members(_) => {
                return Err(SessionFault::NotPlain);
            }
        };
        match std::str::from_utf8(text) {
            Ok("") => Err(SessionFault::NoValue),
            Ok(text) => Ok(text.into()),
            Err(_) => Err(SessionFault::NotPlain),
        }
    }

    /// Whether a value holds anything that neither the rest of the pointer names, nor is ignored.
    fn has_others(&self, value: &PayloadValue, pointer: &[Box<[u8]>], path: &str) -> bool {
        let Some((first, rest)) = pointer.split_first() else { return false };
        match value {
            PayloadValue::Null => false,
            PayloadValue::Members(members) => members.iter().any(|(name, value)| {
                let path = joined(path, name);
                if name == first {
                    self.has_others(value, rest, &path)
                } else {
                    !any_matches(&self.ignore, path.as_bytes())
                }
            }),
            PayloadValue::List(elements) => elements.iter().enumerate().any(|(at, element)| {
                at.to_string().as_bytes() != &**first || self.has_others(element, rest, path)
            }),
            PayloadValue::Bool(_) | PayloadValue::Number(_) | PayloadValue::Text(_) => true,
        }
    }

    /// The value without the members that are ignored.
    fn without_ignored(&self, value: &PayloadValue, path: &str) -> PayloadValue {
        match value {
            PayloadValue::Members(members) => {
                let kept = members.iter().filter_map(|(name, value)| {
                    let path = joined(path, name);
                    let is_ignored = any_matches(&self.ignore, path.as_bytes());
                    (!is_ignored).then(|| (name.clone(), self.without_ignored(value, &path)))
                });
                PayloadValue::Members(kept.collect())
            }
            other => other.clone(),
        }
    }
}

/// A part of a JSON pointer, without its escapes.
fn unescaped(part: &str) -> Vec<u8> {
    part.replace("~1", "/").replace("~0", "~").into_bytes()
}

fn joined(path: &str, name: &[u8]) -> String {
    let name = String::from_utf8_lossy(name).replace('~', "~0").replace('/', "~1");
    if path.is_empty() { name } else { format!("{path}/{name}") }
}

fn member<'a>(value: &'a PayloadValue, name: &[u8]) -> Option<&'a PayloadValue> {
    let PayloadValue::Members(members) = value else { return None };
    members.iter().find(|(own, _)| **own == *name).map(|(_, value)| value)
}

fn below<'a>(value: &'a PayloadValue, part: &[u8]) -> Option<&'a PayloadValue> {
    match value {
        PayloadValue::List(elements) => {
            let at: usize = std::str::from_utf8(part).ok()?.parse().ok()?;
            // `+1` and `01` are no indexes.
            (at.to_string().as_bytes() == part).then(|| elements.get(at))?
        }
        other => member(other, part),
    }
}
