//! A running sidecar's admin API, as the commands see it: where it is, with which token, and what a
//! refusal means.
//!
//! SECURITY: the token is sent and never shown. It is not taken from the command line, which every
//! user of the machine can read (`ps`), and which shells keep in their history.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use http::header::{
    ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, HeaderValue, USER_AGENT,
};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::timeout;

use super::format::{clean, clean_lines};
use super::http::{Endpoint, block_on};
use crate::config::{Config, Diagnostics};
use crate::secret::Secret;

/// How long an answer may take, the connection included. Purges wait for the other sidecars, at
/// most for their lease.
const DEADLINE: Duration = Duration::from_secs(10);
/// The largest answer that is read.
const MAX_RESPONSE: usize = 16 * 1024 * 1024;
/// The admin listener's port where none is named.
const ADMIN_PORT: u16 = 9090;
const TOKEN_VARIABLE: &str = "SIDECACHE_ADMIN_TOKEN";

/// How a running sidecar is found.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "The running sidecar")]
pub(super) struct RemoteArgs {
    /// Its admin listener, as http://HOST:PORT. Without it: `[admin] address` of --config.
    #[arg(long, env = "SIDECACHE_ADMIN", hide_env_values = true, value_name = "URL")]
    admin: Option<String>,
    /// A file that holds the admin token. Without it: `$SIDECACHE_ADMIN_TOKEN`, then `[admin]` of
    /// --config. There is no option for the token itself: others can read command lines.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// Why a command did not do what it was told.
#[derive(Debug)]
pub(super) enum CommandError {
    /// The file cannot be used.
    Config(Diagnostics),
    /// The file cannot be used, and nothing else says where the sidecar is.
    NoAddress(Diagnostics),
    /// The command line cannot be used.
    Usage(String),
    /// It was tried.
    Failed(String),
}

impl CommandError {
    /// Tells it, and returns the exit code.
    pub(super) fn report(&self) -> ExitCode {
        match self {
            Self::Config(problems) => super::print_diagnostics(problems),
            Self::NoAddress(problems) => {
                super::print_diagnostics(problems);
                super::print_failure(
                    &"`[admin]` of that file says where the sidecar is; name it with --admin URL or $SIDECACHE_ADMIN instead",
                );
                super::EXIT_USAGE.into()
            }
            Self::Usage(why) => {
                super::print_failure(why);
                super::EXIT_USAGE.into()
            }
            Self::Failed(why) => super::print_failure(why),
        }
    }
}

/// Where the token came from, in words.
#[derive(Clone, Copy, Debug)]
enum TokenSource {
    File,
    Environment,
    Config,
}

/// An admin API that can be asked.
pub(super) struct Remote {
    endpoint: Endpoint,
    /// Which setting names the place, and how to name another.
    named_by: String,
    token: Option<(HeaderValue, TokenSource)>,
}

/// An answer, whole.
#[derive(Debug)]
pub(super) struct RemoteReply {
    pub(super) status: StatusCode,
    pub(super) text: String,
    path: &'static str,
    endpoint: String,
}

impl RemoteArgs {
    /// The sidecar that is meant. The file need not exist when `--admin` is given.
    pub(super) fn resolve(&self, path: &Path) -> Result<Remote, CommandError> {
        let loaded = Config::load(path);
        let said = |config: &Config| {
            format!("`[admin] address` of {} is {}", path.display(), config.admin.address)
        };
        let (place, named_by) = match (&self.admin, &loaded) {
            (Some(given), loaded) => {
                let place = Endpoint::parse(given, ADMIN_PORT).map_err(|why| {
                    CommandError::Usage(format!("--admin (or $SIDECACHE_ADMIN): {why}"))
                })?;
                let file =
                    loaded.as_ref().map(|config| format!("; {}", said(config))).unwrap_or_default();
                (place, format!("--admin or $SIDECACHE_ADMIN names it{file}"))
            }
            (None, Ok(config)) => (
                Endpoint::for_listener(config.admin.address),
                format!("{}; name another with --admin URL or $SIDECACHE_ADMIN", said(config)),
            ),
            (None, Err(problems)) => return Err(CommandError::NoAddress(problems.clone())),
        };
        let in_file = loaded.ok().and_then(|config| config.admin.token);
        Ok(Remote { endpoint: place, named_by, token: self.token(in_file)? })
    }

    fn token(
        &self,
        in_file: Option<Secret>,
    ) -> Result<Option<(HeaderValue, TokenSource)>, CommandError> {
        let environment =
            || std::env::var(TOKEN_VARIABLE).ok().filter(|token| !token.trim().is_empty());
        let found = if let Some(file) = &self.token_file {
            let text = std::fs::read_to_string(file).map_err(|error| {
                CommandError::Usage(format!("--token-file {}: {error}", file.display()))
            })?;
            Some((Secret::new(text), TokenSource::File))
        } else if let Some(token) = environment() {
            Some((Secret::new(token), TokenSource::Environment))
        } else {
            in_file.map(|token| (token, TokenSource::Config))
        };
        let Some((token, source)) = found else { return Ok(None) };
        let mut value = HeaderValue::from_str(&format!("Bearer {}", token.expose().trim()))
            .map_err(|_| {
                CommandError::Usage(format!(
                    "the token of {source} has characters that cannot be sent in a header"
                ))
            })?;
        value.set_sensitive(true);
        Ok(Some((value, source)))
    }
}

impl fmt::Display for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::File => "--token-file",
            Self::Environment => "$SIDECACHE_ADMIN_TOKEN",
            Self::Config => "`[admin]` of the file",
        })
    }
}

