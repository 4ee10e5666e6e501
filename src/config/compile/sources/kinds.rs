//! Compiles what is particular to each kind of source: where it is, and what is listened to there.

use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use crate::config::compile::pointer::pointer;
use crate::config::context::CompileContext;
use crate::config::decode::{Located, Setting, TomlString};
use crate::config::diagnostics::diagnostic::{DiagnosticBuilder, SourceSpan};
use crate::config::file::SourceSection;
use crate::config::keywords::SourceWordKind;
use crate::config::redis_url;
use crate::input_file::MAX_CA_BYTES;
use crate::redis::{OnLoss, RedisSettings, WritePolicy};
use crate::secret::Secret;
use crate::sources::{
    FileSettings, MAX_CHANNEL, PollSettings, PostgresSettings, SourceKind, StreamSettings,
};
use crate::upstream::{Target, UpstreamAddress, UrlSource};

/// The channel that is listened to where none is named; that of `sidecache sql`.
pub const DEFAULT_CHANNEL: &str = "sidecache";

/// The stream that is read where none is named.
const DEFAULT_STREAM: &str = "sidecache:purges";

/// The longest key of a stream, in bytes.
const MAX_STREAM: usize = 512;

/// How often a URL or a file is looked at.
const EVERY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_hours(1));

/// What a source of this kind listens to. `redis` is that of the file.
pub(super) fn kind(
    word: SourceWordKind,
    located: &Located<SourceSection>,
    redis: Option<&RedisSettings>,
    context: &mut CompileContext,
) -> Option<SourceKind> {
    foreign_keys(word, &located.value, context);
    match word {
        SourceWordKind::Postgres => postgres(located, context).map(SourceKind::Postgres),
        SourceWordKind::Mysql => super::mysql::mysql(located, context).map(SourceKind::Mysql),
        SourceWordKind::RedisStream => stream(located, redis, context)
            .map(|settings| SourceKind::RedisStream(Box::new(settings))),
        SourceWordKind::Poll => poll(located, context).map(SourceKind::Poll),
        SourceWordKind::File => file(located, context).map(SourceKind::File),
        SourceWordKind::Webhook => super::webhook::webhook(located, context)
            .map(|settings| SourceKind::Webhook(Box::new(settings))),
    }
}

/// Reports keys that say nothing for a source of this kind.
fn foreign_keys(word: SourceWordKind, file: &SourceSection, context: &mut CompileContext) {
    use SourceWordKind::{File, Mysql, Poll, Postgres, RedisStream, Webhook};

    fn span<T>(slot: &Setting<T>) -> Option<&SourceSpan> {
        slot.given().map(|given| &given.span)
    }
    let keys: [(&str, Option<&SourceSpan>, &[SourceWordKind]); 15] = [
        ("url", span(&file.url), &[Postgres, Mysql, RedisStream, Poll]),
        ("channel", span(&file.channel), &[Postgres]),
        ("table", span(&file.table), &[Mysql]),
        ("max_transaction", span(&file.max_transaction), &[Mysql]),
        ("stream", span(&file.stream), &[RedisStream]),
        ("path", span(&file.path), &[File, Webhook]),
        ("every", span(&file.every), &[Mysql, Poll, File]),
        ("pointer", span(&file.pointer), &[Poll]),
        ("ca_file", span(&file.ca_file), &[Postgres, Mysql, RedisStream, Poll]),
        ("fields", span(&file.fields), &[Postgres, Mysql, RedisStream, Webhook]),
        ("secret", span(&file.secret), &[Webhook]),
        ("signature", span(&file.signature), &[Webhook]),
        ("window", span(&file.window), &[Webhook]),
        ("max_body", span(&file.max_body), &[Webhook]),
        ("degraded_ttl", span(&file.degraded_ttl), &[Postgres, Mysql, RedisStream, Poll, File]),
    ];
    for (key, span, kinds) in keys {
        let Some(span) = span.filter(|_| !kinds.contains(&word)) else { continue };
        let message = format!("`{key}` says nothing for kind = \"{}\"", word.as_str());
        let kinds: Vec<String> =
            kinds.iter().map(|kind| format!("\"{}\"", kind.as_str())).collect();
        let builder = DiagnosticBuilder::error(span.clone(), message);
        context.report.push(
            builder.hint(format!("remove it; it is for sources of kind {}", kinds.join(", "))),
        );
    }
}

