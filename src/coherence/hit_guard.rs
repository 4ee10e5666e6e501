//! Which mutations keep hits on their tags away while they are in flight.

/// When a mutation keeps hits away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HitGuard {
    /// Never: nobody is answered before the purge is proven.
    Never,
    /// Where writes are refused while Redis is lost: it may be lost between the mark and the purge.
    IfRefusing,
    /// Its purge rule says so.
    Always,
}
