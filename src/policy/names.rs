//! Guesses from the name of a header or a cookie what its value is for. Used for warnings only.

/// The probable purpose of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// Proves the caller's identity: a key, a token, a session.
    Credential,
    /// Names the caller, or on whose behalf it calls.
    Caller,
    /// Holds the address of the client.
    Address,
    /// Selects the response: a language, a host, another method.
    Choice,
    /// By which apps choose a response, and which the key or a constant takes care of.
    Negotiated,
    /// Addresses caches: a condition, a range, a directive.
    Cache,
}

#[rustfmt::skip]
const CREDENTIALS: &[&str] = &[
    "authorization", "cookie", "token", "session", "sessionid", "phpsessid", "jsessionid", "sid",
    "jwt", "auth", "apikey", "secret", "password", "nonce", "signature", "bearer", "credential",
    "credentials", "ticket", "otp", "saml", "spiffe", "passport", "cookies", "sso", "authtoken",
    "accesstoken", "idtoken", "refreshtoken", "appkey", "oauth", "oauth2", "dpop",
];

#[rustfmt::skip]
const CALLERS: &[&str] = &[
    "user", "userid", "username", "uid", "account", "accountid", "customer", "member", "tenant",
    "tenantid", "org", "organization", "organisation", "workspace", "team", "role", "roles",
    "email", "login", "principal", "identity", "impersonate", "from", "group", "groups", "oidc",
    "authenticated", "cert", "certificate", "dn", "subject", "actor", "employee", "viewer",
    "profile", "persona", "subscriber", "subscription", "owner", "person", "patient", "student",
    "company", "companyid", "project", "projectid", "realm", "shop", "shopid", "merchant",
    "partner", "vendor", "onbehalfof", "behalf", "permission", "permissions", "scope", "scopes",
    "claims", "entitlements", "acl", "usr", "whoami", "nick", "nickname", "phone", "msisdn", "imsi",
    "ssn", "customerid", "clientid", "acct", "acctid", "useremail", "userinfo", "visitor", "guest",
    "cart", "basket", "buyer", "seller", "operator", "admin", "sudo", "acting", "nameid", "upn",
    "orgid", "sub", "azp", "clearance", "privilege", "privileges", "capabilities", "rights",
    "entitlement", "player", "gamertag", "consumer", "deviceid", "clientcert", "department",
];

/// Headers in which proxies and content delivery networks tell the client's address.
#[rustfmt::skip]
const ADDRESSES: &[&str] = &[
    "forwarded", "x-forwarded-for", "x-original-forwarded-for", "x-real-ip", "true-client-ip",
    "client-ip", "x-client-ip", "x-cluster-client-ip", "cf-connecting-ip", "cf-connecting-ipv6",
    "cf-pseudo-ipv4", "fastly-client-ip", "fly-client-ip", "x-azure-clientip", "x-azure-socketip",
    "x-appengine-user-ip", "x-envoy-external-address", "x-vercel-forwarded-for",
    "x-nf-client-connection-ip", "x-remote-ip", "x-remote-addr", "remote-addr", "proxy-client-ip",
    "wl-proxy-client-ip",
];

const CHOICES: &[&str] = &[
    "language", "lang", "locale", "currency", "country", "region", "timezone", "tz", "device",
    "override",
];

/// Headers about the original target of a request: apps build links and redirects from them.
#[rustfmt::skip]
const REWRITES: &[&str] = &[
    "x-forwarded-host", "x-forwarded-server", "x-forwarded-proto",
    "x-forwarded-scheme", "x-forwarded-port", "x-forwarded-prefix", "x-forwarded-ssl",
    "x-forwarded-uri", "x-forwarded-method", "x-host", "x-original-host", "x-original-url",
    "x-original-uri", "x-rewrite-url",
];

const NEGOTIATED: &[&str] =
    &["accept", "accept-encoding", "accept-language", "origin", "content-type", "user-agent"];

#[rustfmt::skip]
const CACHE: &[&str] = &[
    "cache-control", "pragma", "range", "if-range", "if-match", "if-none-match",
    "if-modified-since", "if-unmodified-since",
];