impl Remote {
    /// Where it is, for a question to the operator.
    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Asks, and waits for the whole answer. Any status is an answer, but for those that concern
    /// every question.
    pub(super) fn send(
        &self,
        method: &Method,
        path: &'static str,
        body: Option<&Value>,
    ) -> Result<RemoteReply, CommandError> {
        let conversation = async {
            timeout(DEADLINE, self.exchange(method, path, body)).await.unwrap_or_else(|_| {
                Err(self.unreachable(path, &format!("no answer within {} s", DEADLINE.as_secs())))
            })
        };
        let reply =
            block_on(conversation).map_err(|error| CommandError::Failed(error.to_string()))??;
        match reply.status {
            StatusCode::UNAUTHORIZED => Err(self.unauthorized()),
            StatusCode::NOT_FOUND => Err(CommandError::Failed(format!(
                "the sidecar at {} has no {path}: it is of another version than this command ({})",
                self.endpoint,
                env!("CARGO_PKG_VERSION"),
            ))),
            _ => Ok(reply),
        }
    }

    async fn exchange(
        &self,
        method: &Method,
        path: &'static str,
        body: Option<&Value>,
    ) -> Result<RemoteReply, CommandError> {
        let unreachable = |error: &dyn fmt::Display| self.unreachable(path, error);
        let (mut sender, address) =
            self.endpoint.connect().await.map_err(|error| unreachable(&error))?;
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            // The address that the name stands for: the listener answers to addresses, because
            // names can be pointed at it by others.
            .header(HOST, address.to_string())
            .header(USER_AGENT, concat!("sidecache/", env!("CARGO_PKG_VERSION")))
            .header(ACCEPT, "application/json");
        if let Some((token, _)) = &self.token {
            request = request.header(AUTHORIZATION, token);
        }
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let bytes = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        let request = request.body(Full::new(bytes)).map_err(|error| unreachable(&error))?;
        let (head, answer) =
            sender.send_request(request).await.map_err(|error| unreachable(&error))?.into_parts();
        let whole = Limited::new(answer, MAX_RESPONSE)
            .collect()
            .await
            .map_err(|error| unreachable(&error))?
            .to_bytes();
        Ok(RemoteReply {
            status: head.status,
            text: String::from_utf8_lossy(&whole).into_owned(),
            path,
            endpoint: self.endpoint.to_string(),
        })
    }

    fn unreachable(&self, path: &str, why: &dyn fmt::Display) -> CommandError {
        CommandError::Failed(format!(
            "no answer from the sidecar's admin listener at {}{path}: {}\n  is it running? {}",
            self.endpoint,
            clean(&why.to_string()),
            self.named_by
        ))
    }

    fn unauthorized(&self) -> CommandError {
        let why = match &self.token {
            Some((_, source)) => {
                format!("the token of {source} is not the one of the sidecar at {}", self.endpoint)
            }
            None => format!(
                "the sidecar at {} wants the admin token, and none was found",
                self.endpoint
            ),
        };
        CommandError::Failed(format!(
            "{why}\n  it is looked for in --token-file FILE, then $SIDECACHE_ADMIN_TOKEN, then `token` and `token_file` of `[admin]` in --config"
        ))
    }
}

impl RemoteReply {
    /// The answer, unless it is a refusal.
    pub(super) fn error_for_status(self) -> Result<Self, CommandError> {
        if self.status.is_success() { Ok(self) } else { Err(self.failure()) }
    }

    /// What a refusal says.
    pub(super) fn failure(&self) -> CommandError {
        let said: Value = serde_json::from_str(&self.text).unwrap_or_default();
        let member = |name: &str| said.get(name).and_then(Value::as_str).map(clean_lines);
        let error = member("error").unwrap_or_else(|| {
            clean(self.text[..self.text.floor_char_boundary(200)].trim()).into_owned()
        });
        let hint = member("hint").map(|hint| format!("\n  hint: {hint}")).unwrap_or_default();
        CommandError::Failed(format!(
            "the sidecar at {} refuses {}: {}: {error}{hint}",
            self.endpoint, self.path, self.status
        ))
    }

    /// Reads the answer. Members that this version does not know are passed over, those that are
    /// missing have a default.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, CommandError> {
        serde_json::from_str(&self.text).map_err(|error| {
            let hint =
                "it may be of another version, or no sidecar; --json shows the answer as it is";
            CommandError::Failed(format!(
                "the answer to {} from {} cannot be read: {error}\n  {hint}",
                self.path, self.endpoint
            ))
        })
    }
}

/// Reads a header of the command line.
pub(super) fn read_header(given: &str) -> Result<(String, String), CommandError> {
    let parsed = given.split_once(':').map(|(name, value)| (name.trim(), value.trim()));
    // SECURITY: a header may be a credential; what cannot be read is not repeated, but for its
    // name.
    let named = parsed.map_or("a header", |(name, _)| name);
    let valid = |(name, value): &(&str, &str)| {
        HeaderName::from_bytes(name.as_bytes()).is_ok() && HeaderValue::from_str(value).is_ok()
    };
    parsed.filter(valid).map(|(name, value)| (name.to_owned(), value.to_owned())).ok_or_else(|| {
        CommandError::Usage(format!(
            "-H: {named:?} cannot be read; write it as in -H 'x-tenant-id: acme'"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_a_name_and_a_value() {
        assert_eq!(
            read_header(" x-tenant-id :acme ").unwrap(),
            ("x-tenant-id".to_owned(), "acme".to_owned())
        );
        for bad in ["hunter2", "a b: hunter2", "x: hunter2\nb"] {
            let CommandError::Usage(said) = read_header(bad).unwrap_err() else {
                panic!("{bad:?} is a mistake of usage")
            };
            assert!(!said.contains("hunter2"), "{said}");
        }
    }
}
