//! An issuer of tokens: keys, the JWKS that it publishes, and tokens signed by them.

use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::rsa::{KeyPair, PublicKeyComponents};
use ring::signature::RSA_PKCS1_SHA256;
use serde_json::{Value, json};

use super::origin::{Origin, Response};

/// Where the keys are, below the issuer's address.
pub const JWKS_PATH: &str = "/keys";

/// An RSA key of 2048 bits in PKCS #8, for tests alone.
const RSA_KEYS: [&[u8]; 2] = [include_bytes!("keys/rsa1.pk8"), include_bytes!("keys/rsa2.pk8")];

/// A key of the issuer.
pub struct IssuerKey {
    id: &'static str,
    pair: KeyPair,
}

impl IssuerKey {
    /// The first or the second key, with this id.
    pub fn new(which: usize, id: &'static str) -> Self {
        Self { id, pair: KeyPair::from_pkcs8(RSA_KEYS[which]).expect("a key") }
    }

    /// The public key as it is published.
    pub fn jwk(&self) -> Value {
        let PublicKeyComponents::<Vec<u8>> { n, e } = self.pair.public().into();
        let (n, e) = (URL_SAFE_NO_PAD.encode(n), URL_SAFE_NO_PAD.encode(e));
        json!({ "kty": "RSA", "kid": self.id, "use": "sig", "alg": "RS256", "n": n, "e": e })
    }

    /// The public key in PEM.
    pub fn pem(&self) -> String {
        // The identifier of RSA, and then the key as PKCS #1 in a bit string.
        let key = self.pair.public().as_ref();
        let head = [0x30, 13, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 5, 0];
        let bits = [&[0x03][..], &length(key.len() + 1), &[0], key].concat();
        let info = [&head[..], &bits].concat();
        let der = [&[0x30][..], &length(info.len()), &info].concat();
        let text = STANDARD.encode(der);
        format!("-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n")
    }

    /// A token with this header and these claims.
    pub fn sign_with(&self, header: &Value, claims: &Value) -> String {
        let message = message(header, claims);
        let mut signature = vec![0; self.pair.public().modulus_len()];
        let random = SystemRandom::new();
        self.pair
            .sign(&RSA_PKCS1_SHA256, &random, message.as_bytes(), &mut signature)
            .expect("a signature");
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// A token of this issuer for `api` that counts for ten minutes, with further claims.
    pub fn sign(&self, claims: &Value) -> String {
        self.sign_with(&json!({ "alg": "RS256", "typ": "JWT", "kid": self.id }), &full(claims))
    }

    /// The same as the value of `Authorization`.
    pub fn bearer(&self, claims: &Value) -> String {
        format!("Bearer {}", self.sign(claims))
    }

    /// A token signed by HMAC with the public key as its secret: PEM, as a careless app holds it.
    pub fn confused(&self, claims: &Value) -> String {
        let message = message(&json!({ "alg": "HS256", "kid": self.id }), &full(claims));
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, self.pem().as_bytes());
        let signature = ring::hmac::sign(&key, message.as_bytes());
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// A length in DER.
fn length(length: usize) -> Vec<u8> {
    let length = u16::try_from(length).expect("short");
    [&[0x82][..], &length.to_be_bytes()].concat()
}

fn message(header: &Value, claims: &Value) -> String {
    let [header, claims] = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
    format!("{header}.{claims}")
}

/// Now, in seconds since 1970.
#[allow(clippy::disallowed_methods, reason = "the issuer has a clock of its own")]
pub fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.expect("after 1970").as_secs()
}

/// Claims as the issuer makes them, with these among or in the place of them.
pub fn full(claims: &Value) -> Value {
    let mut all = json!({ "iss": "https://issuer.test", "aud": "api", "exp": now() + 600 });
    for (name, value) in claims.as_object().expect("an object") {
        all[name] = value.clone();
    }
    all
}

/// A server that publishes a JWKS, which a test replaces.
pub struct Issuer {
    /// The server.
    pub server: Origin,
    answer: Arc<Mutex<(u16, String)>>,
}

impl Issuer {
    /// Publishes these keys.
    pub fn start(keys: &[Value]) -> Self {
        let answer = Arc::new(Mutex::new((200, json!({ "keys": keys }).to_string())));
        let current = Arc::clone(&answer);
        let server = Origin::start(move |_| {
            let (status, text) = current.lock().unwrap_or_else(PoisonError::into_inner).clone();
            Response::status(status, text)
        });
        Self { server, answer }
    }

    /// Publishes these from now on.
    pub fn publish(&self, keys: &[Value]) {
        self.answer(200, json!({ "keys": keys }).to_string());
    }

    /// Answers so from now on.
    pub fn answer(&self, status: u16, text: impl Into<String>) {
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = (status, text.into());
    }

    /// How often it was asked for its keys.
    pub fn fetches(&self) -> usize {
        self.server.count("GET", JWKS_PATH)
    }

    /// The URL of its keys.
    pub fn url(&self) -> String {
        format!("http://{}{JWKS_PATH}", self.server.address)
    }
}
