//! The settings of a webhook.

use std::time::Duration;

use crate::policy::webhook_signature::{SignatureForm, WebhookKey};

/// What is received, where, and how it is signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookSettings {
    /// The path of the requests, on the listener of the app.
    pub path: Box<str>,
    /// The keys with which it may be signed.
    pub keys: Box<[WebhookKey]>,
    /// How it is signed.
    pub form: SignatureForm,
    /// How far its time of sending may be from now.
    pub window: Duration,
    /// The longest body, in bytes.
    pub max_body: usize,
}