/// The Redis of its own URL, or that of the file.
fn stream(
    located: &Located<SourceSection>,
    redis: Option<&RedisSettings>,
    context: &mut CompileContext,
) -> Option<StreamSettings> {
    let file = &located.value;
    let stream = stream_key(&file.stream, context);
    let ca_file = context.file(&file.ca_file, MAX_CA_BYTES).map(|(path, _)| path);
    let own = match &file.url {
        Setting::Given(url) => {
            let location = redis_url::parse(url, &mut context.report)?;
            Some(RedisSettings {
                address: location.address,
                database: location.database,
                username: location.username,
                password: location.password,
                ca_file,
                namespace: "sidecache".to_owned(),
                deadline: Duration::from_millis(100),
                loss_after: Duration::from_secs(1),
                write_wait: Duration::from_secs(5),
                connections: 1,
                lease: Duration::from_secs(2),
                rejoin_grace: Duration::from_secs(2),
                on_redis_loss: OnLoss::Memory,
                degraded_ttl: Duration::from_secs(2),
                writes: WritePolicy::Forward,
                journal: None,
                wait_replicas: 0,
                secret: None,
                compress: None,
            })
        }
        Setting::Bad => return None,
        Setting::Absent | Setting::Default(_) => None,
    };
    if let Some(given) = file.ca_file.given().filter(|_| own.is_none()) {
        let message = "`ca_file` has no effect without `url`: the Redis is that of [redis]";
        let builder = DiagnosticBuilder::error(given.span.clone(), message);
        context.report.push(builder.hint("remove it, or name the Redis of the stream in `url`"));
    }
    let Some(redis) = own.or_else(|| redis.cloned()) else {
        if !context.redis_left_out {
            let message = "it is unknown in which Redis the stream is: there is no [redis]";
            let builder = DiagnosticBuilder::error(located.span.clone(), message);
            context.report.push(builder.hint("add url = \"redis://127.0.0.1:6379/0\""));
        }
        return None;
    };
    Some(StreamSettings { redis: RedisSettings { journal: None, ..redis }, stream: stream? })
}

fn stream_key(slot: &Setting<TomlString>, context: &mut CompileContext) -> Option<Box<str>> {
    let given = match slot {
        Setting::Given(given) => given,
        Setting::Bad => return None,
        Setting::Absent | Setting::Default(_) => return Some(DEFAULT_STREAM.into()),
    };
    let text = given.value.as_str();
    if (1..=MAX_STREAM).contains(&text.len()) && !text.bytes().any(|b| b.is_ascii_control()) {
        return Some(text.into());
    }
    let what = format!("`{}` is not the key of a stream", given.value.shown());
    let allowed = Some("1 to 512 bytes, without control characters");
    context.report.malformed(given, "a key", what, allowed, "write it as \"sidecache:purges\"");
    None
}

fn file(located: &Located<SourceSection>, context: &mut CompileContext) -> Option<FileSettings> {
    let (file, table) = (&located.value, (&located.span, &located.value.unknown));
    let every = context.period(&file.every, EVERY.0, EVERY.1);
    let example = "path = \"/var/lib/sync/last-run\"";
    file.path.required("path", table, example, &mut context.report)?;
    // It need not be there yet.
    let path = context.path(&file.path)?;
    Some(FileSettings { path, every })
}

fn poll(located: &Located<SourceSection>, context: &mut CompileContext) -> Option<PollSettings> {
    let (file, table) = (&located.value, (&located.span, &located.value.unknown));
    let every = context.period(&file.every, EVERY.0, EVERY.1);
    let example = "url = \"http://127.0.0.1:8000/sync/status\"";
    let url = file.url.required("url", table, example, &mut context.report);
    let pointer = match &file.pointer {
        Setting::Given(text) => Some(pointer(text, context)?),
        _ => None,
    };
    let ca_file = context.file(&file.ca_file, MAX_CA_BYTES).map(|(path, _)| path);
    let url = url_source(&web_url(url?, context)?, ca_file)?;
    Some(PollSettings { url, every, pointer })
}

