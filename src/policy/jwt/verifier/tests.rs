//! What counts as a verified token, what is remembered of it, and what ends that.

use std::time::Duration;

use jsonwebtoken::Algorithm;
use proptest::prelude::*;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::{Value, json};

use super::super::{parse_jwks, parse_pem};
use super::*;

const MINUTE: Duration = Duration::from_mins(1);

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// What signs by ES256.
struct Signer {
    id: &'static str,
    pair: EcdsaKeyPair,
    random: SystemRandom,
}

impl Signer {
    fn new(id: &'static str) -> Self {
        let random = SystemRandom::new();
        let kind = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(kind, &random).expect("a key");
        let pair = EcdsaKeyPair::from_pkcs8(kind, pkcs8.as_ref(), &random).expect("a key");
        Self { id, pair, random }
    }

    fn jwk(&self) -> Value {
        let point = self.pair.public_key().as_ref();
        let (x, y) = (encode(&point[1..33]), encode(&point[33..]));
        json!({ "kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": self.id, "use": "sig" })
    }

    fn key(&self) -> VerifyKey {
        set(&[self.jwk()]).remove(0)
    }

    fn sign_text(&self, header: &str, claims: &str) -> String {
        let message = format!("{}.{}", encode(header), encode(claims));
        let signature = self.pair.sign(&self.random, message.as_bytes()).expect("a signature");
        format!("{message}.{}", encode(signature))
    }

    fn sign(&self, claims: &Value) -> String {
        let header = json!({ "alg": "ES256", "kid": self.id, "typ": "JWT" });
        self.sign_text(&header.to_string(), &claims.to_string())
    }
}

fn by_secret(secret: &[u8], header: &str, claims: &str) -> String {
    let message = format!("{}.{}", encode(header), encode(claims));
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret);
    let signature = ring::hmac::sign(&key, message.as_bytes());
    format!("{message}.{}", encode(signature))
}

fn set(jwks: &[Value]) -> Vec<VerifyKey> {
    let text = json!({ "keys": jwks }).to_string();
    parse_jwks(text.as_bytes(), &[Algorithm::ES256, Algorithm::RS256]).expect("keys")
}

fn rules() -> TokenRules {
    TokenRules {
        algorithms: [Algorithm::ES256, Algorithm::RS256].into(),
        issuers: ["https://issuer".into()].into(),
        audiences: ["api".into(), "web".into()].into(),
        leeway: Duration::ZERO,
        capacity: 100,
    }
}

struct Setup {
    verifier: TokenVerifier,
    clock: Clock,
    counters: TokenCounters,
}

impl Setup {
    fn new(rules: TokenRules, keys: KeyStore) -> Self {
        let (clock, counters) = (Clock::manual(), TokenCounters::default());
        let pointers = ["/tenant".into(), "/org/id".into()].into();
        let (keys, counts) = (Arc::new(keys), counters.clone());
        let verifier = TokenVerifier::new(rules, pointers, keys, counts, clock.clone());
        Self { verifier, clock, counters }
    }

    fn fixed(key: VerifyKey) -> Self {
        Self::new(rules(), KeyStore::new(vec![key], None))
    }

    /// Claims that are right for a minute, with these in the place of others.
    #[allow(clippy::needless_pass_by_value, reason = "a literal at each call")]
    fn claims(&self, others: Value) -> Value {
        let now = self.clock.wall().seconds();
        let mut claims = json!({ "iss": "https://issuer", "aud": "api", "exp": now + 60 });
        for (name, value) in others.as_object().expect("an object") {
            claims[name] = value.clone();
            if value == "(none)" {
                claims.as_object_mut().expect("an object").remove(name);
            }
        }
        claims
    }

    fn fault(&self, token: &str) -> Option<TokenFault> {
        self.verifier.verify(token.as_bytes(), false).err()
    }

    fn tenant(&self, token: &str) -> Result<Option<ClaimValue>, TokenFault> {
        Ok(self.verifier.verify(token.as_bytes(), false)?.claim("/tenant").cloned())
    }
}

