//! Parameters of queries and forms as any framework might read them.
//!
//! Used for what is a write and for what it purges, never for keys: a parameter too many costs a
//! miss, one too few a stale response.

use std::borrow::Cow;

use percent_encoding::percent_decode;

use crate::policy::fold::fold;

/// A parameter, decoded where possible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LooseParameter<'a> {
    /// The name.
    pub name: Cow<'a, str>,
    /// The value; empty without a `=`.
    pub value: Cow<'a, str>,
    /// Whether the value is not UTF-8: origins read it in different ways.
    pub is_garbled: bool,
}

/// Where a parameter lies, seen from a pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LoosePlace {
    /// Elsewhere.
    Elsewhere,
    /// Above it: there is a value where the pointer goes further down.
    Above,
    /// Below it: there is an object where the pointer ends.
    Below,
    /// At it.
    Here,
}

/// The parameters of a query or a form by any reading: split at `&`, and at `;` as well.
pub fn parameters(text: &[u8]) -> impl Iterator<Item = LooseParameter<'_>> {
    let at_both = |byte: &u8| matches!(byte, b'&' | b';');
    let usual = text.split(|&byte| byte == b'&');
    let further = text.contains(&b';').then(|| text.split(at_both)).into_iter().flatten();
    usual.chain(further).filter(|pair| !pair.is_empty()).map(parameter)
}

/// One parameter, `name=value`.
pub fn parameter(pair: &[u8]) -> LooseParameter<'_> {
    let equals = pair.iter().position(|&byte| byte == b'=');
    let (name, value) = equals.map_or((pair, &b""[..]), |at| (&pair[..at], &pair[at + 1..]));
    let ((name, _), (value, is_garbled)) = (unescaped(name), unescaped(value));
    LooseParameter { name, value, is_garbled }
}

/// The decoded text, and whether it is not UTF-8.
fn unescaped(text: &[u8]) -> (Cow<'_, str>, bool) {
    if !text.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        return (String::from_utf8_lossy(text), std::str::from_utf8(text).is_err());
    }
    let spaced: Vec<u8> = text.iter().map(|&byte| if byte == b'+' { b' ' } else { byte }).collect();
    match String::from_utf8(percent_decode(&spaced).collect()) {
        Ok(decoded) => (decoded.into(), false),
        Err(error) => (String::from_utf8_lossy(error.as_bytes()).into_owned().into(), true),
    }
}

impl LooseParameter<'_> {
    /// The same, without the text that it was read from.
    #[must_use]
    pub fn into_owned(self) -> LooseParameter<'static> {
        let Self { name, value, is_garbled } = self;
        let (name, value) = (name.into_owned().into(), value.into_owned().into());
        LooseParameter { name, value, is_garbled }
    }

    /// The value as it is, and without the white space around it, which many frameworks remove.
    pub fn values(&self) -> impl Iterator<Item = &str> {
        let trimmed = self.value.trim();
        let further = (trimmed.len() != self.value.len()).then_some(trimmed);
        std::iter::once(&*self.value).chain(further)
    }

    /// Whether a framework may take it for the parameter of this name: in any case, with an index
    /// (`a[]`), and by the rules of PHP, which cuts names at a NUL, skips spaces before them, and
    /// makes `_` of `.`, of space and of `[`.
    #[must_use]
    pub fn is_named(&self, wanted: &str) -> bool {
        let (name, wanted) = (own_part(&self.name), plain(wanted));
        let mut steps = split_steps(name, &['[']);
        plain(name) == wanted || steps.next().is_some_and(|base| base == wanted)
    }

    /// Where it lies, seen from this pointer. PHP and Rails write `/a/b` as `a[b]`, others as
    /// `a.b`; an element of a list has an empty name, or its number, or none at all.
    #[must_use]
    pub fn place(&self, pointer: &[String]) -> LoosePlace {
        let name = own_part(&self.name);
        let path: Vec<Cow<'_, str>> =
            pointer.iter().map(|step| if step == "*" { "*".into() } else { plain(step) }).collect();
        if let [only] = &path[..]
            && *only == plain(name)
        {
            return LoosePlace::Here;
        }
        let of = |separators: &[char]| {
            place_of(&split_steps(name, separators).collect::<Vec<_>>(), &path)
        };
        of(&['[']).max(of(&['[', '.', '/']))
    }
}

/// Whether some frameworks read a name as a path of names between dots, and others as one name.
#[must_use]
pub fn is_nested_by_dots(name: &str) -> bool {
    name.contains(['.', ' ', '+', '/'])
}

/// What two parameters have in common where any framework may take them for one, or for parts of
/// one: the name in one case, without indices. `is_nested`: with what follows a dot, or what may
/// stand for one, cut off. `None` for brackets that frameworks read in different ways.
#[must_use]
pub fn base_name(name: &str, is_nested: bool) -> Option<String> {
    let name = own_part(name);
    let (base, indices) =
        name.split_once('[').map_or((name, None), |(base, rest)| (base, Some(rest)));
    let is_plain = |text: &str| !text.contains(['[', ']']);
    let are_plain =
        |rest: &str| rest.strip_suffix(']').is_some_and(|rest| rest.split("][").all(is_plain));
    if !is_plain(base) || base.is_empty() && indices.is_some() || !indices.is_none_or(are_plain) {
        return None;
    }
    let base = plain(base);
    let cut = if is_nested { base.split(['_', '/']).next().unwrap_or_default() } else { &*base };
    Some(cut.to_owned())
}

