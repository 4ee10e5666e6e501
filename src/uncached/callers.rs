//! What callers of a sidecar without routes carry: signed sessions, and tokens with claims. Nothing
//! of it is verified, and all of it is bounded.
//!
//! SECURITY: strangers write cookies and tokens as they please. A session counts only in a cookie
//! that the app has set, a claim only in a token that the app has accepted.

use std::sync::Arc;

use crate::policy::jwt::Algorithm;
use crate::policy::session::SessionFormat;
use crate::policy::varying_keys::slot;

/// The most session cookies that are told apart, and how many of their values are known to be the
/// app's.
pub const MAX_SESSION_COOKIES: usize = 8;
const SIGNED_VALUES: usize = 8192;
/// The most names of claims that are remembered.
pub const MAX_CLAIM_NAMES: usize = 32;
/// The most issuers, and the most audiences, of tokens that are counted.
const MAX_SAID: usize = 8;
/// One token of so many is rare.
const RARE_TOKENS: u64 = 20;
/// The most values of one response that are remembered.
pub const MAX_SIGNED: usize = 4;

/// A session cookie of a read. Nothing of it is verified.
#[derive(Clone, Debug)]
pub struct SessionFacts {
    pub cookie: SessionCookie,
    /// A keyed hash of the cookie and its value.
    pub value: u64,
    /// A keyed hash of who asks, with the payload in place of the cookie.
    pub caller: u64,
    /// The response sets the same payload again, and no other cookie; `kept_for` is for how many
    /// seconds browsers keep it, if the response says so.
    pub is_renewed: bool,
    pub kept_for: Option<u64>,
    /// The response may be stored, as far as its head says, without the cookie that it sets.
    pub is_storable: bool,
    pub may_overrule: bool,
}

/// A cookie with a signed session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionCookie {
    pub name: Box<str>,
    pub format: SessionFormat,
}

/// A cookie with a signed session that the app sets again and again.
#[derive(Clone, Debug)]
pub struct SeenSession {
    pub cookie: SessionCookie,
    /// The least number of seconds for which a response has told browsers to keep it; `None` if one
    /// has not said so: then nobody knows for how long the app accepts it.
    pub kept_for: Option<u64>,
}

/// What the trail remembers of a session cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrailSession {
    /// The place of the cookie in the list of all.
    pub cookie: u8,
    pub caller: u64,
    pub is_renewed: bool,
    pub is_storable: bool,
    pub may_overrule: bool,
}

/// What a token says of itself. Nothing of it is verified.
#[derive(Clone, Debug)]
pub struct TokenFacts {
    pub algorithm: Algorithm,
    pub issuer: Option<Box<str>>,
    pub audience: Option<Box<str>>,
}

/// What the tokens that the app has accepted say of themselves.
#[derive(Clone, Debug, Default)]
pub struct KnownTokens {
    pub algorithms: Usual<Algorithm>,
    pub issuers: Usual<Box<str>>,
    pub audiences: Usual<Box<str>>,
}

/// What tokens say in one place.
///
/// SECURITY: an app accepts any token on a page that is for everybody. What is rare is a
/// stranger's, and neither names anything nor hides what others say.
#[derive(Clone, Debug)]
pub struct Usual<T> {
    /// How many tokens say this.
    said: Vec<(T, u64)>,
    /// All tokens, with those that say nothing or something else.
    tokens: u64,
}

impl<T> Default for Usual<T> {
    fn default() -> Self {
        Self { said: Vec::new(), tokens: 0 }
    }
}

impl<T: Clone + Eq> Usual<T> {
    /// What usual tokens say; nothing if some of them say nothing, or too many different things.
    pub fn all(&self) -> impl Iterator<Item = &T> {
        let most_rare = self.tokens / RARE_TOKENS;
        let usual = move |count: u64| count > most_rare;
        let named: u64 = self.said.iter().map(|(_, count)| count).filter(|n| usual(**n)).sum();
        let is_clear = self.tokens - named <= most_rare;
        self.said.iter().filter(move |(_, count)| is_clear && usual(*count)).map(|(said, _)| said)
    }

    fn note(&mut self, said: Option<&T>) {
        self.tokens += 1;
        let Some(said) = said else { return };
        if let Some((_, count)) = self.said.iter_mut().find(|(known, _)| known == said) {
            *count += 1;
        } else if self.said.len() < MAX_SAID {
            self.said.push((said.clone(), 1));
        } else if let Some(rarest) = self.said.iter_mut().min_by_key(|(_, count)| *count) {
            // What comes with most tokens soon has a count that nothing rare takes away.
            *rarest = (said.clone(), 1);
        }
    }
}

