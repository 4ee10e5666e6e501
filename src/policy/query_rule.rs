//! Which query parameters are in the key of a route, and in which order.
//!
//! Invariants:
//! 1. *What is not in the key is not sent*: a fill has the query of the key.
//! 2. *A query that can be read in two ways has no key*, where a rule looks at its parameters.
//! 3. *The order is forgotten only between parameters that no framework takes for one*: those of
//!    one name keep theirs, and so do those that some framework reads as one name
//!    ([`loose_parameters::base_name`]). Values stay as they are.

use std::borrow::Cow;

use smallvec::SmallVec;

use crate::policy::glob::{Glob, any_matches};
use crate::policy::loose_parameters;
use crate::policy::request_target::{self, AmbiguousQuery};

/// Which query parameters are part of the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueryRule {
    /// All of them, in the order of the request.
    All,
    /// None. They are withheld from the origin on a fill.
    None,
    /// These. The others are withheld from the origin on a fill.
    Only(Box<[Box<str>]>),
    /// All but some.
    Most(MostParameters),
}

/// All parameters but some, which are withheld from the origin on a fill.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MostParameters {
    /// The names that do not count.
    pub except: Box<[Glob]>,
    /// The names that count nevertheless, because fields read them.
    pub kept: Box<[Box<str>]>,
    /// Whether the order of different parameters counts.
    pub order: QueryOrder,
}

/// Whether the order of different parameters counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryOrder {
    /// It does.
    Keep,
    /// It does not: the origin gets them by their names.
    Ignore,
}

impl QueryOrder {
    /// The word in `proxy.toml`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Ignore => "ignore",
        }
    }
}

impl QueryRule {
    /// The query that is in the key, and that a fill has.
    ///
    /// # Errors
    /// SECURITY: parameter cloaking. The origin might read a parameter that is not in the key.
    pub fn keyed<'a>(
        &self,
        query: Option<&'a str>,
    ) -> Result<Option<Cow<'a, str>>, AmbiguousQuery> {
        let Some(query) = query else { return Ok(None) };
        let picked = match self {
            Self::All => return Ok(Some(request_target::normal_query(query))),
            Self::None => return Ok(None),
            Self::Only(names) => request_target::pick(query, names)?,
            Self::Most(most) => most.pick(query)?,
        };
        Ok((!picked.is_empty()).then_some(Cow::Owned(picked)))
    }

    /// The rule with the parameters that fields read: they are in the key, so the origin may
    /// receive them.
    #[must_use]
    pub fn with_parameters<'a>(self, read: impl Iterator<Item = &'a Box<str>>) -> Self {
        let add = |names: Box<[Box<str>]>| {
            let mut names = names.into_vec();
            for name in read {
                if !names.contains(name) {
                    names.push(name.clone());
                }
            }
            names.into_boxed_slice()
        };
        match self {
            Self::All => Self::All,
            Self::None => Self::only(add(Box::default())),
            Self::Only(names) => Self::only(add(names)),
            Self::Most(most) => {
                let kept = add(most.kept);
                Self::Most(MostParameters { kept, ..most })
            }
        }
    }

    fn only(names: Box<[Box<str>]>) -> Self {
        if names.is_empty() { Self::None } else { Self::Only(names) }
    }
}

impl MostParameters {
    /// Whether a parameter of this name, decoded, does not count.
    #[must_use]
    pub fn leaves_out(&self, name: &str) -> bool {
        any_matches(&self.except, name.as_bytes()) && !self.kept.iter().any(|kept| **kept == *name)
    }

