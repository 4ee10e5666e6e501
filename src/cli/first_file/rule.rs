//! A route of a first file, with its purge rules, and what tells its callers apart.

use crate::policy::session::SessionFormat;

/// A route with its purge rules.
#[derive(Clone, Debug, Default)]
pub struct FileRule {
    /// Why it is there.
    pub reasons: Vec<String>,
    pub path: String,
    /// `shadow`, or none for a route that serves.
    pub mode: Option<&'static str>,
    pub ttl: String,
    /// None for `private`.
    pub scope: Option<String>,
    pub credential_headers: Vec<String>,
    pub key_headers: Vec<String>,
    /// The cookie with a signed session that tells who asks.
    pub session: Option<FileSession>,
    /// The claim of a token that tells groups of callers apart.
    pub claim: Option<FileClaim>,
    pub drop_headers: Vec<String>,
    /// The parameters that count; none for all.
    pub query: Option<Vec<String>>,
    /// The parameters that do not count; then all others do.
    pub without_parameters: Vec<String>,
    /// The `ttl` counts, whatever the app says.
    pub overrules: bool,
    pub tag: String,
    /// Tags that the operator purges by hand.
    pub more_tags: Vec<String>,
    /// The paths at which writes purge its tag.
    pub purges: Vec<String>,
    /// Paths that it matches and must not.
    pub kept_out: Vec<String>,
}

/// A cookie with a session that the app signs anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSession {
    pub cookie: String,
    pub format: SessionFormat,
    /// How old a signature may be.
    pub max_age: String,
    /// Some requests have none.
    pub is_optional: bool,
}

impl FileSession {
    /// The variable of the environment with the secret of the app.
    pub const fn variable(&self) -> &'static str {
        match self.format {
            SessionFormat::Flask => "FLASK_SECRET",
            SessionFormat::Django => "DJANGO_SECRET",
            SessionFormat::Express => "COOKIE_SESSION_SECRET",
        }
    }
}

/// A claim of tokens that the app accepts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileClaim {
    pub name: String,
    /// What signs the tokens: secrets, or public keys, not both.
    pub algorithms: Vec<String>,
    /// Who makes them, and for whom; none where they do not say so.
    pub issuers: Vec<String>,
    pub audiences: Vec<String>,
}

impl FileClaim {
    /// The variable of the environment with what verifies the tokens, and the key of `[jwt]`.
    pub fn variable(&self) -> (&'static str, &'static str) {
        let is_hmac = self.algorithms.iter().all(|algorithm| algorithm.starts_with("HS"));
        if is_hmac { ("JWT_SECRET", "secret") } else { ("JWKS_URL", "jwks_url") }
    }
}
