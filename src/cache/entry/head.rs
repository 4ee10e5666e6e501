//! The head of a stored response, in little memory: what many entries have alike is kept once.
//!
//! A [`HeaderMap`] takes more than a hundred bytes for each field, and the heads of one app differ
//! in a few values. So a head is a *shape*, which all heads with the same fields share, and the
//! values that are its own.
//!
//! Invariants:
//! - The head of a hit has the lines of the head that was stored, in the same order.
//! - What lasts as long as the process is bounded by [`MAX_LASTING`]: an app may send any values.

use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, LazyLock};
use std::{iter, mem};

use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS,
    ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, AGE,
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_TYPE, HeaderMap, HeaderName,
    HeaderValue, PRAGMA, REFERRER_POLICY, SERVER, STRICT_TRANSPORT_SECURITY, VARY, VIA,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS, X_XSS_PROTECTION,
};
use parking_lot::Mutex;

use crate::semantics::cache_status::{CACHE_STATUS, X_CACHE};
use crate::units::allocated;

/// The fields whose values most responses of an app have alike.
const ALIKE: [HeaderName; 20] = [
    ACCEPT_RANGES,
    ACCESS_CONTROL_ALLOW_CREDENTIALS,
    ACCESS_CONTROL_ALLOW_HEADERS,
    ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS,
    CACHE_CONTROL,
    CONTENT_ENCODING,
    CONTENT_LANGUAGE,
    CONTENT_TYPE,
    PRAGMA,
    REFERRER_POLICY,
    SERVER,
    STRICT_TRANSPORT_SECURITY,
    VARY,
    VIA,
    X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
    X_XSS_PROTECTION,
    HeaderName::from_static("x-powered-by"),
];

/// The most bytes of names and values that are kept for as long as the process lives.
pub const MAX_LASTING: usize = 256 * 1024;

/// The bytes that a lasting text takes besides its own.
const LASTING_TEXT: usize = 64;

/// What a slot of a [`HeaderMap`] takes: a name, a value, a hash, and two places in its index.
const SLOT: usize = 112;

/// The head of a stored response, prepared for a hit: with a placeholder for each field that a hit
/// fills in, so that its copy never has to grow.
#[derive(Clone, Debug)]
pub struct StoredHead {
    shape: Arc<HeadShape>,
    /// The values that no other head has, in the order of their fields.
    own: Box<[HeaderValue]>,
}

/// What heads have alike.
#[derive(Debug)]
struct HeadShape {
    /// The fields, with the values that are alike; an empty one where each head has its own.
    fields: HeaderMap,
    /// Where the value of each field is. Empty in a head that shares nothing: all are in `fields`.
    places: Box<[ValuePlace]>,
}

/// Where the value of a field is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum ValuePlace {
    /// In the shape.
    Shape,
    /// Among the head's own values.
    Own,
    /// A hit gives it: the `Age`.
    Age,
    /// A hit gives it: the `Cache-Status`.
    Status,
    /// Among the head's own values, and a hit gives another one, which begins with it.
    OriginStatus,
}

impl ValuePlace {
    const fn is_own(self) -> bool {
        matches!(self, Self::Own | Self::OriginStatus)
    }
}

impl PartialEq for HeadShape {
    fn eq(&self, other: &Self) -> bool {
        self.places == other.places && self.fields.iter().eq(other.fields.iter())
    }
}

impl Eq for HeadShape {}

impl Hash for HeadShape {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.places.hash(state);
        self.fields.iter().for_each(|line| line.hash(state));
    }
}

impl StoredHead {
    /// A head that shares nothing. It costs no search for its like.
    #[must_use]
    pub fn alone(fields: HeaderMap) -> Self {
        let shape = HeadShape { fields, places: Box::default() };
        Self { shape: Arc::new(shape), own: Box::default() }
    }

    /// A head that shares with others what they have alike. Its own values still share the memory
    /// of `fields`.
    #[must_use]
    pub fn sharing(fields: &HeaderMap) -> Self {
        let shape = KNOWN.lock().shape_of(fields);
        let lines = fields.values().zip(&shape.places);
        let own = lines.filter(|(_, place)| place.is_own()).map(|(value, _)| value.clone());
        let own = own.collect();
        Self { shape, own }
    }

    /// Its own values.
    pub fn own_values(&self) -> impl Iterator<Item = &[u8]> {
        self.own.iter().map(HeaderValue::as_bytes)
    }

    /// The bytes of its own values.
    #[must_use]
    pub fn own_len(&self) -> usize {
        self.own.iter().map(HeaderValue::len).sum()
    }

    /// Puts slices from the front of these bytes, which repeat its own values, in their place.
    pub fn move_to(&mut self, bytes: &mut Bytes) {
        for value in &mut self.own {
            // They were a header value before, so they are one again.
            if let Ok(moved) = HeaderValue::from_maybe_shared(bytes.split_to(value.len())) {
                *value = moved;
            }
        }
    }