/// A claim of a token. Nothing of it is verified.
#[derive(Clone, Debug)]
pub struct SeenClaim {
    pub name: Box<str>,
    /// Keyed hashes.
    pub key: u64,
    pub value: u64,
}

/// A name of claims. The rarest one gives its place away, with its count.
#[derive(Debug)]
struct KnownClaim {
    key: u64,
    name: Arc<str>,
    count: u64,
}

/// What is known of them.
#[derive(Clone, Debug, Default)]
pub struct SeenCallers {
    pub session_cookies: Vec<SeenSession>,
    /// Claims of tokens that the app has accepted, by keyed hashes of their names.
    pub claims: Vec<(u64, Arc<str>)>,
    /// What these tokens say of themselves.
    pub tokens: KnownTokens,
}

/// What is remembered of them.
#[derive(Debug, Default)]
pub struct TrailCallers {
    /// All but the claims, which are counted.
    known: SeenCallers,
    claims: Vec<KnownClaim>,
    /// Hashes of cookies that the app has set, each at the place that it names.
    signed: Vec<u64>,
}

impl TrailCallers {
    /// What is known of them.
    #[must_use]
    pub fn known(&self) -> SeenCallers {
        let claims = self.claims.iter().map(|known| (known.key, Arc::clone(&known.name)));
        SeenCallers { claims: claims.collect(), ..self.known.clone() }
    }

    /// What is remembered of the claims of a token that the app has accepted. SECURITY: what
    /// strangers name once takes no place from what comes with most requests.
    pub fn claims(
        &mut self,
        claims: &[SeenClaim],
        token: Option<&TokenFacts>,
    ) -> Box<[(u64, u64)]> {
        for claim in claims {
            self.note_claim(claim);
        }
        if let Some(token) = token {
            let known = &mut self.known.tokens;
            known.algorithms.note(Some(&token.algorithm));
            known.issuers.note(token.issuer.as_ref());
            known.audiences.note(token.audience.as_ref());
        }
        claims.iter().map(|claim| (claim.key, claim.value)).collect()
    }

    fn note_claim(&mut self, claim: &SeenClaim) {
        if let Some(known) = self.claims.iter_mut().find(|known| known.key == claim.key) {
            known.count += 1;
            return;
        }
        let mut new = KnownClaim { key: claim.key, name: (&*claim.name).into(), count: 1 };
        if self.claims.len() < MAX_CLAIM_NAMES {
            self.claims.push(new);
        } else if let Some(rarest) = self.claims.iter_mut().min_by_key(|known| known.count) {
            new.count += rarest.count;
            *rarest = new;
        }
    }

    /// The app has set these cookies.
    pub fn sign(&mut self, values: &[u64]) {
        for value in values {
            self.signed.resize(SIGNED_VALUES, 0);
            self.signed[slot(*value, SIGNED_VALUES)] = *value;
        }
    }

