//! Settings of a route that are one of a few words.

/// What a `Vary` that names cookies or credentials means, in scope `public`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VaryCookie {
    /// The response is for requests that carry neither.
    Respect,
    /// Nothing: the operator states that the response is the same for everyone.
    Ignore,
}

/// Which requests share one fill per key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Collapse {
    /// The requests to this process.
    Process,
    /// The requests to all sidecars that share one Redis.
    Cluster,
}