    fn pick(&self, query: &str) -> Result<String, AmbiguousQuery> {
        let mut picked: SmallVec<[(Cow<'_, str>, &str); 8]> = SmallVec::new();
        let mut is_nested = false;
        for parameter in request_target::parameters(query) {
            let parameter = parameter.ok_or(AmbiguousQuery)?;
            if !self.leaves_out(&parameter.name) {
                is_nested |= loose_parameters::is_nested_by_dots(&parameter.name);
                picked.push((parameter.name, parameter.raw));
            }
        }
        if self.order == QueryOrder::Ignore {
            for (name, _) in &mut picked {
                let base = loose_parameters::base_name(name, is_nested);
                *name = Cow::Owned(base.ok_or(AmbiguousQuery)?);
            }
            // Stable, so that what is one name to some framework keeps its order.
            picked.sort_by(|(one, _), (two, _)| one.cmp(two));
        }
        let joined = picked.iter().map(|(_, raw)| *raw).collect::<Vec<_>>().join("&");
        Ok(match request_target::normal_query(&joined) {
            Cow::Borrowed(_) => joined,
            Cow::Owned(normal) => normal,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn most(except: &[&str], order: QueryOrder) -> QueryRule {
        QueryRule::Most(MostParameters {
            except: except.iter().copied().map(Glob::new).collect(),
            kept: Box::default(),
            order,
        })
    }

    fn keyed(rule: &QueryRule, query: &str) -> Option<String> {
        let keyed = rule.keyed(Some(query)).unwrap_or_else(|_| panic!("{query} is ambiguous"));
        keyed.map(Cow::into_owned)
    }

    #[test]
    fn excepted_parameters_leave_the_others_as_they_are() {
        let rule = most(&["utm_*", "gclid"], QueryOrder::Keep);
        for (query, expected) in [
            ("b=2&a=1", Some("b=2&a=1")),
            ("utm_source=x&b=2&gclid=1&a=%61&utm_", Some("b=2&a=%61")),
            ("%75tm_source=x&b=2", Some("b=2")),
            ("gclid2=1&xutm_a=1", Some("gclid2=1&xutm_a=1")),
            ("a=1&&a=2&", Some("a=1&a=2")),
            ("a=\u{e9}", Some("a=%C3%A9")),
            ("gclid=1&utm_a=2", None),
            ("", None),
        ] {
            assert_eq!(keyed(&rule, query).as_deref(), expected, "{query}");
        }
        for query in ["a=1;gclid=2", "a=%zz", "a%00=1"] {
            assert_eq!(rule.keyed(Some(query)), Err(AmbiguousQuery), "{query}");
        }
        assert_eq!(rule.keyed(None), Ok(None));
    }

    #[test]
    fn what_a_field_reads_counts_all_the_same() {
        let rule = most(&["utm_*"], QueryOrder::Keep);
        let rule = rule.with_parameters([&Box::from("utm_campaign")].into_iter());
        assert_eq!(keyed(&rule, "utm_campaign=1&utm_id=2").as_deref(), Some("utm_campaign=1"));
        let none = QueryRule::None.with_parameters([&Box::from("a")].into_iter());
        assert_eq!(none, QueryRule::Only([Box::from("a")].into()));
        assert_eq!(QueryRule::None.with_parameters([].into_iter()), QueryRule::None);
    }

    #[test]
    fn the_order_counts_only_between_what_may_be_one_name() {
        let rule = most(&[], QueryOrder::Ignore);
        for (query, expected) in [
            ("b=2&a=1", "a=1&b=2"),
            ("a=1&b=2", "a=1&b=2"),
            ("b=2&a=2&c=3&a=1", "a=2&a=1&b=2&c=3"),
            ("b=1&%61=2&a=3", "%61=2&a=3&b=1"),
            ("b=1&a[]=2&a=3&a[x][y]=4", "a[]=2&a=3&a[x][y]=4&b=1"),
            ("b=1&A=2&a=3", "A=2&a=3&b=1"),
            ("b=1&a-b=2&a_b=3", "a-b=2&a_b=3&b=1"),
            // PHP makes `a_b` of `a.b`, and others read `a.b` as a part of `a`.
            ("b=1&a.b=2&a=3&a_b=4", "a.b=2&a=3&a_b=4&b=1"),
            ("page_size=1&page_number=2", "page_number=2&page_size=1"),
        ] {
            assert_eq!(keyed(&rule, query).as_deref(), Some(expected), "{query}");
        }
        for query in ["a=1&b[=2", "a=1&b]=2", "a=1&[b]=2", "a=1&b[x]y=2", "a=1&b[[]]=2"] {
            assert_eq!(rule.keyed(Some(query)), Err(AmbiguousQuery), "{query}");
        }
    }

    proptest! {
        #[test]
        fn no_order_of_different_names_counts(
            values in prop::collection::vec("[a-z0-9%2]{0,3}", 5),
            order in Just(vec![0_usize, 1, 2, 3, 4]).prop_shuffle(),
        ) {
            let rule = most(&["x*"], QueryOrder::Ignore);
            let names = ["page", "sort", "x1", "Limit", "filter[a]"];
            let all: Vec<String> =
                names.iter().zip(&values).map(|(name, value)| format!("{name}={value}")).collect();
            let shuffled: Vec<&str> = order.iter().map(|&at| all[at].as_str()).collect();
            let (one, two) = (all.join("&"), shuffled.join("&"));
            prop_assert_eq!(rule.keyed(Some(&one)), rule.keyed(Some(&two)));
        }

        #[test]
        fn what_is_keyed_is_keyed_as_itself(query in "[ab]([=&.]|%5B|[ab\\[\\]])*") {
            let rule = most(&["b*"], QueryOrder::Ignore);
            if let Ok(Some(once)) = rule.keyed(Some(&query)) {
                let once = once.into_owned();
                prop_assert_eq!(rule.keyed(Some(&once)), Ok(Some(Cow::Owned(once.clone()))));
            }
        }
    }
}
