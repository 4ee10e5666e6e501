//! Why a session cookie gives no value.

/// Why a session cookie gives no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SessionFault {
    /// The request has no such cookie.
    Absent,
    /// The request has it twice, so that the origin may read either.
    Repeated,
    /// It is longer than any that is verified.
    TooLong,
    /// It does not have the form of the format.
    Malformed,
    /// The cookie with the signature is missing.
    NoSignature,
    /// No secret gives this signature.
    BadSignature,
    /// It was signed longer ago than `max_age`.
    Expired,
    /// It was signed at a time that is still to come.
    Future,
    /// The payload is not base64, or not zlib.
    Unreadable,
    /// The payload inflates to more than is read.
    TooLarge,
    /// The payload is not JSON.
    NotJson,
    /// The payload is nested too deep.
    TooDeep,
    /// The payload has a member twice.
    RepeatedMember,
    /// There is nothing at the pointer.
    NoValue,
    /// What is at the pointer is no text, number or boolean.
    NotPlain,
    /// There are members that neither `pointer` nor `ignore` names.
    OtherMembers,
}

impl SessionFault {
    /// All faults, in the order of their discriminants.
    pub const ALL: [Self; 16] = [
        Self::Absent,
        Self::Repeated,
        Self::TooLong,
        Self::Malformed,
        Self::NoSignature,
        Self::BadSignature,
        Self::Expired,
        Self::Future,
        Self::Unreadable,
        Self::TooLarge,
        Self::NotJson,
        Self::TooDeep,
        Self::RepeatedMember,
        Self::NoValue,
        Self::NotPlain,
        Self::OtherMembers,
    ];

    /// The words in reasons. They never hold anything of the cookie.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Absent => "no cookie",
            Self::Repeated => "cookie comes twice",
            Self::TooLong => "cookie too long",
            Self::Malformed => "not a signed cookie",
            Self::NoSignature => "no signature cookie",
            Self::BadSignature => "bad signature",
            Self::Expired => "expired",
            Self::Future => "signed in the future",
            Self::Unreadable => "payload is not readable",
            Self::TooLarge => "payload too large",
            Self::NotJson => "payload is not JSON",
            Self::TooDeep => "payload too deep",
            Self::RepeatedMember => "payload repeats a member",
            Self::NoValue => "no value at the pointer",
            Self::NotPlain => "no plain value at the pointer",
            Self::OtherMembers => "other members",
        }
    }
}