#[test]
fn the_claims_of_a_verified_token_are_read() {
    let signer = Signer::new("one");
    let setup = Setup::fixed(signer.key());
    let token = signer.sign(&setup.claims(json!({ "tenant": "acme", "org": { "id": 7 } })));
    let verified = setup.verifier.verify(token.as_bytes(), false).expect("verified");
    let text = |pointer| verified.claim(pointer).map(|value| (&*value.text, value.is_string));
    assert_eq!(text("/tenant"), Some(("acme", true)));
    assert_eq!(text("/org/id"), Some(("7", false)));
    assert_eq!(text("/iss"), None, "no field reads it");
    assert_eq!(verified.key_id.as_deref(), Some("one"));
    for odd in [json!(["acme"]), json!({ "a": 1 }), json!(null), json!(1.5)] {
        let token = signer.sign(&setup.claims(json!({ "tenant": odd })));
        assert_eq!(setup.tenant(&token), Ok(None), "{odd}");
    }
}

#[test]
fn claims_decide_on_a_token_whose_signature_is_right() {
    let signer = Signer::new("one");
    let setup = Setup::fixed(signer.key());
    let now = setup.clock.wall().seconds();
    for (claims, expected) in [
        (json!({ "exp": now + 3 }), None),
        (serde_json::from_str(&format!(r#"{{"exp":{}.5}}"#, now + 3)).expect("JSON"), None),
        (json!({ "aud": ["other", "web"] }), None),
        (json!({ "nbf": now - 1 }), None),
        (json!({ "exp": now - 1 }), Some(TokenFault::Expired)),
        (json!({ "exp": now }), Some(TokenFault::Expired)),
        (json!({ "exp": 0 }), Some(TokenFault::Expired)),
        (json!({ "exp": (now + 60).to_string() }), Some(TokenFault::Claims)),
        (json!({ "exp": null }), Some(TokenFault::Claims)),
        (json!({ "exp": -5 }), Some(TokenFault::Claims)),
        (json!({ "exp": "(none)" }), Some(TokenFault::Claims)),
        (json!({ "nbf": now + 60 }), Some(TokenFault::NotYet)),
        (json!({ "nbf": "0" }), Some(TokenFault::Claims)),
        (json!({ "nbf": 1e300 }), Some(TokenFault::NotYet)),
        (json!({ "iss": "https://issuer/" }), Some(TokenFault::OtherIssuer)),
        (json!({ "iss": ["https://issuer"] }), Some(TokenFault::OtherIssuer)),
        (json!({ "iss": "(none)" }), Some(TokenFault::OtherIssuer)),
        (json!({ "aud": "apis" }), Some(TokenFault::OtherAudience)),
        (json!({ "aud": ["x", ["api"]] }), Some(TokenFault::OtherAudience)),
        (json!({ "aud": [] }), Some(TokenFault::OtherAudience)),
        (json!({ "aud": "(none)" }), Some(TokenFault::OtherAudience)),
    ] {
        let token = signer.sign(&setup.claims(claims.clone()));
        assert_eq!(setup.fault(&token), expected, "{claims}");
    }
    let header = r#"{"alg":"ES256","kid":"one"}"#;
    for claims in [
        format!(r#"{{"iss":"https://issuer","aud":"api","exp":{0},"exp":{0}}}"#, now + 60),
        format!(r#"{{"iss":"https://issuer","aud":"api","exp":{},"a":{{"b":1,"b":1}}}}"#, now + 60),
        "[]".to_owned(),
        "7".to_owned(),
        "[".repeat(5000),
        String::new(),
    ] {
        let token = signer.sign_text(header, &claims);
        assert_eq!(setup.fault(&token), Some(TokenFault::Claims), "{claims:.40}");
    }
}

#[test]
fn clocks_may_differ_by_the_leeway() {
    let signer = Signer::new("one");
    let rules = TokenRules { leeway: MINUTE, ..rules() };
    let setup = Setup::new(rules, KeyStore::new(vec![signer.key()], None));
    let now = setup.clock.wall().seconds();
    for (claims, expected) in [
        (json!({ "exp": now - 30 }), None),
        (json!({ "exp": now - 61 }), Some(TokenFault::Expired)),
        (json!({ "nbf": now + 30 }), None),
        (json!({ "nbf": now + 90 }), Some(TokenFault::NotYet)),
    ] {
        let token = signer.sign(&setup.claims(claims.clone()));
        assert_eq!(setup.fault(&token), expected, "{claims}");
    }
}

#[test]
fn a_forged_token_is_not_verified() {
    let (signer, stranger) = (Signer::new("one"), Signer::new("one"));
    let setup = Setup::fixed(signer.key());
    let claims = setup.claims(json!({ "tenant": "acme" })).to_string();
    let good = signer.sign_text(r#"{"alg":"ES256","kid":"one"}"#, &claims);
    assert_eq!(setup.fault(&good), None);
    let parts: Vec<&str> = good.split('.').collect();
    let point = signer.pair.public_key().as_ref();
    let own_jwk = json!({ "alg": "ES256", "kid": "one", "jwk": stranger.jwk() }).to_string();
    let other = encode(claims.replace("acme", "evil"));
    for (forged, expected) in [
        (stranger.sign_text(r#"{"alg":"ES256","kid":"one"}"#, &claims), TokenFault::Signature),
        (stranger.sign_text(r#"{"alg":"ES256"}"#, &claims), TokenFault::Signature),
        // The header brings its own key.
        (stranger.sign_text(&own_jwk, &claims), TokenFault::Signature),
        (stranger.sign_text(r#"{"alg":"ES256","kid":"two"}"#, &claims), TokenFault::UnknownKey),
        (
            stranger.sign_text(r#"{"alg":"ES256","kid":"../../dev/null"}"#, &claims),
            TokenFault::UnknownKey,
        ),
        (signer.sign_text(r#"{"alg":"ES384","kid":"one"}"#, &claims), TokenFault::Algorithm),
        (signer.sign_text(r#"{"alg":"RS256","kid":"one"}"#, &claims), TokenFault::UnknownKey),
        (signer.sign_text(r#"{"alg":"es256","kid":"one"}"#, &claims), TokenFault::NotJwt),
        (signer.sign_text(r#"{"alg":"none"}"#, &claims), TokenFault::NotJwt),
        (signer.sign_text(r#"{"kid":"one"}"#, &claims), TokenFault::NotJwt),
        (
            signer.sign_text(r#"{"alg":"ES256","alg":"ES256","kid":"one"}"#, &claims),
            TokenFault::NotJwt,
        ),
        (
            signer.sign_text(r#"{"alg":"ES256","kid":"one","crit":["b64"],"b64":false}"#, &claims),
            TokenFault::NotJwt,
        ),
        // The public key as the secret of an HMAC.
        (by_secret(point, r#"{"alg":"HS256","kid":"one"}"#, &claims), TokenFault::Algorithm),
        (format!("{}.{}.", encode(r#"{"alg":"none"}"#), parts[1]), TokenFault::NotJwt),
        (format!("{}.{}.", parts[0], parts[1]), TokenFault::NotJwt),
        (format!("{}.{other}.{}", parts[0], parts[2]), TokenFault::Signature),
        (format!("{good}="), TokenFault::Signature),
        (format!("{good}.x"), TokenFault::NotJwt),
        (format!("x.{good}"), TokenFault::NotJwt),
        (format!("{good} "), TokenFault::Signature),
        (parts[..2].join("."), TokenFault::NotJwt),
        ("..".to_owned(), TokenFault::NotJwt),
        (String::new(), TokenFault::NotJwt),
        ("a".repeat(MAX_TOKEN_BYTES + 1), TokenFault::TooLong),
    ] {
        assert_eq!(setup.fault(&forged), Some(expected), "{forged:.60}");
    }
    assert_eq!(setup.verifier.remembered(), 1, "only what is verified is remembered");
}

#[test]
fn a_public_key_is_never_a_secret() {
    let signer = Signer::new("one");
    let point = signer.pair.public_key().as_ref();
    // Even if the algorithms were mixed, which the config refuses.
    let rules = TokenRules { algorithms: [Algorithm::ES256, Algorithm::HS256].into(), ..rules() };
    let setup = Setup::new(rules, KeyStore::new(vec![signer.key()], None));
    let claims = setup.claims(json!({})).to_string();
    let forged = by_secret(point, r#"{"alg":"HS256","kid":"one"}"#, &claims);
    assert_eq!(setup.fault(&forged), Some(TokenFault::UnknownKey));
}

#[test]
fn a_secret_verifies_hmac() {
    let secret = b"a secret that nobody can guess at all";
    let rules = TokenRules { algorithms: [Algorithm::HS256].into(), ..rules() };
    let setup = Setup::new(rules, KeyStore::new(vec![VerifyKey::from_secret(secret)], None));
    let claims = setup.claims(json!({ "tenant": "acme" })).to_string();
    let header = r#"{"alg":"HS256"}"#;
    assert_eq!(setup.fault(&by_secret(secret, header, &claims)), None);
    let other = by_secret(b"another one", header, &claims);
    assert_eq!(setup.fault(&other), Some(TokenFault::Signature));
}

#[test]
fn a_remembered_token_costs_no_signature_and_ends_at_its_exp() {
    let signer = Signer::new("one");
    let setup = Setup::fixed(signer.key());
    let token = signer.sign(&setup.claims(json!({ "tenant": "acme" })));
    for _ in 0..5 {
        assert_eq!(setup.fault(&token), None);
    }
    assert_eq!(setup.counters.verified.get(), 1);
    setup.clock.advance(MINUTE);
    assert_eq!(setup.fault(&token), Some(TokenFault::Expired));
    assert_eq!(setup.verifier.remembered(), 0);
}

#[test]
fn a_remembered_token_ends_when_its_key_leaves_the_set() {
    let (one, two) = (Signer::new("one"), Signer::new("two"));
    let setup = Setup::new(rules(), KeyStore::new(Vec::new(), Some(Box::new(|| {}))));
    let keys = Arc::clone(setup.verifier.keys());
    let tokens = [&one, &two].map(|signer| signer.sign(&setup.claims(json!({}))));
    let faults = || [&tokens[0], &tokens[1]].map(|token| setup.fault(token));
    assert_eq!(faults(), [Some(TokenFault::KeysUnavailable); 2]);
    let reason = keys.status(setup.clock.wall()).degraded_reason();
    assert!(reason.is_some_and(|reason| reason.contains("not available")));

    keys.replace(set(&[one.jwk()]), setup.clock.wall(), MINUTE);
    assert_eq!(faults(), [None, Some(TokenFault::UnknownKey)]);
    assert_eq!(keys.status(setup.clock.wall()).degraded_reason(), None);
    keys.replace(set(&[one.jwk(), two.jwk()]), setup.clock.wall(), MINUTE);
    assert_eq!(faults(), [None, None]);
    assert_eq!(setup.counters.verified.get(), 2, "the first was remembered over the change");
    keys.replace(set(&[two.jwk()]), setup.clock.wall(), MINUTE);
    assert_eq!(faults(), [Some(TokenFault::UnknownKey), None]);
    // Another key under the same id.
    keys.replace(set(&[Signer::new("two").jwk()]), setup.clock.wall(), MINUTE);
    assert_eq!(faults(), [Some(TokenFault::UnknownKey), Some(TokenFault::Signature)]);
}

#[test]
fn keys_that_cannot_be_fetched_again_end_and_those_of_files_do_not() {
    let (file, fetched) = (Signer::new("file"), Signer::new("fetched"));
    let setup = Setup::new(rules(), KeyStore::new(vec![file.key()], Some(Box::new(|| {}))));
    let keys = Arc::clone(setup.verifier.keys());
    let in_an_hour = setup.clock.wall().seconds() + 3600;
    let tokens =
        [&file, &fetched].map(|signer| signer.sign(&setup.claims(json!({ "exp": in_an_hour }))));
    keys.replace(set(&[fetched.jwk()]), setup.clock.wall(), MINUTE);
    assert_eq!([0, 1].map(|at| setup.fault(&tokens[at])), [None, None]);
    assert!(keys.record_failure("broken") && !keys.record_failure("broken"));
    assert_eq!(keys.status(setup.clock.wall()).degraded_reason(), None, "they hold");
    setup.clock.advance(MINUTE);
    assert_eq!(setup.fault(&tokens[0]), None);
    assert_eq!(setup.fault(&tokens[1]), Some(TokenFault::KeysUnavailable));
    let reason = keys.status(setup.clock.wall()).degraded_reason().expect("degraded");
    assert!(reason.ends_with("broken"), "{reason}");
}

#[test]
fn there_are_no_more_remembered_tokens_than_allowed() {
    let signer = Signer::new("one");
    let setup = Setup::fixed(signer.key());
    for user in 0..300 {
        assert_eq!(setup.fault(&signer.sign(&setup.claims(json!({ "sub": user })))), None);
    }
    assert!(setup.verifier.remembered() <= 100);
    assert_eq!(setup.counters.evicted.get() + setup.verifier.remembered() as u64, 300);
}

#[test]
fn wrong_signatures_have_a_budget() {
    let (signer, stranger) = (Signer::new("one"), Signer::new("one"));
    let setup = Setup::fixed(signer.key());
    let good = signer.sign(&setup.claims(json!({ "sub": "known" })));
    assert_eq!(setup.fault(&good), None);
    let bad = stranger.sign(&setup.claims(json!({})));
    let found = (0..20_000).find(|_| setup.fault(&bad) == Some(TokenFault::TooManyBad));
    // Unless this machine verifies fewer than that in each second.
    if found.is_some() {
        assert_eq!(setup.fault(&good), None, "what is remembered goes on");
        setup.clock.advance(Duration::from_secs(2));
        assert_eq!(setup.fault(&bad), Some(TokenFault::Signature));
    }
}

#[test]
fn keys_that_are_for_something_else_are_passed_over() {
    let signer = Signer::new("one");
    let with = |others: Value| {
        let mut jwk = signer.jwk();
        for (name, value) in others.as_object().expect("an object") {
            jwk[name] = value.clone();
        }
        jwk
    };
    let secret = json!({ "kty": "oct", "k": encode("a secret that is published"), "kid": "s" });
    let short = json!({ "kty": "RSA", "n": encode([0xc1; 128]), "e": "AQAB", "kid": "r" });
    for odd in [
        with(json!({ "use": "enc" })),
        with(json!({ "key_ops": ["sign"] })),
        with(json!({ "alg": "ES384" })),
        with(json!({ "alg": "ECDH-ES" })),
        with(json!({ "crv": "P-384" })),
        with(json!({ "x": "AAAA" })),
        with(json!({ "kid": "k".repeat(300) })),
        json!({ "kty": "unheard of" }),
        json!(7),
        secret,
        short,
    ] {
        let text = json!({ "keys": [odd, signer.jwk()] }).to_string();
        let keys = parse_jwks(text.as_bytes(), &rules().algorithms).expect("one is good");
        assert_eq!(keys.len(), 1, "{odd}");
        let text = json!({ "keys": [odd] }).to_string();
        assert!(parse_jwks(text.as_bytes(), &rules().algorithms).is_err(), "{odd}");
    }
    let many = json!({ "keys": vec![signer.jwk(); 101] }).to_string();
    for text in ["", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":[]}"#, "<html>", &many] {
        assert!(parse_jwks(text.as_bytes(), &rules().algorithms).is_err(), "{text:.20}");
    }
    let large = vec![b' '; 300 * 1024];
    assert!(parse_jwks(&large, &rules().algorithms).is_err());
}

#[test]
fn a_pem_file_holds_public_keys() {
    use base64::engine::general_purpose::STANDARD;

    let signer = Signer::new("one");
    // A `SubjectPublicKeyInfo` of P-256 is these bytes and the point.
    let head = "3059301306072a8648ce3d020106082a8648ce3d030107034200";
    let head = (0..head.len()).step_by(2).map(|at| u8::from_str_radix(&head[at..at + 2], 16));
    let mut der: Vec<u8> = head.map(|byte| byte.expect("hex")).collect();
    der.extend_from_slice(signer.pair.public_key().as_ref());
    let armored = |label: &str, der: &[u8]| {
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
    };
    let pem = armored("PUBLIC KEY", &der);
    let keys = parse_pem(pem.as_bytes()).expect("a key");
    let setup = Setup::fixed(keys[0].clone());
    // A key of a file has no id, so that the token's does not matter.
    assert_eq!(setup.fault(&signer.sign(&setup.claims(json!({})))), None);
    assert_eq!(parse_pem(format!("{pem}{pem}").as_bytes()).map(|keys| keys.len()), Ok(2));
    for bad in [
        String::new(),
        armored("PRIVATE KEY", &der),
        armored("PUBLIC KEY", &der[..40]),
        armored("PUBLIC KEY", &[&der[..], &[0]].concat()),
        armored("PUBLIC KEY", b""),
    ] {
        assert!(parse_pem(bad.as_bytes()).is_err(), "{bad}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Whatever comes as a token is looked at without a panic, and is not verified.
    #[test]
    fn no_bytes_are_a_token(
        bytes in proptest::collection::vec(
            prop_oneof![Just(b'.'), Just(b'e'), Just(b'y'), Just(b'"'), any::<u8>()],
            0..200,
        ),
        header in ".{0,40}",
        claims in ".{0,80}",
    ) {
        let signer = Signer::new("one");
        let setup = Setup::fixed(signer.key());
        prop_assert!(setup.verifier.verify(&bytes, false).is_err());
        let signed = signer.sign_text(&header, &claims);
        prop_assert!(setup.fault(&signed).is_some());
        let signed = signer.sign_text(r#"{"alg":"ES256","kid":"one"}"#, &claims);
        prop_assert!(setup.fault(&signed).is_some());
    }

    /// Of a token, no byte can be another one.
    #[test]
    fn a_changed_byte_is_not_verified(at in 0usize..10_000, byte in any::<u8>()) {
        let signer = Signer::new("one");
        let setup = Setup::fixed(signer.key());
        let mut token = signer.sign(&setup.claims(json!({ "tenant": "acme" }))).into_bytes();
        let at = at % token.len();
        prop_assume!(token[at] != byte);
        token[at] = byte;
        prop_assert!(setup.verifier.verify(&token, false).is_err());
    }
}

#[test]
fn an_unknown_id_asks_for_keys_even_where_a_key_without_one_was_tried() {
    let (file, fetched, next) = (Signer::new("file"), Signer::new("one"), Signer::new("two"));
    let mut unnamed = file.jwk();
    unnamed.as_object_mut().expect("an object").remove("kid");
    let asked = Arc::<AtomicU64>::default();
    let counted = Arc::clone(&asked);
    let want = Box::new(move || {
        counted.fetch_add(1, Ordering::SeqCst);
    });
    let setup = Setup::new(rules(), KeyStore::new(set(&[unnamed]), Some(want)));
    let asked = || asked.load(Ordering::SeqCst);
    let token = next.sign(&setup.claims(json!({})));
    assert_eq!(setup.fault(&token), Some(TokenFault::KeysUnavailable), "nothing was fetched yet");
    setup.verifier.keys().replace(set(&[fetched.jwk()]), setup.clock.wall(), MINUTE);
    let forged = Signer::new("one").sign(&setup.claims(json!({})));
    assert_eq!((setup.fault(&forged), asked()), (Some(TokenFault::Signature), 0), "it is here");
    assert_eq!((setup.fault(&token), asked()), (Some(TokenFault::Signature), 1), "it may be new");
}