/// Where to connect for a URL of `http` or `https`, and what to ask for there.
pub fn url_source(url: &Url, ca_file: Option<PathBuf>) -> Option<UrlSource> {
    let (host, port) = (url.host_str()?, url.port_or_known_default()?);
    let authority = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    let address = UpstreamAddress::Tcp {
        tls: url.scheme() == "https",
        host: host.trim_start_matches('[').trim_end_matches(']').into(),
        port,
    };
    let target = Target { address, authority: authority.into() };
    let path = url[url::Position::BeforePath..].into();
    Some(UrlSource { target, path, ca_file })
}

/// A URL of `http` or `https`. Its text may hold a password, so no message repeats it.
pub fn web_url(text: &Located<TomlString>, context: &mut CompileContext) -> Option<Url> {
    const FORM: &str = "http://HOST[:PORT]/PATH, or https://";
    let lower = text.value.as_str().to_ascii_lowercase();
    let (what, hint) = match Url::parse(text.value.as_str()) {
        _ if !lower.starts_with("https://") && !lower.starts_with("http://") => {
            ("the URL is neither http nor https".to_owned(), "put http:// or https:// before it")
        }
        Err(error) => (format!("this is not a URL: {error}"), "write http://HOST:PORT/PATH"),
        Ok(url) if !url.username().is_empty() || url.password().is_some() => (
            "the URL has a user or password".to_owned(),
            "remove it; a secret may stand in the path or the query, by a variable",
        ),
        Ok(url) if url.port() == Some(0) => {
            ("the URL has port 0".to_owned(), "write the port of the server")
        }
        Ok(mut url) => {
            url.set_fragment(None);
            return Some(url);
        }
    };
    context.report.malformed(text, "a URL", what, Some(FORM), hint);
    None
}

#[cfg(not(feature = "postgres"))]
fn postgres(
    located: &Located<SourceSection>,
    context: &mut CompileContext,
) -> Option<PostgresSettings> {
    let message = "this build of Sidecache cannot listen to PostgreSQL";
    let builder = DiagnosticBuilder::error(located.span.clone(), message);
    context.report.push(builder.hint("build it with the feature `postgres`, or remove the source"));
    None
}

#[cfg(feature = "postgres")]
fn postgres(
    located: &Located<SourceSection>,
    context: &mut CompileContext,
) -> Option<PostgresSettings> {
    use crate::sources::postgres::{URL_FORM, is_in_the_clear, parse};

    let (file, table) = (&located.value, (&located.span, &located.value.unknown));
    let example = "url = \"postgres://sidecache:${DATABASE_PASSWORD}@127.0.0.1:5432/app\"";
    let url = file.url.required("url", table, example, &mut context.report);
    let channel = channel(&file.channel, context);
    let ca_file = context.file(&file.ca_file, MAX_CA_BYTES).map(|(path, _)| path);
    let url = url?;
    // SECURITY: the text may hold a password, so no message repeats it.
    match parse(url.value.as_str()) {
        Ok(config) => {
            if is_in_the_clear(&config) {
                let message = "what this database sends, and the password, may be read on the way";
                let builder = DiagnosticBuilder::warning(url.span.clone(), message);
                context.report.push(builder.hint(
                    "write sslmode=require; on a network that is trusted, end the line with \
                     `# check: ok`",
                ));
            }
        }
        Err(fault) => {
            let (what, hint) = fault.texts();
            context.report.malformed(url, "a URL of PostgreSQL", what, Some(URL_FORM), hint);
            return None;
        }
    }
    Some(PostgresSettings { url: Secret::new(url.value.as_str()), channel: channel?, ca_file })
}

/// The name of the channel, as `NOTIFY` has it: PostgreSQL folds names that are not quoted.
fn channel(slot: &Setting<TomlString>, context: &mut CompileContext) -> Option<Box<str>> {
    let given = match slot {
        Setting::Given(given) => given,
        Setting::Bad => return None,
        Setting::Absent | Setting::Default(_) => return Some(DEFAULT_CHANNEL.into()),
    };
    let text = given.value.as_str();
    if (1..=MAX_CHANNEL).contains(&text.len()) && !text.bytes().any(|b| b.is_ascii_control()) {
        return Some(text.into());
    }
    let what = format!("`{}` is not a name of a channel", given.value.shown());
    let allowed = Some("1 to 63 bytes, as PostgreSQL has names");
    context.report.malformed(given, "a channel", what, allowed, "write it as \"sidecache\"");
    None
}
