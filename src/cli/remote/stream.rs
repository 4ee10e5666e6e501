//! Server-sent events of a running sidecar, as they arrive. One event has a limit, and so has the
//! silence between two.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use tokio::time::timeout;

/// How long a stream may be silent: the sidecar sends a comment every 15 seconds.
const SILENCE: Duration = Duration::from_secs(45);
/// The longest event that is read, in bytes.
const MAX_EVENT: usize = 256 * 1024;

/// An event.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct StreamEvent {
    /// Its name; empty if it has none.
    pub(crate) name: String,
    /// Its data.
    pub(crate) data: String,
}

/// Why there are no more events.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum EventsEnd {
    /// The sidecar has ended the stream, as it does after some minutes.
    Ended,
    /// The connection broke off, or what came is no stream of events.
    Broken(String),
}

/// An open stream.
pub(crate) struct EventStream {
    /// The connection ends with it.
    _sender: SendRequest<Full<Bytes>>,
    body: Incoming,
    parser: EventParser,
}

impl EventStream {
    pub(super) fn new(sender: SendRequest<Full<Bytes>>, body: Incoming) -> Self {
        Self { _sender: sender, body, parser: EventParser::default() }
    }

    /// The events that come next: at least one.
    pub(crate) async fn next(&mut self) -> Result<Vec<StreamEvent>, EventsEnd> {
        loop {
            let frame = timeout(SILENCE, self.body.frame()).await.map_err(|_| {
                EventsEnd::Broken(format!("nothing came for {} s", SILENCE.as_secs()))
            })?;
            let frame = match frame {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => return Err(EventsEnd::Broken(error.to_string())),
                None => return Err(EventsEnd::Ended),
            };
            let events = self.parser.push(frame.data_ref().map_or(&[][..], Bytes::as_ref))?;
            if !events.is_empty() {
                return Ok(events);
            }
        }
    }
}

/// Reads the form of server-sent events (the HTML standard, 9.2.6), as far as a sidecar uses it.
#[derive(Debug, Default)]
struct EventParser {
    /// A line that has not ended yet.
    line: Vec<u8>,
    name: String,
    data: String,
}

impl EventParser {
    /// Takes bytes, and returns the events that end in them.
    fn push(&mut self, bytes: &[u8]) -> Result<Vec<StreamEvent>, EventsEnd> {
        let mut events = Vec::new();
        let mut pieces = bytes.split(|byte| *byte == b'\n');
        // The last piece is the beginning of a line.
        let last = pieces.next_back().unwrap_or_default();
        for piece in pieces {
            self.line.extend_from_slice(piece);
            let line = std::mem::take(&mut self.line);
            let line = String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(&line));
            events.extend(self.line(&line));
        }
        self.line.extend_from_slice(last);
        if self.line.len() + self.data.len() + self.name.len() > MAX_EVENT {
            return Err(EventsEnd::Broken(format!("an event is longer than {MAX_EVENT} bytes")));
        }
        Ok(events)
    }

    fn line(&mut self, line: &str) -> Option<StreamEvent> {
        if line.is_empty() {
            let (name, data) = (std::mem::take(&mut self.name), std::mem::take(&mut self.data));
            return (!data.is_empty()).then_some(StreamEvent { name, data });
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.name),
            "data" => {
                if !self.data.is_empty() {
                    self.data.push('\n');
                }
                self.data.push_str(value);
            }
            // A comment, an id, or what later versions may have.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(name: &str, data: &str) -> StreamEvent {
        StreamEvent { name: name.to_owned(), data: data.to_owned() }
    }

    #[test]
    fn events_are_read_however_they_are_cut() {
        let text = ": open\n\nevent: request\nid: 7\ndata: {\"a\":1}\n\n:\n\nevent:x\r\ndata:ü\r\n\
                    data: b\r\n\r\nevent: none\n\ndata: c\n\n";
        let all = [event("request", "{\"a\":1}"), event("x", "ü\nb"), event("", "c")];
        for size in [1, 2, 3, 7, text.len()] {
            let mut parser = EventParser::default();
            let mut events = Vec::new();
            for piece in text.as_bytes().chunks(size) {
                events.extend(parser.push(piece).expect("short events"));
            }
            assert_eq!(events, all, "in pieces of {size}");
        }
    }

    #[test]
    fn an_event_without_an_end_is_not_read_for_ever() {
        let mut parser = EventParser::default();
        let pieces = std::iter::repeat_n(b"data: aaaaaaaaaa\n", MAX_EVENT / 10 + 1);
        let ends = pieces.map(|piece| parser.push(piece)).find(Result::is_err);
        assert!(matches!(ends, Some(Err(EventsEnd::Broken(_)))), "{ends:?}");
    }
}