    /// The fields as they are stored, with the placeholders.
    #[must_use]
    pub fn to_map(&self) -> HeaderMap {
        let mut fields = self.shape.fields.clone();
        let mut own = self.own.iter();
        for (value, place) in fields.values_mut().zip(&self.shape.places) {
            if place.is_own()
                && let Some(own) = own.next()
            {
                *value = own.clone();
            }
        }
        fields
    }

    /// The fields of a hit.
    #[must_use]
    pub fn filled(&self, mut age: HeaderValue, mut status: HeaderValue) -> HeaderMap {
        let mut fields = self.shape.fields.clone();
        if self.shape.places.is_empty() {
            fields.insert(AGE, age);
            fields.insert(CACHE_STATUS, status);
            return fields;
        }
        let mut own = self.own.iter();
        for (value, place) in fields.values_mut().zip(&self.shape.places) {
            match place {
                ValuePlace::Shape => {}
                ValuePlace::Own => {
                    if let Some(own) = own.next() {
                        *value = own.clone();
                    }
                }
                ValuePlace::Age => mem::swap(value, &mut age),
                ValuePlace::Status => mem::swap(value, &mut status),
                ValuePlace::OriginStatus => {
                    own.next();
                    mem::swap(value, &mut status);
                }
            }
        }
        fields
    }

    /// The `Cache-Status` of the origin.
    #[must_use]
    pub fn origin_status(&self) -> Option<&HeaderValue> {
        if self.shape.places.is_empty() {
            return self.shape.fields.get(CACHE_STATUS).filter(|value| !value.is_empty());
        }
        let has_one = self.shape.places.contains(&ValuePlace::OriginStatus);
        has_one
            .then(|| self.lines().find(|(name, _)| **name == CACHE_STATUS))
            .flatten()
            .map(|it| it.1)
    }

    /// Its lines.
    pub fn lines(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        let places = self.shape.places.iter().chain(iter::repeat(&ValuePlace::Shape));
        let mut own = self.own.iter();
        self.shape.fields.iter().zip(places).map(move |((name, alike), place)| {
            let own = if place.is_own() { own.next() } else { None };
            (name, own.unwrap_or(alike))
        })
    }

    /// The memory it takes besides the bytes of its own values. The first heads of a shape bear
    /// what it takes.
    #[must_use]
    pub fn weight(&self) -> usize {
        // Known to the table, this head, and the one that it replaces.
        let is_shared = Arc::strong_count(&self.shape) > 3;
        let shape = if is_shared { 0 } else { self.shape.weight() };
        allocated(size_of_val(&*self.own)) + shape
    }
}

impl HeadShape {
    fn weight(&self) -> usize {
        let texts = self.fields.iter().map(|(name, value)| name.as_str().len() + value.len());
        size_of::<Self>() + self.fields.len() * (SLOT + 1) + texts.sum::<usize>()
    }
}

static KNOWN: LazyLock<Mutex<KnownShapes>> = LazyLock::new(Mutex::default);

/// The shapes in use, and the texts in them.
#[derive(Default)]
struct KnownShapes {
    shapes: HashSet<Arc<HeadShape>>,
    /// The number at which shapes that are not in use are swept out.
    sweep_at: usize,
    /// Texts that last as long as the process, so that a copy of a head counts no references:
    /// all threads would count in the same place.
    texts: HashSet<&'static str>,
    /// The bytes that they take.
    lasting: usize,
}

impl KnownShapes {
    fn shape_of(&mut self, fields: &HeaderMap) -> Arc<HeadShape> {
        let mut shape = HeaderMap::with_capacity(fields.len());
        let mut places = Vec::with_capacity(fields.len());
        for (name, value) in fields {
            let (place, value) = self.place_of(name, value);
            places.push(place);
            shape.append(self.name(name), HeaderValue::from_static(value));
        }
        // A copy has no places to spare.
        let shape = HeadShape { fields: shape.clone(), places: places.into() };
        if let Some(known) = self.shapes.get(&shape) {
            return Arc::clone(known);
        }
        if self.shapes.len() >= self.sweep_at {
            self.shapes.retain(|shape| Arc::strong_count(shape) > 1);
            // At most a quarter of them are not in use.
            self.sweep_at = (self.shapes.len() + self.shapes.len() / 4).max(64);
        }
        let shape = Arc::new(shape);
        self.shapes.insert(Arc::clone(&shape));
        shape
    }

    /// Where the value of a field is, and what stands in the shape.
    fn place_of(&mut self, name: &HeaderName, value: &HeaderValue) -> (ValuePlace, &'static str) {
        if *name == AGE {
            return (ValuePlace::Age, "0");
        }
        if *name == X_CACHE {
            return (ValuePlace::Shape, "HIT");
        }
        if *name == CACHE_STATUS {
            let is_placeholder = value.is_empty();
            let place = if is_placeholder { ValuePlace::Status } else { ValuePlace::OriginStatus };
            return (place, "");
        }
        let text = if ALIKE.contains(name) { value.to_str().ok() } else { None };
        match text.and_then(|text| self.lasting(text)) {
            Some(alike) => (ValuePlace::Shape, alike),
            None => (ValuePlace::Own, ""),
        }
    }

