//! Files: uploads are counted and hashed as they stream by, downloads are made up as they go. Large
//! ones never lie in memory.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::StatusCode;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::reply::{self, Reply, error};

/// Uploads up to this size are kept; of larger ones only the digest is told.
const KEEP: usize = 1024 * 1024;
/// At most so many are kept.
const MAX_FILES: usize = 32;
/// The largest made-up file.
const MAX_DOWNLOAD: u64 = 16 * 1024 * 1024 * 1024;
const CHUNK: usize = 64 * 1024;

/// What was uploaded and is small enough to keep.
#[derive(Default)]
pub struct Files(Mutex<BTreeMap<String, Bytes>>);

impl Files {
    /// Reads an upload to its end; the answer is its size and SHA-256.
    pub async fn upload(&self, name: &str, mut body: Incoming) -> Reply {
        let mut digest = Sha256::new();
        let mut bytes = 0_u64;
        let mut kept = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else {
                return error(StatusCode::BAD_REQUEST, "the upload broke off");
            };
            if let Ok(data) = frame.into_data() {
                digest.update(&data);
                bytes += data.len() as u64;
                if bytes <= KEEP as u64 {
                    kept.extend_from_slice(&data);
                } else {
                    kept = BytesMut::new();
                }
            }
        }
        if bytes <= KEEP as u64 {
            self.keep(name, kept.freeze());
        }
        reply::json(
            StatusCode::CREATED,
            &json!({ "bytes": bytes, "sha256": hex(&digest.finalize()) }),
        )
    }

    /// `?size=BYTES` made-up bytes, the same each time for a name; without it what was uploaded
    /// under the name.
    pub fn download(&self, name: &str, query: Option<&str>) -> Reply {
        let size = query.unwrap_or_default().split('&').find_map(|pair| pair.strip_prefix("size="));
        match size.map(str::parse::<u64>) {
            Some(Ok(size @ 0..=MAX_DOWNLOAD)) => reply::with_body(
                StatusCode::OK,
                "application/octet-stream",
                MadeUp::new(name, size),
            ),
            Some(_) => error(StatusCode::BAD_REQUEST, "size is a number of bytes, up to 16 GiB"),
            None => match self.0.lock().unwrap_or_else(PoisonError::into_inner).get(name) {
                Some(bytes) => reply::with_body(
                    StatusCode::OK,
                    "application/octet-stream",
                    Full::new(bytes.clone()),
                ),
                None => {
                    error(StatusCode::NOT_FOUND, "no such upload is kept; ?size=BYTES makes one up")
                }
            },
        }
    }

    fn keep(&self, name: &str, bytes: Bytes) {
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if files.len() < MAX_FILES || files.contains_key(name) {
            files.insert(name.to_owned(), bytes);
        }
    }
}

/// A body of made-up bytes: one block that depends on the name, each time with its number written
/// over its beginning.
struct MadeUp {
    block: Bytes,
    number: u64,
    left: u64,
}

impl MadeUp {
    fn new(name: &str, size: u64) -> Self {
        let mut block = BytesMut::with_capacity(CHUNK);
        let mut digest = Sha256::digest(name.as_bytes());
        while block.len() < CHUNK {
            block.extend_from_slice(&digest);
            digest = Sha256::digest(digest);
        }
        Self { block: block.freeze(), number: 0, left: size }
    }
}

impl Body for MadeUp {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let length = usize::try_from(self.left).map_or(CHUNK, |left| left.min(CHUNK));
        let mut chunk = BytesMut::from(&self.block[..length]);
        let number = self.number.to_be_bytes();
        let stamp = length.min(number.len());
        chunk[..stamp].copy_from_slice(&number[..stamp]);
        self.number += 1;
        self.left -= length as u64;
        Poll::Ready(Some(Ok(Frame::data(chunk.freeze()))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// Lower-case hexadecimal digits.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing into a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