/// Headers of tracing and delivery, by which no app answers.
pub const DELIVERY: &[&str] = &[
    "cdn-loop",
    "cf-ray",
    "cf-visitor",
    "cf-warp-tag-id",
    "newrelic",
    "sentry-trace",
    "x-amz-cf-id",
    "x-amzn-requestid",
    "x-akamai-edgescape-trace",
    "x-azure-ref",
    "x-datadog-origin",
    "x-datadog-parent-id",
    "x-datadog-sampling-priority",
    "x-datadog-tags",
    "x-datadog-trace-id",
    "x-envoy-attempt-count",
    "x-envoy-expected-rq-timeout-ms",
    "x-fastly-trace",
    "x-newrelic-id",
    "x-newrelic-transaction",
    "x-nginx-request-id",
    "x-ot-span-context",
    "x-request-start",
    "x-varnish",
    "x-vercel-id",
];

/// Guesses from the words of a name.
pub fn meaning(name: &str) -> Option<Meaning> {
    let name = name.to_ascii_lowercase();
    if NEGOTIATED.contains(&name.as_str()) {
        return Some(Meaning::Negotiated);
    }
    if CACHE.contains(&name.as_str()) {
        return Some(Meaning::Cache);
    }
    // Anti-forgery tokens are as good as random, and `user-agent` does not name a user.
    if ["csrf", "xsrf", "user-agent"].iter().any(|harmless| name.contains(harmless)) {
        return None;
    }
    if ADDRESSES.contains(&name.as_str()) {
        return Some(Meaning::Address);
    }
    if REWRITES.contains(&name.as_str()) {
        return Some(Meaning::Choice);
    }
    let words: Vec<&str> = name.split(['-', '_', '.']).collect();
    let any = |list: &[&str]| words.iter().any(|word| list.contains(word));
    let pair = |first: &[&str], second: &str| {
        words.windows(2).any(|pair| pair[1] == second && first.contains(&pair[0]))
    };
    let is_key = pair(&["api", "access", "app", "subscription", "license"], "key");
    if is_key || any(CREDENTIALS) {
        Some(Meaning::Credential)
    } else if pair(&["client", "app", "application", "device"], "id") || any(CALLERS) {
        Some(Meaning::Caller)
    } else if any(CHOICES) {
        Some(Meaning::Choice)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_what_a_value_does() {
        for name in [
            "Authorization",
            "cookie",
            "x-api-key",
            "apikey",
            "x-access-key",
            "ocp-apim-subscription-key",
            "x-authtoken",
            "dpop",
            "x-auth-token",
            "app_session",
            "PHPSESSID",
            "connect.sid",
        ] {
            assert_eq!(meaning(name), Some(Meaning::Credential), "{name}");
        }
        for name in ["Forwarded", "X-Forwarded-For", "x-real-ip", "CF-Connecting-IP"] {
            assert_eq!(meaning(name), Some(Meaning::Address), "{name}");
        }
        for name in [
            "x-tenant-id",
            "X-User-Id",
            "x-account-id",
            "x_role",
            "x-org",
            "from",
            "x-forwarded-groups",
            "x-ssl-client-cert",
            "x-amzn-oidc-data",
            "x-company-id",
            "x-on-behalf-of",
            "x-permissions",
            "sudo",
            "x-userinfo",
            "x-client-id",
            "x-msisdn",
            "x-is-admin",
        ] {
            assert_eq!(meaning(name), Some(Meaning::Caller), "{name}");
        }
        for name in ["Accept", "accept-language", "Origin", "content-type", "User-Agent"] {
            assert_eq!(meaning(name), Some(Meaning::Negotiated), "{name}");
        }
        for name in ["Range", "if-none-match", "cache-control"] {
            assert_eq!(meaning(name), Some(Meaning::Cache), "{name}");
        }
        for name in ["x-forwarded-host", "x-http-method-override", "x-currency", "x-original-url"] {
            assert_eq!(meaning(name), Some(Meaning::Choice), "{name}");
        }
        for name in [
            "x-user-agent",
            "x-request-id",
            "x-csrf-token",
            "x-client",
            "x-key",
            "monkey",
            "x-tracing",
        ] {
            assert_eq!(meaning(name), None, "{name}");
        }
    }
}