    /// The name, in memory of its own.
    fn name(&mut self, name: &HeaderName) -> HeaderName {
        match self.lasting(name.as_str()) {
            Some(text) => HeaderName::from_static(text),
            None => {
                HeaderName::from_bytes(name.as_str().as_bytes()).unwrap_or_else(|_| name.clone())
            }
        }
    }

    /// The same text for as long as the process lives, while there is room for it.
    fn lasting(&mut self, text: &str) -> Option<&'static str> {
        if let Some(known) = self.texts.get(text) {
            return Some(known);
        }
        let lasting = self.lasting + text.len() + LASTING_TEXT;
        if lasting > MAX_LASTING {
            return None;
        }
        self.lasting = lasting;
        let text: &'static str = Box::leak(text.into());
        self.texts.insert(text);
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;
    use crate::cache::entry::prepare;

    fn map(lines: &[(&str, &[u8])]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(
                HeaderName::from_bytes(name.as_bytes()).expect("a name"),
                HeaderValue::from_bytes(value).expect("a value"),
            );
        }
        map
    }

    fn lines<'a>(
        lines: impl Iterator<Item = (&'a HeaderName, &'a HeaderValue)>,
    ) -> Vec<(&'a str, &'a [u8])> {
        lines.map(|(name, value)| (name.as_str(), value.as_bytes())).collect()
    }

    fn any_map() -> impl Strategy<Value = HeaderMap> {
        const NAMES: [&str; 7] =
            ["etag", "content-type", "x-one", "link", "vary", "cache-status", "date"];
        const VALUES: [&[u8]; 4] = [b"", b"a", b"b, c", b"\xe4\xf6"];
        let line = (select(&NAMES), select(&VALUES));
        let lines = proptest::collection::vec(line, 0..12);
        lines.prop_map(|lines| {
            let mut map = map(&lines);
            prepare(&mut map);
            map
        })
    }

    proptest! {
        #[test]
        fn r1364_a_stored_head_has_the_lines_that_it_was_made_of(
            one in any_map(), other in any_map(),
        ) {
            let [age, status] = ["7", "ours"].map(HeaderValue::from_static);
            let mut hit = one.clone();
            hit.insert(AGE, age.clone());
            hit.insert(CACHE_STATUS, status.clone());
            let kept = StoredHead::sharing(&one);
            let beside = StoredHead::sharing(&other);
            let mut moved = kept.clone();
            let mut bytes = Bytes::from(moved.own_values().collect::<Vec<_>>().concat());
            moved.move_to(&mut bytes);
            prop_assert!(bytes.is_empty());
            for head in [&kept, &moved, &StoredHead::alone(one.clone())] {
                let map = head.to_map();
                prop_assert_eq!(lines(map.iter()), lines(one.iter()));
                prop_assert_eq!(lines(head.lines()), lines(one.iter()));
                let filled = head.filled(age.clone(), status.clone());
                prop_assert_eq!(lines(filled.iter()), lines(hit.iter()));
                let origin = one.get(CACHE_STATUS).filter(|value| !value.is_empty());
                prop_assert_eq!(head.origin_status(), origin);
            }
            prop_assert_eq!(lines(beside.lines()), lines(other.iter()));
        }
    }

    #[test]
    fn r1365_heads_with_the_same_fields_share_what_is_alike() {
        let head = |etag: &str, server: &[u8]| {
            let lines: [(&str, &[u8]); 4] = [
                ("server", server),
                ("x-r1365", b"its own"),
                ("etag", etag.as_bytes()),
                ("content-type", b"text/html"),
            ];
            StoredHead::sharing(&map(&lines))
        };
        let (one, other) = (head("\"1\"", b"a"), head("\"2\"", b"a"));
        assert!(Arc::ptr_eq(&one.shape, &other.shape));
        assert_eq!((one.own.len(), one.own_len()), (2, 10), "the etag, and an unknown field");
        assert_ne!(one.to_map(), other.to_map());
        assert!(!Arc::ptr_eq(&one.shape, &head("\"1\"", b"b").shape), "another server");
        let _four = [one.clone(), one.clone()];
        assert!(one.weight() < 100, "{}: the first ones bear the shape", one.weight());
        assert!(StoredHead::alone(one.to_map()).weight() > 4 * SLOT);
    }

    #[test]
    fn r1366_what_lasts_is_bounded_and_what_is_not_in_use_is_dropped() {
        let mut known = KnownShapes::default();
        for number in 0..20_000 {
            let (name, value) = (format!("x-{number}"), format!("server {number}"));
            let fields = map(&[("server", value.as_bytes()), (&name, b"v")]);
            let shape = known.shape_of(&fields);
            assert!(shape.fields.contains_key(&*name) && shape.fields.len() == 2);
        }
        assert!(known.lasting <= MAX_LASTING);
        assert!(known.shapes.len() <= 64, "{}", known.shapes.len());
        let full = known.shape_of(&map(&[("server", b"one too many")]));
        assert!(full.places[0].is_own(), "an entry has it for itself");
    }
}
