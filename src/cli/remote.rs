//! Client of a running sidecar's admin API: finds its address and its token, and turns error
//! responses into messages.
//!
//! SECURITY: the token is never printed. There is no option for it, because every user of the
//! machine can read command lines (`ps`) and shells store them in their history.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use http::header::{
    ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, HeaderValue, USER_AGENT,
};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::timeout;

use self::stream::EventStream;
use super::error::CommandError;
use super::format::{clean, clean_lines};
use super::http::{Endpoint, block_on};
use crate::config::Config;
use crate::input_file::{self, MAX_TOKEN_BYTES};
use crate::secret::Secret;

pub(super) mod stream;

/// How long a response may take, connecting included. A purge waits for the other sidecars, at most
/// until their leases expire.
const DEADLINE: Duration = Duration::from_secs(10);
/// The largest response that is read.
const MAX_RESPONSE: usize = 16 * 1024 * 1024;
/// The default port of the admin listener.
const ADMIN_PORT: u16 = 9090;
const TOKEN_VARIABLE: &str = "SIDECACHE_ADMIN_TOKEN";

/// The options that locate a running sidecar.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "The running sidecar")]
pub(super) struct RemoteArgs {
    /// The address of its admin listener, as http://HOST:PORT. Default: `[admin] address` of
    /// --config.
    #[arg(long, env = "SIDECACHE_ADMIN", hide_env_values = true, value_name = "URL")]
    admin: Option<String>,
    /// A file that contains the admin token. Default: `$SIDECACHE_ADMIN_TOKEN`, then `[admin]` of
    /// --config. There is no option for the token itself, because other users can read command
    /// lines.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// Where the token came from, for messages.
#[derive(Clone, Copy, Debug)]
enum TokenSource {
    File,
    Environment,
    Config,
}

/// A client for one admin API.
pub(super) struct Remote {
    endpoint: Endpoint,
    /// Which setting gave the address, and how to set another one.
    named_by: String,
    token: Option<(HeaderValue, TokenSource)>,
}

/// Why a request has no response that can be used.
#[derive(Debug)]
pub(super) enum RemoteError {
    /// Nobody answered, or nobody had a place: another try may succeed.
    Unreachable(CommandError),
    /// The sidecar does not want the request: another try would end the same way.
    Refused(CommandError),
}

/// A complete response.
#[derive(Debug)]
pub(super) struct RemoteReply {
    pub(super) status: StatusCode,
    pub(super) text: String,
    path: &'static str,
    endpoint: String,
}

impl RemoteArgs {
    /// Finds the sidecar. The file need not exist if `--admin` is given.
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
                (place, format!("the address is from --admin or $SIDECACHE_ADMIN{file}"))
            }
            (None, Ok(config)) => (
                Endpoint::for_listener(config.admin.address),
                format!("{}; set another with --admin URL or $SIDECACHE_ADMIN", said(config)),
            ),
            (None, Err(diagnostics)) => return Err(CommandError::NoAddress(diagnostics.clone())),
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
            let text = input_file::read_text(file, MAX_TOKEN_BYTES).map_err(|error| {
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
                    "the token from {source} has characters that cannot be sent in a header"
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
    /// The address, for the confirmation prompt.
    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Sends a request and waits for the whole response, on a runtime of its own: see
    /// [`Remote::ask`].
    pub(super) fn send(
        &self,
        method: &Method,
        path: &'static str,
        body: Option<&Value>,
    ) -> Result<RemoteReply, CommandError> {
        self.send_to(method, (path, path), body)
    }

    /// Gets the resource at a path, with this query.
    pub(super) fn get(&self, path: &'static str, query: &str) -> Result<RemoteReply, CommandError> {
        self.send_to(&Method::GET, (path, &format!("{path}?{query}")), None)
    }

    fn send_to(
        &self,
        method: &Method,
        target: (&'static str, &str),
        body: Option<&Value>,
    ) -> Result<RemoteReply, CommandError> {
        block_on(self.ask_at(method, target, body))
            .map_err(|error| CommandError::Failed(error.to_string()))?
            .map_err(RemoteError::into_error)
    }

    /// Sends a request and waits for the whole response. Returns any status except 401 and 404,
    /// which are errors for every request.
    pub(super) async fn ask(
        &self,
        method: &Method,
        path: &'static str,
        body: Option<&Value>,
    ) -> Result<RemoteReply, RemoteError> {
        self.ask_at(method, (path, path), body).await
    }

    async fn ask_at(
        &self,
        method: &Method,
        (path, target): (&'static str, &str),
        body: Option<&Value>,
    ) -> Result<RemoteReply, RemoteError> {
        let reply = async {
            let (_sender, response) =
                self.exchange(method, target, "application/json", body).await?;
            self.whole(path, response).await
        };
        let reply = timeout(DEADLINE, reply).await.unwrap_or_else(|_| Err(self.late(path)))?;
        self.known(path, reply.status)?;
        Ok(reply)
    }

    /// Opens a stream of events. `query` begins with a question mark, or is empty.
    pub(super) async fn open(
        &self,
        path: &'static str,
        query: &str,
    ) -> Result<EventStream, RemoteError> {
        let target = format!("{path}{query}");
        let opening = async {
            let (sender, response) =
                self.exchange(&Method::GET, &target, "text/event-stream", None).await?;
            self.known(path, response.status())?;
            if response.status().is_success() {
                return Ok(EventStream::new(sender, response.into_body()));
            }
            let reply = self.whole(path, response).await?;
            Err(RemoteError::from_status(reply.status, reply.failure()))
        };
        timeout(DEADLINE, opening).await.unwrap_or_else(|_| Err(self.late(path)))
    }

    /// Sends a request, and returns the head of the response. The sender keeps the connection.
    async fn exchange(
        &self,
        method: &Method,
        target: &str,
        accept: &'static str,
        body: Option<&Value>,
    ) -> Result<(SendRequest<Full<Bytes>>, Response<Incoming>), RemoteError> {
        let path = target.split('?').next().unwrap_or_default();
        let unreachable =
            |error: &dyn fmt::Display| RemoteError::Unreachable(self.unreachable(path, error));
        let (mut sender, address) =
            self.endpoint.connect().await.map_err(|error| unreachable(&error))?;
        let mut request = Request::builder()
            .method(method)
            .uri(target)
            // Send the resolved address: the listener rejects unknown names, because anyone can
            // point a name at it (DNS rebinding).
            .header(HOST, address)
            .header(USER_AGENT, concat!("sidecache/", env!("CARGO_PKG_VERSION")))
            .header(ACCEPT, accept);
        if let Some((token, _)) = &self.token {
            request = request.header(AUTHORIZATION, token);
        }
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let bytes = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        let request = request.body(Full::new(bytes)).map_err(|error| unreachable(&error))?;
        let response = sender.send_request(request).await.map_err(|error| unreachable(&error))?;
        Ok((sender, response))
    }

    /// Reads a response to its end.
    async fn whole(
        &self,
        path: &'static str,
        response: Response<Incoming>,
    ) -> Result<RemoteReply, RemoteError> {
        let (head, body) = response.into_parts();
        let whole = Limited::new(body, MAX_RESPONSE).collect().await;
        let whole =
            whole.map_err(|error| RemoteError::Unreachable(self.unreachable(path, &error)))?;
        Ok(RemoteReply {
            status: head.status,
            text: String::from_utf8_lossy(&whole.to_bytes()).into_owned(),
            path,
            endpoint: self.endpoint.to_string(),
        })
    }

    /// Whether the sidecar knows the path and the token.
    fn known(&self, path: &str, status: StatusCode) -> Result<(), RemoteError> {
        match status {
            StatusCode::UNAUTHORIZED => Err(RemoteError::Refused(self.unauthorized())),
            StatusCode::NOT_FOUND => Err(RemoteError::Refused(CommandError::Failed(format!(
                "the sidecar at {} has no {path}: its version differs from this command's ({})",
                self.endpoint,
                env!("CARGO_PKG_VERSION"),
            )))),
            _ => Ok(()),
        }
    }

    fn late(&self, path: &str) -> RemoteError {
        let why = format!("no response within {} s", DEADLINE.as_secs());
        RemoteError::Unreachable(self.unreachable(path, &why))
    }

    fn unreachable(&self, path: &str, why: &dyn fmt::Display) -> CommandError {
        CommandError::Failed(format!(
            "no response from the sidecar's admin listener at {}{path}: {}\n  is it running? {}",
            self.endpoint,
            clean(&why.to_string()),
            self.named_by
        ))
    }

    fn unauthorized(&self) -> CommandError {
        let why = match &self.token {
            Some((_, source)) => {
                format!("the sidecar at {} rejects the token from {source}", self.endpoint)
            }
            None => format!(
                "the sidecar at {} needs the admin token, but none was found",
                self.endpoint
            ),
        };
        CommandError::Failed(format!(
            "{why}\n  the token is read from --token-file FILE, else $SIDECACHE_ADMIN_TOKEN, else \
             `token` or `token_file` in `[admin]` of --config"
        ))
    }
}

impl RemoteError {
    pub(super) fn into_error(self) -> CommandError {
        match self {
            Self::Unreachable(error) | Self::Refused(error) => error,
        }
    }

    fn from_status(status: StatusCode, error: CommandError) -> Self {
        if status.is_server_error() { Self::Unreachable(error) } else { Self::Refused(error) }
    }
}

impl RemoteReply {
    /// The response if its status is a success, else an error.
    pub(super) fn error_for_status(self) -> Result<Self, CommandError> {
        if self.status.is_success() { Ok(self) } else { Err(self.failure()) }
    }

    /// The error that an error response describes.
    pub(super) fn failure(&self) -> CommandError {
        let said: Value = serde_json::from_str(&self.text).unwrap_or_default();
        let member = |name: &str| said.get(name).and_then(Value::as_str).map(clean_lines);
        let error = member("error").unwrap_or_else(|| {
            clean(self.text[..self.text.floor_char_boundary(200)].trim()).into_owned()
        });
        let hint = member("hint").map(|hint| format!("\n  hint: {hint}")).unwrap_or_default();
        CommandError::Failed(format!(
            "the sidecar at {} rejected {}: {}: {error}{hint}",
            self.endpoint, self.path, self.status
        ))
    }

    /// Deserializes the body. Unknown members are ignored, and missing ones have a default.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, CommandError> {
        serde_json::from_str(&self.text).map_err(|error| {
            let hint =
                "the server may be of another version, or no sidecar; --json shows the response \
                 unchanged";
            CommandError::Failed(format!(
                "cannot read the response to {} from {}: {error}\n  {hint}",
                self.path, self.endpoint
            ))
        })
    }
}

/// Parses a header given on the command line.
pub(super) fn read_header(given: &str) -> Result<(String, String), CommandError> {
    let refused = |what: String| {
        Err(CommandError::Usage(format!(
            "-H: {what}; write a name, a `:` and a value, as in -H 'x-tenant-id: acme'"
        )))
    };
    let Some((name, value)) = given.split_once(':') else {
        return refused(without_colon(given.trim()));
    };
    let (name, value) = (name.trim(), value.trim());
    // SECURITY: a header may be a credential, so the message shows at most its name.
    if HeaderName::from_bytes(name.as_bytes()).is_err() {
        return refused(format!("{name:?} is not a valid header name"));
    }
    if HeaderValue::from_str(value).is_err() {
        return refused(format!("the value of {name:?} has characters that no header can carry"));
    }
    Ok((name.to_owned(), value.to_owned()))
}

/// What was typed in place of a header. SECURITY: it may be a value alone, such as a token, so only
/// what looks like a name is repeated.
fn without_colon(given: &str) -> String {
    let looks_like_name = |text: &str| {
        (1..=40).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphabetic() || b == b'-' || b == b'_')
    };
    let (name, rest) = given.split_at(given.find(['=', ' ']).unwrap_or(given.len()));
    match rest.chars().next() {
        None if looks_like_name(name) => format!("{name:?} has no `:` and no value"),
        Some(between) if looks_like_name(name) => {
            format!("{name:?} is followed by `{between}` in place of a `:`")
        }
        _ => format!("a text of {} characters has no `:`", given.chars().count()),
    }
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

    #[test]
    fn a_header_without_a_colon_says_what_was_typed() {
        for (typed, what) in [
            ("nocolon", "\"nocolon\" has no `:` and no value"),
            ("x-tenant-id=hunter2", "\"x-tenant-id\" is followed by `=` in place of a `:`"),
            ("x-tenant-id hunter2", "\"x-tenant-id\" is followed by ` ` in place of a `:`"),
            ("hunter2", "a text of 7 characters has no `:`"),
            ("", "a text of 0 characters has no `:`"),
            ("x y: hunter2", "\"x y\" is not a valid header name"),
            ("x: hunter2\nb", "the value of \"x\" has characters that no header can carry"),
        ] {
            let CommandError::Usage(said) = read_header(typed).unwrap_err() else {
                panic!("{typed:?} is a mistake of usage")
            };
            assert!(said.contains(what) && said.contains("-H 'x-tenant-id: acme'"), "{said}");
            assert!(!said.contains("hunter2"), "{said}");
        }
    }
}
