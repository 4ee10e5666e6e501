//! How frameworks sign session cookies.

/// How a framework signs its session cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SessionFormat {
    /// itsdangerous, as Flask uses it: salt `cookie-session`, HMAC-SHA1.
    Flask,
    /// `django.contrib.sessions.backends.signed_cookies`: HMAC-SHA256.
    Django,
    /// cookie-session of Express: the signature is in a cookie of its own, by HMAC-SHA1, without a
    /// time.
    Express,
}

impl SessionFormat {
    /// All formats, in the order of their discriminants.
    pub const ALL: [Self; 3] = [Self::Flask, Self::Django, Self::Express];

    /// The word in `proxy.toml` and in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Flask => "flask",
            Self::Django => "django",
            Self::Express => "express",
        }
    }

    /// How a value looks signed, by its form alone. For suggestions only.
    #[must_use]
    pub fn guess(value: &[u8]) -> Option<Self> {
        const SHA1_CHARS: usize = 27;
        const SHA256_CHARS: usize = 43;
        let begins = |text: &[u8]| text.starts_with(b"eyJ") || text.starts_with(b".eJ");
        let is_flask = |value: &[u8]| {
            let mut parts = value.rsplit(|&byte| byte == b'.');
            let lengths = (parts.next()?.len(), parts.next()?.len());
            let time = 6..=8;
            (lengths.0 == SHA1_CHARS && time.contains(&lengths.1)).then_some(Self::Flask)
        };
        let is_django = |value: &[u8]| {
            let mut parts = value.rsplit(|&byte| byte == b':');
            let lengths = (parts.next()?.len(), parts.next()?.len());
            let is_last = parts.count() == 1;
            (lengths.0 == SHA256_CHARS && lengths.1 == 6 && is_last).then_some(Self::Django)
        };
        let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/=".contains(byte);
        let is_express =
            || (value.starts_with(b"eyJ") && value.iter().all(is_plain)).then_some(Self::Express);
        begins(value).then(|| is_flask(value).or_else(|| is_django(value)).or_else(is_express))?
    }

    /// Whether the signature covers the time at which it was made.
    #[must_use]
    pub const fn has_time(self) -> bool {
        !matches!(self, Self::Express)
    }
}