    /// What is remembered of a session. SECURITY: a value counts only if the app has set it lately,
    /// and a cookie gets a place only when the app has set it again. Whatever strangers write there
    /// is nobody's session, and takes no place.
    pub fn session(&mut self, facts: &SessionFacts) -> Option<TrailSession> {
        if self.signed.get(slot(facts.value, SIGNED_VALUES)) != Some(&facts.value) {
            return None;
        }
        let cookies = &mut self.known.session_cookies;
        let known = cookies.iter().position(|known| known.cookie == facts.cookie);
        let is_new = known.is_none() && facts.is_renewed && cookies.len() < MAX_SESSION_COOKIES;
        if is_new {
            let (cookie, kept_for) = (facts.cookie.clone(), facts.kept_for);
            cookies.push(SeenSession { cookie, kept_for });
        }
        let place = known.or_else(|| is_new.then(|| cookies.len() - 1))?;
        if facts.is_renewed {
            // `None` is less than any number.
            cookies[place].kept_for = cookies[place].kept_for.min(facts.kept_for);
        }
        Some(TrailSession {
            cookie: u8::try_from(place).ok()?,
            caller: facts.caller,
            is_renewed: facts.is_renewed,
            is_storable: facts.is_storable,
            may_overrule: facts.may_overrule,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(name: &str, value: u64, is_renewed: bool) -> SessionFacts {
        SessionFacts {
            cookie: SessionCookie { name: name.into(), format: SessionFormat::Flask },
            value,
            caller: 1,
            is_renewed,
            kept_for: None,
            is_storable: true,
            may_overrule: true,
        }
    }

    #[test]
    fn what_strangers_write_takes_no_place() {
        let mut callers = TrailCallers::default();
        for at in 0..10_000_u64 {
            // Never set by the app; and set by it once, by a login, but never again.
            assert_eq!(callers.session(&session(&format!("a{at}"), at + 1, true)), None);
            callers.sign(&[at + 1]);
            assert_eq!(callers.session(&session(&format!("b{at}"), at + 1, false)), None);
        }
        callers.sign(&[7]);
        let own = callers.session(&session("session", 7, true)).expect("the app's own");
        assert_eq!((own.cookie, callers.known().session_cookies.len()), (0, 1));
        assert!(callers.signed.len() <= SIGNED_VALUES);
    }

    #[test]
    fn names_of_claims_are_bounded_and_usual_ones_stay() {
        let mut callers = TrailCallers::default();
        let claim = |name: &str, key| SeenClaim { name: name.into(), key, value: 1 };
        for at in 0..10_000_u64 {
            callers.claims(&[claim("tenant", 1), claim(&format!("c{at}"), at + 2)], None);
        }
        let known = callers.known().claims;
        assert!(known.len() <= MAX_CLAIM_NAMES);
        assert!(known.iter().any(|(key, name)| (*key, &**name) == (1, "tenant")));
    }

    #[test]
    fn r1486_a_session_is_kept_as_long_as_its_shortest_renewal_says() {
        let kept_for = |renewals: &[(bool, Option<u64>)]| {
            let mut callers = TrailCallers::default();
            for (is_renewed, kept_for) in renewals {
                callers.sign(&[7]);
                let facts =
                    SessionFacts { kept_for: *kept_for, ..session("session", 7, *is_renewed) };
                callers.session(&facts);
            }
            callers.known().session_cookies[0].kept_for
        };
        assert_eq!(kept_for(&[(true, Some(60)), (true, Some(30)), (true, Some(90))]), Some(30));
        // A read that does not renew it says nothing.
        assert_eq!(kept_for(&[(true, Some(60)), (false, None)]), Some(60));
        assert_eq!(kept_for(&[(true, Some(60)), (true, None), (true, Some(90))]), None);
        assert_eq!(kept_for(&[(true, None), (true, Some(60))]), None);
    }

    fn issuers(tokens: impl IntoIterator<Item = Option<String>>) -> Vec<String> {
        let mut callers = TrailCallers::default();
        for issuer in tokens {
            let token = TokenFacts {
                algorithm: Algorithm::HS256,
                issuer: issuer.map(Box::from),
                audience: None,
            };
            callers.claims(&[], Some(&token));
        }
        let tokens = callers.known().tokens;
        assert_eq!(tokens.algorithms.all().collect::<Vec<_>>(), [&Algorithm::HS256]);
        assert_eq!(tokens.audiences.all().count(), 0);
        tokens.issuers.all().map(ToString::to_string).collect()
    }

    #[test]
    fn issuers_are_named_only_if_all_tokens_have_one() {
        let of = |names: &[Option<&str>]| issuers(names.iter().map(|name| name.map(str::to_owned)));
        assert_eq!(of(&[Some("a"), Some("b"), Some("a")]), ["a", "b"]);
        assert!(of(&[Some("a"), None]).is_empty());
        let names: Vec<_> = (0..=MAX_SAID).map(|at| Some(at.to_string())).collect();
        assert!(issuers(names).is_empty());
    }

    /// A page that is for everybody takes any token.
    #[test]
    fn r1487_a_few_tokens_of_strangers_change_nothing() {
        let own = || (0..1000).map(|_| Some("own".to_owned()));
        let forged = || (0..40).map(|at| (at % 2 == 0).then(|| format!("forged-{at}")));
        assert_eq!(issuers(own().chain(forged())), ["own"]);
        assert_eq!(issuers(forged().chain(own())), ["own"]);
        // Of many, nobody knows which are the app's.
        let many = || (0..1000).map(|at| Some(format!("forged-{at}")));
        assert!(issuers(own().chain(many())).is_empty());
    }
}
