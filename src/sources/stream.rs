//! A stream of Redis, to which any script adds what has changed.
//!
//! Invariant: every reply proves the hearing, because it says that nothing was added before it that
//! was not read. What was removed before it was read is a gap.

use super::listener::SourceListener;
use super::settings::StreamSettings;
use crate::redis::{StreamNews, StreamReader};

/// The names of the fields that hold tags.
const TAG_FIELDS: [&[u8]; 2] = [b"tag", b"tags"];

/// Reads until something goes wrong, and says what that was.
pub(super) async fn listen(settings: &StreamSettings, listener: &SourceListener) -> String {
    let opened = StreamReader::open(settings.redis.clone(), &settings.stream).await;
    let mut reader = match opened {
        Ok(reader) => reader,
        Err(error) => return error.to_string(),
    };
    listener.heard();
    loop {
        match reader.read().await {
            Ok(StreamNews::Entries(entries)) => {
                for fields in &entries {
                    tell(fields, listener);
                }
                listener.heard();
            }
            Ok(StreamNews::Gap) => {
                listener.missed("entries were removed from the stream before they were read");
                listener.heard();
            }
            Err(error) => return error.to_string(),
        }
    }
}

/// Tells what the fields of an entry name.
fn tell(fields: &[(bytes::Bytes, bytes::Bytes)], listener: &SourceListener) {
    let tags = fields.iter().filter(|(name, _)| TAG_FIELDS.contains(&&name[..]));
    let texts: Vec<_> = tags.map(|(_, value)| String::from_utf8_lossy(value)).collect();
    if texts.is_empty() {
        listener.refuse(&"an entry of the stream has no field `tag`");
    } else {
        listener.told(&texts.join(" "));
    }
}
