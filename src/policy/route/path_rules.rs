//! How the paths of a route are read, where origins differ.

/// Whether the case of the literal segments of a route's path counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathCase {
    /// It counts.
    Exact,
    /// ASCII letters match in any case. The key, and the origin on a fill, get them as the route
    /// has them.
    Ignore,
}

/// What to do with a path that holds an escaped slash (`%2f`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncodedSlash {
    /// Such a request is never cached: the origin may read it as a slash, or not.
    Pass,
    /// It is a part of its segment: the operator states that the origin never reads it as a slash.
    Keep,
}
