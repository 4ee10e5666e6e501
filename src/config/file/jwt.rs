//! `[jwt]`, as people write it.

use crate::config::decode::{Count, Period, TomlList, TomlString, table};
use crate::config::keywords::AlgorithmWord;

table! {
    /// How tokens (JWT) are verified whose claims are fields. A verified token supplies values and
    /// admits nobody.
    #[schemars(extend("required" = ["algorithms"]))]
    JwtSection("[jwt]", "[jwt]") {
        /// Where the issuer publishes its public keys (a JWKS): `https://`, or `http://`. The
        /// sidecar fetches it in the background, and again when a token names an unknown key.
        #[schemars(extend("examples" = [
            "https://login.example.com/realms/main/protocol/openid-connect/certs",
            "${JWKS_URL}",
        ]))]
        jwks_url: TomlString,
        /// A PEM file of roots to trust for `jwks_url` in place of the system's; relative to the
        /// folder of this file.
        ca_file: TomlString,
        /// How often the keys of `jwks_url` are fetched, 1s to 1 day.
        refresh: Period = "5m",
        /// How long the keys of `jwks_url` hold when they cannot be fetched again, 1s to 30 days.
        /// After that, requests with a token pass.
        keep_keys: Period = "24h",
        /// A file with a JWKS; relative to the folder of this file. A reload reads it again.
        jwks_file: TomlString,
        /// Files with public keys in PEM (`BEGIN PUBLIC KEY`); relative to the folder of this file.
        #[schemars(extend("examples" = [["keys/issuer.pem"]]))]
        public_key_file: TomlList<TomlString> = [],
        /// The secret of HMAC signatures, as text, at least 16 characters.
        #[schemars(extend("examples" = ["${JWT_SECRET}"]))]
        secret: TomlString,
        /// The algorithms of signatures that count: HMAC (`HS256` …) with `secret`, or those of
        /// public keys.
        #[schemars(extend("minItems" = 1, "examples" = [["RS256"], ["ES256", "EdDSA"], ["HS256"]]))]
        algorithms: TomlList<AlgorithmWord>,
        /// The issuers, of which `iss` must be one. Without this key, any.
        #[schemars(extend("examples" = [["https://login.example.com/realms/main"]]))]
        issuer: TomlList<TomlString> = [],
        /// The audiences, of which `aud` must hold one. Without this key, any.
        #[schemars(extend("examples" = [["campaigns-api"]]))]
        audience: TomlList<TomlString> = [],
        /// How far the clock of the issuer may differ: a token counts for so long after its `exp`
        /// and before its `nbf`. Up to 5 minutes.
        leeway: Period = "0s",
        /// How many verified tokens are remembered, so that a hit costs no signature.
        #[schemars(extend("minimum" = 1))]
        tokens: Count = 10_000,
    }
}