/// A name without what is cut off: white space and byte order marks around it, and all from a NUL.
fn own_part(name: &str) -> &str {
    let is_blank = |c: char| c.is_whitespace() || c == '\u{feff}';
    name.split('\0').next().unwrap_or_default().trim_matches(is_blank)
}

/// A name, or a part of one, in the form in which it is compared.
fn plain(name: &str) -> Cow<'_, str> {
    let folded = fold(name);
    if folded.contains(['.', ' ', '-', '[', '+']) {
        Cow::Owned(folded.replace(['.', ' ', '-', '[', '+'], "_"))
    } else {
        folded
    }
}

/// The steps of a name. Rails skips brackets before it, PHP what stands behind a `]`.
fn split_steps<'a>(
    name: &'a str,
    separators: &'a [char],
) -> impl Iterator<Item = Cow<'a, str>> + 'a {
    let name = name.trim_start_matches(['[', ']']);
    name.split(separators).map(|step| plain(step.split(']').next().unwrap_or_default().trim()))
}

fn place_of(steps: &[Cow<'_, str>], path: &[Cow<'_, str>]) -> LoosePlace {
    let is_number = |step: &Cow<'_, str>| step.bytes().all(|byte| byte.is_ascii_digit());
    let meets = |(wanted, step): (&Cow<'_, str>, &Cow<'_, str>)| {
        *wanted == "*" || wanted == step || (step.is_empty() && is_number(wanted))
    };
    if !path.iter().zip(steps).all(meets) {
        return LoosePlace::Elsewhere;
    }
    if let Some(further) = steps.get(path.len()..) {
        return if further.iter().all(is_number) { LoosePlace::Here } else { LoosePlace::Below };
    }
    let (above, further) = path.split_at(steps.len());
    if further.iter().all(|wanted| *wanted == "*" || is_number(wanted)) {
        LoosePlace::Here
    } else if above.iter().any(|wanted| *wanted != "*") {
        LoosePlace::Above
    } else {
        LoosePlace::Elsewhere
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str, wanted: &str) -> bool {
        parameters(name.as_bytes()).any(|parameter| parameter.is_named(wanted))
    }

    #[test]
    fn a_name_has_many_spellings() {
        for name in [
            "user_id",
            "User_ID",
            "+user_id",
            "%20%09user_id",
            "user_id+",
            "user_id%00",
            "user_id%00x",
            "user_id[]",
            "user_id[0][x]",
            "[user_id]",
            "user.id",
            "user+id",
            "user[id",
            "%75ser_id",
            "a;user_id",
            "\u{feff}user_id",
        ] {
            assert!(named(name, "user_id"), "{name}");
        }
        for name in ["", "id", "user_id2", "user_id_x", "user_ids[]", "x[user_id]", "%00user_id"] {
            assert!(!named(name, "user_id"), "{name}");
        }
        assert!(named("filter[id]=1", "filter[id]") && named("a-b", "a_b"));
    }

    #[test]
    fn a_parameter_lies_at_a_pointer_or_near_it() {
        use LoosePlace::{Above, Below, Elsewhere, Here};
        for (name, pointer, place) in [
            ("ids", "ids/*", Here),
            ("ids[]", "ids/*", Here),
            ("ids[]x", "ids/*", Here),
            ("ids[", "ids/*", Here),
            ("+IDS[7]", "ids/*", Here),
            ("ids[x]", "ids/*", Here),
            ("ids[0][x]", "ids/*", Below),
            ("ids[x]", "ids", Below),
            ("ids[3]", "ids", Here),
            ("id", "ids/*", Elsewhere),
            ("items[0].id", "items/*/id", Here),
            ("items[0][id]", "items/*/id", Here),
            ("items.0.id", "items/*/id", Here),
            ("items[0]", "items/*/id", Above),
            ("items", "items/*/id", Above),
            ("items[0][name]", "items/*/id", Elsewhere),
            ("token", "*/id", Elsewhere),
            ("a/b", "a/b", Here),
            ("a.b", "a_b", Here),
            ("a.b[]", "a_b/*", Here),
            ("ids[]", "ids/0", Here),
            ("ids", "ids/0", Here),
            ("ids[1]", "ids/0", Elsewhere),
        ] {
            let parameter = parameters(name.as_bytes()).next().expect("a parameter");
            let pointer: Vec<String> = pointer.split('/').map(str::to_owned).collect();
            assert_eq!(parameter.place(&pointer), place, "{name} {pointer:?}");
        }
    }

    #[test]
    fn values_are_decoded_and_garbled_ones_are_known() {
        let all: Vec<_> = parameters(b"a=1;b=+2&c=%FF&d").collect();
        let seen: Vec<_> = all.iter().map(|one| (&*one.name, &*one.value)).collect();
        let twice = [("a", "1;b= 2"), ("c", "\u{fffd}"), ("d", ""), ("a", "1"), ("b", " 2")];
        assert_eq!(seen[..5], twice);
        assert_eq!(all[4].values().collect::<Vec<_>>(), [" 2", "2"]);
        assert!(all[1].is_garbled && !all[0].is_garbled);
    }
}
