//! An admin listener that answers what a test has written, and notes what it was asked.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Question {
    /// Its method and path.
    pub line: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, where it is JSON.
    pub body: Value,
}

/// The listener. Dropping it ends it.
pub struct ScriptAdmin {
    /// Where it listens.
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<Question>>>,
    task: JoinHandle<()>,
}

impl ScriptAdmin {
    /// A listener that answers each method and path, such as `GET /stats`, with a status and a text; everything else with a 404.
    pub async fn start(answers: &[(&str, u16, &str)]) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("the loopback has a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let answers: Arc<Vec<_>> = Arc::new(answers.iter().map(|(line, code, text)| (line.to_string(), *code, text.to_string())).collect());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&asked);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (answers, noted) = (Arc::clone(&answers), Arc::clone(&noted));
                let service = service_fn(move |request| answer(request, Arc::clone(&answers), Arc::clone(&noted)));
                tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { address, asked, task }
    }

    /// What it was asked, in order.
    pub fn asked(&self) -> Vec<Question> {
        self.asked.lock().expect("no test panics with the lock held").clone()
    }
}

impl Drop for ScriptAdmin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(
    request: Request<Incoming>,
    answers: Arc<Vec<(String, u16, String)>>,
    noted: Arc<Mutex<Vec<Question>>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let line = format!("{} {}", head.method, head.uri);
    let known = answers.iter().find(|(known, _, _)| *known == line);
    let (code, text) = known.map_or((404, String::new()), |(_, code, text)| (*code, text.clone()));
    let question = Question { line, headers: head.headers, body: serde_json::from_slice(&body).unwrap_or_default() };
    noted.lock().expect("no test panics with the lock held").push(question);
    Ok(Response::builder().status(code).body(Full::new(Bytes::from(text))).expect("a response of HTTP"))
}
